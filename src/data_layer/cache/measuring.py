"""Gathers the figures of an open cache."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from data_layer.cache.address import Topology
from data_layer.cache.assembly import OpenCache
from data_layer.cache.codec import Codec
from data_layer.cache.commands import CommandRunner
from data_layer.cache.keys import Namespace
from data_layer.cache.statistics import (
    CacheStatistics,
    NearCopyStatistics,
    ProcessStatistics,
    ServerStatistics,
    describe_server,
    parse_info,
    rate,
    summarize,
)
from data_layer.cache.wire.node import Node
from data_layer.errors import CacheError, CacheUnavailableError

SCANS_PER_COUNT = 100
_KEYS_TO_TRY = 100_000


def measure_process(parts: OpenCache, codec: Codec) -> ProcessStatistics:
    """The figures of this process."""
    near, counters, latencies = parts.near, parts.counters, parts.runner.latencies
    median, slow = latencies.quantile(0.5), latencies.quantile(0.99)
    return ProcessStatistics(
        breaker=parts.runner.breaker_state,
        near=NearCopyStatistics(
            is_answering=near.is_answering,
            entries=len(near),
            size=near.size,
            capacity=near.capacity,
            hits=near.hits,
            evictions=near.evictions,
            invalidations=near.invalidations,
        ),
        hits=counters.hits,
        misses=counters.misses,
        hit_rate=rate(near.hits + counters.hits, counters.misses),
        undecodable=counters.undecodable,
        failures=counters.failures,
        compressed_values=codec.compressed_values,
        compression_saved=codec.compression_saved,
        latency_p50_ms=None if median is None else round(median * 1000, 3),
        latency_p99_ms=None if slow is None else round(slow * 1000, 3),
    )


async def probe(runner: CommandRunner, namespace: Namespace) -> None:
    """Ask every server for a write that changes nothing, because the key is absent.

    A server that is full, read-only, loading, or without the replicas that it must have, refuses it all the same.

    Raises:
        CacheError: or the subclass that says why one of them does not take it.
    """
    primaries = await runner.primaries()
    keys = _one_key_each(runner, namespace, primaries)
    await asyncio.gather(*(runner.run_on(primary, "SET", keys[primary], b"", "XX", "PX", 1) for primary in primaries))


def _one_key_each(runner: CommandRunner, namespace: Namespace, primaries: Sequence[Node]) -> dict[Node, bytes]:
    keys: dict[Node, bytes] = {}
    for number in range(_KEYS_TO_TRY):
        key = namespace.key(f"probe:{number}")
        owner = runner.owner(key)
        if owner is not None:
            keys.setdefault(owner, key)
        if keys.keys() >= set(primaries):
            return keys
    missing = next(primary for primary in primaries if primary not in keys)
    raise CacheUnavailableError(f"Redis at {missing.name} holds no keys, or it is not known which")


async def measure(parts: OpenCache, codec: Codec, topology: Topology, pattern: bytes) -> CacheStatistics:
    """The figures of this process and of all servers; looks at 100 000 keys at most.

    Raises:
        CacheError: when no server answers.
    """
    runner = parts.runner
    primaries = await runner.primaries()
    answers = await asyncio.gather(*(runner.run_on(primary, "INFO") for primary in primaries), return_exceptions=True)
    failures = [answer for answer in answers if isinstance(answer, BaseException)]
    for failure in failures:
        if not isinstance(failure, CacheError) or len(failures) == len(primaries):
            raise failure
    servers = [_describe(primary, answer) for primary, answer in zip(primaries, answers, strict=True)]
    awake = [primary for primary, server in zip(primaries, servers, strict=True) if server.error is None]
    keys, complete = await _count_keys(runner, awake, pattern)
    return summarize(measure_process(parts, codec), topology, servers, keys=keys, complete=complete)


def _describe(primary: Node, answer: bytes | BaseException) -> ServerStatistics:
    if isinstance(answer, BaseException):
        return ServerStatistics(name=primary.name, breaker=primary.breaker_state, error=str(answer))
    return describe_server(primary.name, primary.breaker_state, parse_info(answer))


async def _count_keys(runner: CommandRunner, primaries: list[Node], pattern: bytes) -> tuple[int, bool]:
    """How many keys match, and whether all keys were looked at. SCAN may return a key twice; it counts once."""
    keys: set[bytes] = set()
    complete = True
    for primary in primaries:
        scans = 0
        async for found, is_last in runner.scan_on(primary, pattern):
            keys.update(found)
            scans += 1
            if is_last or scans >= max(1, SCANS_PER_COUNT // len(primaries)):
                complete = complete and is_last
                break
    return len(keys), complete
