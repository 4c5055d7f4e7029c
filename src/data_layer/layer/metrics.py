"""What the parts have counted, as metrics: read when somebody asks, so that counting stays an addition.

Durations are in seconds, sizes in bytes. Labels hold names that the code or the settings know beforehand, and never
what came from outside, so the number of series does not grow.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Iterator
from dataclasses import asdict
from importlib.metadata import version

from prometheus_client import Metric

from data_layer.cache import Cache
from data_layer.cache.wire.breaker import BreakerState
from data_layer.config import Settings
from data_layer.database.observation import StatementCounters
from data_layer.database.replicas import ServerCounters
from data_layer.layer.container import Container
from data_layer.observability.metrics import families
from data_layer.observability.metrics.registry import Metrics
from data_layer.services.audit.buffer import AuditBuffer
from data_layer.services.sessions import SessionService
from data_layer.storage.counters import OPERATIONS, StorageCounters


def make_metrics(settings: Settings, container: Callable[[], Container | None]) -> Metrics:
    """The metrics of a data layer, whose parts there are while it is open."""
    metrics = Metrics()
    metrics.watch(_Collector(settings, container))
    return metrics


class _Collector:
    """Asks the parts, for prometheus-client."""

    def __init__(self, settings: Settings, container: Callable[[], Container | None]) -> None:
        self._settings = settings
        self._container = container

    def collect(self) -> Iterator[Metric]:
        """Everything that they have counted."""
        build = {
            "version": version("data-layer"),
            "python": platform.python_version(),
            "environment": self._settings.general.environment.value,
        }
        yield families.information("build", "Which version runs, and where.", build)
        yield families.gauge("workers", "Processes that serve requests.", 1)
        yield families.gauge(
            "workers_wanted", "Processes that should serve requests (WORKERS).", self._settings.service.workers
        )
        container = self._container()
        if container is not None:
            yield from _pools(container.server_counters)
            yield from _statements(container.server_counters.statements)
            yield from _transactions(container.server_counters)
            yield from _replicas(container)
            yield from _cache(container.cache)
            yield from _storage(container.storage_counters)
            yield from _sessions(container.sessions)
            yield from _audit(container.audit_buffer)


def _pools(servers: ServerCounters) -> Iterator[Metric]:
    counted = {(server,): counters for server, counters in servers.by_server.items()}
    databases = {(server,): database for server, database in servers.databases.items()}
    figures = {server: database.pool_figures() for server, database in databases.items()}
    yield families.gauges(
        "database_pool_connections",
        "Open connections, by server and by whether they are in use.",
        ("server", "state"),
        {(*server, state): pool[state] for server, pool in figures.items() for state in ("in_use", "idle")},
    )
    yield families.gauges(
        "database_pool_max_connections",
        "Connections that there may be.",
        ("server",),
        {server: pool["maximum"] for server, pool in figures.items()},
    )
    yield families.gauges(
        "database_pool_waiting",
        "Tasks that wait for a connection.",
        ("server",),
        {server: database.waiting for server, database in databases.items()},
    )
    yield families.histograms(
        "database_pool_wait_seconds",
        "Time until a task had a connection, or gave up.",
        ("server",),
        {server: (counters.waits.cumulated(), counters.waits.sum) for server, counters in counted.items()},
    )
    yield families.counters(
        "database_pool_timeouts",
        "Tasks that got no connection within DB_POOL_TIMEOUT.",
        ("server",),
        {server: counters.pool_timeouts for server, counters in counted.items()},
    )


def _transactions(servers: ServerCounters) -> Iterator[Metric]:
    yield families.counters(
        "database_transactions",
        "Transactions by their end; unknown: the connection broke, or the caller was cancelled, during COMMIT.",
        ("outcome",),
        {(outcome.value,): count for outcome, count in servers.primary.transactions.items()},
    )


def _statements(statements: StatementCounters) -> Iterator[Metric]:
    yield families.histograms(
        "database_statement_seconds",
        "Time until a statement was answered, by its name; of statements that are sent together that of all.",
        ("statement",),
        {(name,): (durations.cumulated(), durations.sum) for name, durations in statements.durations.items()},
    )
    yield families.counters(
        "database_statement_errors",
        "Statements that failed, by their name and the code of the error.",
        ("statement", "code"),
        dict(statements.errors.items()),
    )


def _replicas(container: Container) -> Iterator[Metric]:
    replicas = dict(zip(container.server_counters.replicas, container.replicas.figures(), strict=True))
    yield families.gauges(
        "database_replica_used",
        "1 while reads go to this replica, 0 while it is left out; summed over the workers.",
        ("server",),
        {(server,): float(figures["is_used"] is True) for server, figures in replicas.items()},
    )
    yield families.gauges(
        "database_replica_lag_seconds",
        "How far a replica is behind at most; NaN while nobody knows.",
        ("server",),
        {(server,): _number(figures["lag_seconds"]) for server, figures in replicas.items()},
    )


def _cache(cache: Cache) -> Iterator[Metric]:
    figures = cache.process_stats()
    near = figures.near
    yield families.counters(
        "cache_reads",
        "Reads, by who had the value: the copy in this process (near_hit), Redis (far_hit), nobody (miss).",
        ("result",),
        {("near_hit",): near.hits, ("far_hit",): figures.hits, ("miss",): figures.misses},
    )
    yield families.histograms(
        "cache_round_trip_seconds",
        "Time from sending commands, which are sent together, to the last answer.",
        (),
        {(): (cache.latencies.cumulated(), cache.latencies.sum)},
    )
    yield families.gauges(
        "cache_breaker_state",
        "1 for the state of the circuit breaker, the worst of all servers; summed over the workers.",
        ("state",),
        {(state.value,): float(figures.breaker is state) for state in BreakerState},
    )
    yield families.counter("cache_failures", "Commands that failed in the end.", figures.failures)
    yield families.counter("cache_undecodable", "Values that could not be read back.", figures.undecodable)
    yield families.counter("cache_compressed_values", "Values that were stored compressed.", figures.compressed_values)
    yield families.counter(
        "cache_compression_saved_bytes", "Bytes that compression has saved.", figures.compression_saved
    )
    yield families.gauge("cache_near_entries", "Values in the copies of the processes.", near.entries)
    yield families.gauge("cache_near_bytes", "Size of the copies of the processes.", near.size)
    yield families.gauge("cache_near_max_bytes", "Size that they may have (15/16 of REDIS_NEAR_SIZE).", near.capacity)
    yield families.gauge(
        "cache_near_answering", "Copies that surely hear of all changes, so that they answer.", float(near.is_answering)
    )
    yield families.counter("cache_near_evictions", "Values that left the copies for want of room.", near.evictions)
    yield families.counter("cache_near_invalidations", "Values that left because they changed.", near.invalidations)


def _storage(backends: tuple[StorageCounters, ...]) -> Iterator[Metric]:
    figures = {(one.backend, name): one.operations[name] for one in backends for name in OPERATIONS}
    yield families.histograms(
        "storage_operation_seconds",
        "Time that operations took, failed ones included.",
        ("backend", "operation"),
        {key: (one.durations.cumulated(), one.durations.sum) for key, one in figures.items()},
    )
    yield families.counters(
        "storage_errors",
        "Operations that failed; a file that is not there is an answer and no failure.",
        ("backend", "operation"),
        {key: sum(one.errors.values()) for key, one in figures.items()},
    )
    yield families.counters(
        "storage_bytes",
        "Bytes of files, in: uploaded, out: read.",
        ("backend", "direction"),
        {
            (one.backend, direction): count
            for one in backends
            for direction, count in (("in", one.bytes_in), ("out", one.bytes_out))
        },
    )


def _sessions(sessions: SessionService) -> Iterator[Metric]:
    yield families.counters(
        "session_validations",
        "Sessions that were looked up, by what answered; refused: unknown or ended; failed: the lookup failed.",
        ("result",),
        {(result,): count for result, count in asdict(sessions.validations).items()},
    )
    yield families.gauge("session_copies", "Copies of sessions in the processes.", sessions.copy_count)


def _audit(buffer: AuditBuffer) -> Iterator[Metric]:
    figures = buffer.statistics()
    outcomes = ("written", "spilled", "replayed", "rejected", "lost")
    yield families.counters(
        "audit_entries",
        "Audit entries by what became of them: in the database, on disk, from there into the database, refused, lost.",
        ("outcome",),
        {(outcome,): getattr(figures, outcome) for outcome in outcomes},
    )
    yield families.gauge("audit_entries_waiting", "Audit entries in memory.", figures.waiting)
    yield families.gauge("audit_spill_bytes", "Size of the audit entries on disk.", figures.bytes_on_disk)


def _number(value: object) -> float:
    return value if isinstance(value, float) else math.nan
