"""``Metrics``: everything that one data layer counts, and the metrics that an application declares itself.

Names, labels and values of declared metrics follow prometheus.io, "Metric and label naming"; the number of series is
known when they are declared.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import product
from math import prod
from typing import Any, Generic, TypeVar

import prometheus_client
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.registry import Collector

from data_layer.errors import InvalidValueError
from data_layer.observability.log import get_log
from data_layer.observability.metrics.counters import DURATION_LIMITS, HttpCounters
from data_layer.observability.metrics.snapshots import GAUGES_THAT_ARE_NOT_SUMS, AcrossWorkers, Snapshot, take

Labels = Mapping[str, Iterable[str]]

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


log = get_log(__name__)

Instrument = TypeVar("Instrument", prometheus_client.Counter, prometheus_client.Gauge, prometheus_client.Histogram)


class _Custom(Generic[Instrument]):
    """One metric with all its series, which exist from the start. May be used by several threads."""

    def __init__(self, name: str, instrument: Instrument, labels: Mapping[str, tuple[str, ...]]) -> None:
        self.name = name
        self._labels = labels
        self._is_told = False
        self._series: dict[tuple[str, ...], Instrument] = {
            values: instrument.labels(*values) if values else instrument for values in product(*labels.values())
        }

    def _find(self, given: Mapping[str, Any]) -> Instrument:
        if given.keys() != self._labels.keys():
            wanted = ", ".join(self._labels) or "none"
            raise InvalidValueError(f"the metric {self.name} has other labels: {wanted}", field="labels")
        series = self._series.get(tuple(str(given[label]) for label in self._labels))
        return series or self._series[tuple(self._known(label, str(given[label])) for label in self._labels)]

    def _known(self, label: str, value: str) -> str:
        if value in self._labels[label]:
            return value
        if not self._is_told:
            self._is_told = True
            log.warning("metric_label_value_unknown", metric=self.name, label=label, counted_as=OTHER)
        return OTHER


class Counter(_Custom[prometheus_client.Counter]):
    """What only grows."""

    def inc(self, amount: float = 1, **labels: str) -> None:
        """Count.

        Raises:
            InvalidValueError: other labels than were declared, or an amount below 0.
        """
        if amount < 0:
            raise InvalidValueError(f"the counter {self.name} cannot fall; use a gauge", field="amount")
        self._find(labels).inc(amount)


class Gauge(_Custom[prometheus_client.Gauge]):
    """What goes up and down."""

    def set(self, value: float, **labels: str) -> None:
        """What it is now.

        Raises:
            InvalidValueError: other labels than were declared.
        """
        self._find(labels).set(value)

    def inc(self, amount: float = 1, **labels: str) -> None:
        """More than before, or less with a negative amount.

        Raises:
            InvalidValueError: other labels than were declared.
        """
        self._find(labels).inc(amount)


class Histogram(_Custom[prometheus_client.Histogram]):
    """Counts measured values by the limits that they do not exceed."""

    def observe(self, value: float, **labels: str) -> None:
        """Note what was measured, in base units: seconds, bytes.

        Raises:
            InvalidValueError: other labels than were declared.
        """
        self._find(labels).observe(value)

    def time(self, **labels: str) -> AbstractContextManager[object]:
        """Note the seconds that a ``with`` block takes.

        Raises:
            InvalidValueError: other labels than were declared.
        """
        return self._find(labels).time()


Custom = TypeVar("Custom", Counter, Gauge, Histogram)
Declaration = tuple[object, ...]

MOST_CUSTOM_METRICS = 100


class Metrics:
    """The registry of one data layer.

    ``counter``, ``gauge`` and ``histogram`` add metrics of the application's own. Each label comes with the values that
    it may have, so that the number of series is known and all of them exist from the start. Declaring the same metric
    again gives the same one.

    ::

        rendered = data.metrics.counter("pages_rendered", "Pages drawn.", {"engine": ("chromium", "webkit")})
        rendered.inc(engine="chromium")
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.http = HttpCounters()
        self._custom: dict[str, tuple[Declaration, Counter | Gauge | Histogram]] = {}
        self._across_workers = dict(GAUGES_THAT_ARE_NOT_SUMS)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self.watch(self.http)

    def counter(self, name: str, documentation: str, labels: Labels | None = None) -> Counter:
        """Declare what only grows; ``_total`` is added to its name.

        Raises:
            InvalidValueError: see ``naming``; or there is another metric of this name.
        """
        declared = check_labels(name, labels or {})
        bare = check_name(name, is_counter=True)

        def make() -> Counter:
            made = prometheus_client.Counter(bare, documentation, tuple(declared), registry=self.registry)
            return Counter(bare, made, declared)

        return self._declare(bare, (Counter, check_documentation(name, documentation), declared), make)

    def gauge(
        self,
        name: str,
        documentation: str,
        labels: Labels | None = None,
        *,
        across_workers: AcrossWorkers = AcrossWorkers.SUM,
    ) -> Gauge:
        """Declare what goes up and down.

        Args:
            name: in lower-case words, with the unit at its end.
            documentation: what it means.
            labels: names, each with all its values.
            across_workers: what the gauges of several processes make together.

        Raises:
            InvalidValueError: see ``naming``; or there is another metric of this name.
        """
        declared = check_labels(name, labels or {})

        def make() -> Gauge:
            self._across_workers[name] = across_workers
            made = prometheus_client.Gauge(name, documentation, tuple(declared), registry=self.registry)
            return Gauge(name, made, declared)

        is_like = (Gauge, check_documentation(name, documentation), declared, across_workers)
        return self._declare(check_name(name), is_like, make)

    def histogram(
        self,
        name: str,
        documentation: str,
        labels: Labels | None = None,
        *,
        limits: Sequence[float] = DURATION_LIMITS,
    ) -> Histogram:
        """Declare what is measured again and again.

        Args:
            name: in lower-case words, with the unit at its end.
            documentation: what it means.
            labels: names, each with all its values.
            limits: the upper limits of the classes, growing, 20 at most.

        Raises:
            InvalidValueError: see ``naming``; or there is another metric of this name.
        """
        declared = check_labels(name, labels or {})
        if not 0 < len(limits) <= 20 or sorted(set(limits)) != list(limits):
            raise InvalidValueError(f"the histogram {name} needs 1 to 20 growing limits", field="limits")

        def make() -> Histogram:
            made = prometheus_client.Histogram(
                name, documentation, tuple(declared), registry=self.registry, buckets=limits
            )
            return Histogram(name, made, declared)

        is_like = (Histogram, check_documentation(name, documentation), declared, tuple(limits))
        return self._declare(check_name(name), is_like, make)

    def watch(self, collector: Collector) -> None:
        """Ask this, too, whenever somebody looks."""
        self.registry.register(collector)

    def snapshot(self) -> Snapshot:
        """Everything as it is now. To be called by the event loop that counts."""
        return take(self.registry.collect(), self._across_workers)

    def _declare(self, name: str, declaration: Declaration, make: Callable[[], Custom]) -> Custom:
        before = self._custom.get(name)
        if before is not None:
            if before[0] != declaration:
                raise InvalidValueError(f"there is another metric {name}, with other properties", field="name")
            return before[1]  # type: ignore[return-value]  # The declaration holds the class.
        if len(self._custom) >= MOST_CUSTOM_METRICS:
            raise InvalidValueError(f"there are {MOST_CUSTOM_METRICS} metrics already; use labels", field="name")
        made = make()
        self._custom[name] = declaration, made
        return made
