"""Metrics of an application's own, on top of prometheus-client: the number of series is known when they are declared.

A value of a label that was not declared counts as ``other``, and one event tells of it: recording must not break the
work that is recorded, nor may it ever make series without end.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import prometheus_client

from data_layer.errors import InvalidValueError
from data_layer.observability.log import get_log
from data_layer.observability.metrics.naming import OTHER

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager

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
    """How often what was measured was at most as large as each of its limits."""

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
