"""Families of samples as prometheus-client knows them, made from what was counted; and what HTTP counts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily

from data_layer.observability.metrics.durations import Durations

PREFIX = "data_layer_"


def counter(name: str, documentation: str, value: float) -> Metric:
    """A counter without labels; the name ends in ``_total``."""
    return CounterMetricFamily(PREFIX + name, documentation, value=value)


def counters(name: str, documentation: str, labels: Sequence[str], values: Mapping[tuple[str, ...], float]) -> Metric:
    """A counter for each tuple of values of the labels."""
    family = CounterMetricFamily(PREFIX + name, documentation, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def gauge(name: str, documentation: str, value: float) -> Metric:
    """A gauge without labels."""
    return GaugeMetricFamily(PREFIX + name, documentation, value=value)


def gauges(name: str, documentation: str, labels: Sequence[str], values: Mapping[tuple[str, ...], float]) -> Metric:
    """A gauge for each tuple of values of the labels."""
    family = GaugeMetricFamily(PREFIX + name, documentation, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def histograms(
    name: str,
    documentation: str,
    labels: Sequence[str],
    values: Mapping[tuple[str, ...], tuple[Iterable[tuple[float, int]], float]],
) -> Metric:
    """A histogram for each tuple of values of the labels.

    Args:
        name: ends in the unit.
        documentation: what is measured.
        labels: names.
        values: upper limits with how many were not above them, the last one infinite; and the sum.
    """
    family = HistogramMetricFamily(PREFIX + name, documentation, labels=labels)
    for key, (cumulated, total) in values.items():
        family.add_metric(key, [(_written(limit), count) for limit, count in cumulated], total)
    return family


def _written(limit: float) -> str:
    return "+Inf" if limit == math.inf else repr(limit)


def information(name: str, documentation: str, values: Mapping[str, str]) -> Metric:
    """Facts as labels of one sample that is always 1; ``_info`` is added to the name."""
    return InfoMetricFamily(PREFIX + name, documentation, value=dict(values))


UNMATCHED: Final = ("unmatched", "other")
"""Route and method of requests that no route takes."""

_CLASSES = ("2xx", "3xx", "4xx", "5xx")
_LABELS = ("route", "method")


class _Figures:
    """One route with one method."""

    __slots__ = ("durations", "statuses")

    def __init__(self) -> None:
        self.durations = Durations()
        self.statuses = [0] * len(_CLASSES)


class HttpCounters:
    """Requests that were answered, and those that are being answered. Used by one event loop."""

    def __init__(self) -> None:
        self.in_progress = 0
        self._routes = {UNMATCHED: _Figures()}

    def expect(self, routes: Iterable[tuple[str, str]]) -> None:
        """Know these routes, each with a method; all others are unmatched."""
        for route in routes:
            self._routes.setdefault(route, _Figures())

    def note(self, route: tuple[str, str], status: int, seconds: float) -> None:
        """A request was answered."""
        figures = self._routes.get(route) or self._routes[UNMATCHED]
        figures.durations.note(seconds)
        figures.statuses[min(max(status // 100, 2), 5) - 2] += 1

    def collect(self) -> Iterator[Metric]:
        """For prometheus-client."""
        yield counters(
            "http_requests",
            "Requests that were answered, by template of the route and class of the status.",
            (*_LABELS, "status"),
            {
                (*route, name): count
                for route, figures in self._routes.items()
                for name, count in zip(_CLASSES, figures.statuses, strict=True)
            },
        )
        yield histograms(
            "http_request_duration_seconds",
            "Time from the first byte of a request to the last one of its answer.",
            _LABELS,
            {route: (figures.durations.cumulated(), figures.durations.sum) for route, figures in self._routes.items()},
        )
        yield gauge("http_requests_in_progress", "Requests that are being answered.", self.in_progress)
