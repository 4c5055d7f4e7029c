"""What the cache reports about itself: figures of the servers and of this process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from data_layer.cache.address import Topology
from data_layer.cache.wire.breaker import BreakerState
from data_layer.observability.metrics.counters import Durations
from data_layer.schemas.base import Value

_STEPS_PER_DOUBLING = 8
_LATENCY_LIMITS: Final = tuple(1e-6 * 2 ** (step / _STEPS_PER_DOUBLING) for step in range(1, 30 * _STEPS_PER_DOUBLING))
_EVERY_FOURFOLD: Final = slice(6 * _STEPS_PER_DOUBLING - 1, 23 * _STEPS_PER_DOUBLING, 2 * _STEPS_PER_DOUBLING)


def new_latencies() -> Durations:
    """Durations from a microsecond to nine minutes, each known to about 5 %; reported from 64 µs to 4.2 s."""
    return Durations(_LATENCY_LIMITS, _EVERY_FOURFOLD)


def parse_info(answer: bytes) -> dict[str, int | str]:
    """The fields of INFO by their names; whole numbers are numbers."""
    pairs = (line.partition(":") for line in answer.decode(errors="replace").splitlines() if not line.startswith("#"))
    return {name: int(value) if value.isdecimal() else value for name, separator, value in pairs if separator}


@dataclass(slots=True)
class Counters:
    """What this process has done since the cache was opened."""

    hits: int = 0
    misses: int = 0
    undecodable: int = 0
    failures: int = 0


class NearCopyStatistics(Value):
    """The copy in this process. ``is_answering`` is false while it may miss changes. Sizes are in bytes."""

    is_answering: bool
    entries: int
    size: int
    capacity: int
    hits: int
    evictions: int
    invalidations: int


class ProcessStatistics(Value):
    """What this process has done since it opened the cache; asking for it sends nothing.

    A rate is from 0 to 1, or None before the first read.

    ``hits`` and ``misses`` are reads that went to Redis; ``hit_rate`` counts those that the near copy answered too. The
    latency is that from sending a batch of commands to the answer of the last one.
    """

    breaker: BreakerState
    near: NearCopyStatistics
    hits: int
    misses: int
    hit_rate: float | None
    undecodable: int
    failures: int
    compressed_values: int
    compression_saved: int
    latency_p50_ms: float | None
    latency_p99_ms: float | None


class ServerStatistics(Value):
    """One server since its start, with what other applications did; or ``error``, which says why it did not answer."""

    name: str
    breaker: BreakerState
    error: str | None = None
    version: str = ""
    uptime_seconds: int = 0
    memory_used: int = 0
    memory_limit: int | None = None
    clients: int = 0
    hits: int = 0
    misses: int = 0
    hit_rate: float | None = None
    evicted_keys: int = 0
    expired_keys: int = 0


class CacheStatistics(ProcessStatistics):
    """One moment of the cache.

    The ``server_`` figures are sums over all servers that answered: the server, the primary that the sentinels named,
    or the primaries of the cluster. ``keys`` counts the keys under this application's prefix, sessions included;
    ``keys_complete`` is false when there are too many to look at them all, or a server did not answer.
    """

    topology: Topology
    servers: tuple[ServerStatistics, ...]
    server: str
    server_uptime_seconds: int
    server_memory_used: int
    server_memory_limit: int | None
    server_clients: int
    server_hits: int
    server_misses: int
    server_hit_rate: float | None
    server_evicted_keys: int
    server_expired_keys: int
    keys: int
    keys_complete: bool


def describe_server(name: str, breaker: BreakerState, info: dict[str, int | str]) -> ServerStatistics:
    """The figures of one server from its answer to INFO."""

    def number(field: str) -> int:
        value = info.get(field, 0)
        return value if isinstance(value, int) else 0

    hits, misses = number("keyspace_hits"), number("keyspace_misses")
    return ServerStatistics(
        name=name,
        breaker=breaker,
        version=_name_and_version(info),
        uptime_seconds=number("uptime_in_seconds"),
        memory_used=number("used_memory"),
        memory_limit=number("maxmemory") or None,
        clients=number("connected_clients"),
        hits=hits,
        misses=misses,
        hit_rate=rate(hits, misses),
        evicted_keys=number("evicted_keys"),
        expired_keys=number("expired_keys"),
    )


def summarize(
    process: ProcessStatistics, topology: Topology, servers: Sequence[ServerStatistics], *, keys: int, complete: bool
) -> CacheStatistics:
    """Everything together; at least one server answered."""
    answered = [server for server in servers if server.error is None]
    limits = [server.memory_limit for server in answered]
    hits, misses = sum(server.hits for server in answered), sum(server.misses for server in answered)
    return CacheStatistics(
        **process.model_dump(),
        topology=topology,
        servers=tuple(servers),
        server=", ".join(dict.fromkeys(server.version for server in answered)),
        server_uptime_seconds=min(server.uptime_seconds for server in answered),
        server_memory_used=sum(server.memory_used for server in answered),
        server_memory_limit=None if None in limits else sum(limit or 0 for limit in limits),
        server_clients=sum(server.clients for server in answered),
        server_hits=hits,
        server_misses=misses,
        server_hit_rate=rate(hits, misses),
        server_evicted_keys=sum(server.evicted_keys for server in answered),
        server_expired_keys=sum(server.expired_keys for server in answered),
        keys=keys,
        keys_complete=complete and len(answered) == len(servers),
    )


def rate(hits: int, misses: int) -> float | None:
    """The share of hits, or nothing before the first read."""
    return hits / (hits + misses) if hits + misses else None


def _name_and_version(info: dict[str, int | str]) -> str:
    # Valkey also reports the Redis version that it is compatible with.
    if "valkey_version" in info:
        return f"valkey {info['valkey_version']}"
    return f"redis {info.get('redis_version', 'of unknown version')}"
