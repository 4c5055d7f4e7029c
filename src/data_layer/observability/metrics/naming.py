"""Which names, labels and values an application's own metrics may have (prometheus.io, "Metric and label naming")."""

from __future__ import annotations

import re
from math import prod
from typing import TYPE_CHECKING

from data_layer.errors import InvalidValueError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MOST_SERIES = 200
"""How many combinations of label values one metric may have."""

OTHER = "other"
"""Stands for every value of a label that was not declared."""

_LONGEST = 100
_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_OURS = ("data_layer_", "process_", "python_")
_RESERVED_ENDS = ("_bucket", "_count", "_created", "_info", "_sum", "_total")
_RESERVED_LABELS = frozenset({"le", "quantile", "job", "instance"})
_BASE_UNITS = {
    **dict.fromkeys(("milliseconds", "microseconds", "ms", "us", "minutes", "hours", "days"), "seconds"),
    **dict.fromkeys(("kilobytes", "megabytes", "gigabytes", "kb", "mb", "gb", "kib", "mib", "gib", "bits"), "bytes"),
    **dict.fromkeys(("percent", "percentage"), "ratio"),
}


def check_name(name: str, *, is_counter: bool = False) -> str:
    """The name of a metric, without the ``_total`` that a counter gets by itself.

    Raises:
        InvalidValueError: it breaks a rule; the message says which.
    """
    bare = name.removesuffix("_total") if is_counter else name
    if not _NAME.fullmatch(bare) or len(bare) > _LONGEST:
        raise _refused(name, f"use lower-case words joined by underscores, {_LONGEST} characters at most")
    if bare.startswith(_OURS):
        raise _refused(name, f"names that begin with {' or '.join(_OURS)} belong to others")
    if bare.endswith(_RESERVED_ENDS):
        raise _refused(name, f"the ending _{bare.rpartition('_')[2]} belongs to Prometheus")
    unit = bare.rpartition("_")[2]
    if unit in _BASE_UNITS:
        raise _refused(name, f"measure in {_BASE_UNITS[unit]} and say so in the name, instead of {unit}")
    return bare


def check_documentation(name: str, documentation: str) -> str:
    """What the metric means.

    Raises:
        InvalidValueError: it says nothing.
    """
    if not documentation.strip():
        raise _refused(name, "say what it means")
    return documentation


def check_labels(name: str, labels: Mapping[str, Iterable[str]]) -> dict[str, tuple[str, ...]]:
    """The labels with all values that they may have, ``other`` included.

    Raises:
        InvalidValueError: a label has a name that is not allowed or no values, or there are too many combinations.
    """
    declared = {label: tuple(dict.fromkeys([*map(str, values), OTHER])) for label, values in labels.items()}
    for label, values in declared.items():
        if not _NAME.fullmatch(label) or label in _RESERVED_LABELS:
            raise _refused(name, f"{label!r} cannot be a label")
        if len(values) == 1:
            raise _refused(name, f"list the values that the label {label!r} may have")
        if any(not 0 < len(value) <= _LONGEST or not value.isprintable() for value in values):
            raise _refused(name, f"a value of the label {label!r} is empty, too long or not printable")
    series = prod(len(values) for values in declared.values())
    if series > MOST_SERIES:
        raise _refused(
            name, f"its labels make {series} series, and {MOST_SERIES} are allowed: drop one, or group values"
        )
    return declared


def _refused(name: str, reason: str) -> InvalidValueError:
    return InvalidValueError(f"the metric {name[:_LONGEST]!a} is refused: {reason}", field="name")
