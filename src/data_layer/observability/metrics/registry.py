"""``Metrics``: everything that one data layer counts, and what an application adds to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import prometheus_client
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector

from data_layer.errors import InvalidValueError
from data_layer.observability.metrics.custom import Counter, Gauge, Histogram
from data_layer.observability.metrics.durations import DURATION_LIMITS
from data_layer.observability.metrics.http import HttpCounters
from data_layer.observability.metrics.merging import GAUGES_THAT_ARE_NOT_SUMS
from data_layer.observability.metrics.naming import check_documentation, check_labels, check_name
from data_layer.observability.metrics.snapshots import AcrossWorkers, Snapshot, take

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from prometheus_client.registry import Collector

    Labels = Mapping[str, Iterable[str]]

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
