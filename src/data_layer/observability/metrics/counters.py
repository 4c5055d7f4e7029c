"""What parts of the data layer count with plain additions, and what is read when somebody asks.

Requests are counted by the template of their route: what callers write into a path makes no series.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:  # Where metrics are not collected, prometheus-client is not loaded.
    from prometheus_client import Metric

DURATION_LIMITS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper limits of the classes, in seconds, for what a request may wait for. What takes longer is in one more class."""


class Durations:
    """How many durations there were in each class, and their sum in seconds. Used by one event loop.

    Args:
        limits: upper limits of the classes, in seconds; one more class takes what is longer.
        reported: which of the limits ``cumulated`` lists, where there are more than anybody wants to store.
    """

    __slots__ = ("_counts", "_limits", "_reported", "sum")

    def __init__(self, limits: Sequence[float] = DURATION_LIMITS, reported: slice = slice(None)) -> None:
        self._limits = tuple(limits)
        self._reported = reported
        self._counts = [0] * (len(limits) + 1)
        self.sum = 0.0

    def note(self, seconds: float) -> None:
        """One more duration."""
        self._counts[bisect_left(self._limits, seconds)] += 1
        self.sum += seconds

    @property
    def count(self) -> int:
        """How many there were."""
        return sum(self._counts)

    def cumulated(self) -> list[tuple[float, int]]:
        """Each reported limit, and last an infinite one, with how many were not longer."""
        *below, total = accumulate(self._counts)
        pairs = list(zip(self._limits, below, strict=True))
        return [*pairs[self._reported], (math.inf, total)]

    def quantile(self, share: float) -> float | None:
        """Seconds within which this share of all durations lies, such as 0.5 or 0.99; None without any.

        It is the geometric middle of a class, and the last limit for what is longer than all of them.
        """
        count = self.count
        if not count:
            return None
        wanted = math.ceil(share * count)
        number = next(number for number, up_to in enumerate(accumulate(self._counts)) if up_to >= wanted)
        upper = self._limits[min(number, len(self._limits) - 1)]
        lower = self._limits[number - 1] if number else upper
        return math.sqrt(lower * upper)


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
        """For prometheus-client, which is loaded where somebody collects."""
        from data_layer.observability.metrics.families import counters, gauge, histograms

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
