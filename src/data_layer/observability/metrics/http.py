"""Requests by the template of their route: what callers write into a path makes no series."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from prometheus_client import Metric

from data_layer.observability.metrics.durations import Durations
from data_layer.observability.metrics.families import counters, gauge, histograms

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
