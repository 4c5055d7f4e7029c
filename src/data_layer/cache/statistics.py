"""What the cache tells about itself: figures of the server and of this process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict


@dataclass(slots=True)
class Counters:
    """What this process has done since the cache was opened."""

    hits: int = 0
    misses: int = 0
    undecodable: int = 0
    failures: int = 0


class CacheStatistics(BaseModel):
    """One moment of the cache. Sizes are in bytes; a rate is from 0 to 1, or nothing before the first read.

    The ``server_`` figures are those of the whole server since its start, with what other applications did; the
    others are those of this process since it opened the cache. ``keys`` counts the keys under this application's
    prefix, sessions included; ``keys_complete`` is false when the server holds too many keys to look at them all.
    """

    model_config = ConfigDict(frozen=True)

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
    hits: int
    misses: int
    hit_rate: float | None
    undecodable: int
    failures: int


def summarize(info: dict[str, Any], counters: Counters, *, keys: int, keys_complete: bool) -> CacheStatistics:
    """Statistics from the answer to INFO, this process's counters and the number of keys."""
    hits, misses = info.get("keyspace_hits", 0), info.get("keyspace_misses", 0)
    return CacheStatistics(
        server=_name_and_version(info),
        server_uptime_seconds=info.get("uptime_in_seconds", 0),
        server_memory_used=info.get("used_memory", 0),
        server_memory_limit=info.get("maxmemory") or None,
        server_clients=info.get("connected_clients", 0),
        server_hits=hits,
        server_misses=misses,
        server_hit_rate=_rate(hits, misses),
        server_evicted_keys=info.get("evicted_keys", 0),
        server_expired_keys=info.get("expired_keys", 0),
        keys=keys,
        keys_complete=keys_complete,
        hits=counters.hits,
        misses=counters.misses,
        hit_rate=_rate(counters.hits, counters.misses),
        undecodable=counters.undecodable,
        failures=counters.failures,
    )


def _name_and_version(info: dict[str, Any]) -> str:
    # Valkey also reports the Redis version that it is compatible with.
    if "valkey_version" in info:
        return f"valkey {info['valkey_version']}"
    return f"redis {info.get('redis_version', 'of unknown version')}"


def _rate(hits: int, misses: int) -> float | None:
    return hits / (hits + misses) if hits + misses else None
