"""Primaries die under load: calls end in time, nothing mixes up, and no acknowledged invalidation is lost."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from data_layer.cache import Cache
from data_layer.cache.wire.breaker import BreakerState
from data_layer.config import Settings
from data_layer.errors import CacheError
from data_layer.testing.redis_cluster import RedisCluster
from data_layer.testing.redis_sentinels import RedisSentinels

from .support import debian_redis

pytestmark = pytest.mark.slow

CONNECT, COMMAND = 1.0, 0.5
CALL_LIMIT = CONNECT + 2 * COMMAND + 4
RECOVERY_LIMIT = 40
STALE_LIMIT = 1.0
# While a primary and its successor both take themselves for the primary, a change reaches one of them only. What was
# sent to the wrong one is sent again as soon as the process that sent it hears of the successor.
STALE_LIMIT_IN_FAILOVER = 10.0
KEYS = [f"key-{number}" for number in range(40)]
BINARIES = [None, pytest.param("redis", marks=pytest.mark.needs_debian)]


class Load:
    """Rows in a database, one process that changes them and one that reads them, and values that are only cached."""

    def __init__(self, writer: Cache, reader: Cache) -> None:
        self.writer = writer
        self.reader = reader
        self.outcomes: Counter[str] = Counter()
        self.longest = self.stalest = 0.0
        self._database = dict.fromkeys(KEYS, 0)
        # When each version was acknowledged.
        self._acknowledged: dict[str, list[tuple[float, int]]] = {key: [(0.0, 0)] for key in KEYS}
        self._random = random.Random(7)

    async def change_rows(self) -> None:
        while True:
            key = self._random.choice(KEYS)
            self._database[key] += 1
            version = self._database[key]
            async with self._in_time("invalidate"):
                await self.writer.invalidate(key)
            self._acknowledged[key].append((time.monotonic(), version))
            await asyncio.sleep(0.002)

    async def read_rows(self) -> None:
        while True:
            await self.read_row(self._random.choice(KEYS))
            await asyncio.sleep(0)

    async def read_row(self, key: str) -> None:
        begun = time.monotonic()
        async with self._in_time("get_or_load"):
            version = await self.reader.get_or_load(key, lambda: self._load(key), 600)
        newer = [moment for moment, number in self._acknowledged[key] if number > version and moment < begun]
        self.stalest = max(self.stalest, begun - min(newer, default=begun))

    async def write_and_read_values(self) -> None:
        """Written values may be lost with their server, but never be others."""
        number = 0
        while True:
            number += 1
            key = f"value-{self._random.randrange(100)}"
            try:
                async with self._in_time("set"):
                    await self.writer.set(key, [key, number], 600)
                async with self._in_time("get"):
                    found = await self.reader.get(key)
                assert found is None or found[0] == key
            except CacheError as error:
                self.outcomes[error.code] += 1
            await asyncio.sleep(0.002)

    async def check_the_end(self) -> None:
        """Everything that was acknowledged is seen by both."""
        await asyncio.sleep(STALE_LIMIT)
        for key in KEYS:
            for cache in (self.reader, self.writer):
                assert await cache.get_or_load(key, lambda key=key: self._load(key), 600) == self._database[key]  # type: ignore[misc]
        assert self.longest < CALL_LIMIT
        assert self.stalest < STALE_LIMIT_IN_FAILOVER

    async def _load(self, key: str) -> int:
        version = self._database[key]
        await asyncio.sleep(self._random.random() * 0.01)
        return version

    @asynccontextmanager
    async def _in_time(self, verb: str) -> AsyncIterator[None]:
        started = time.monotonic()
        try:
            yield
            self.outcomes[verb] += 1
        finally:
            self.longest = max(self.longest, time.monotonic() - started)


@asynccontextmanager
async def under_load(**settings: Any) -> AsyncIterator[Load]:
    limits: dict[str, Any] = {
        "redis_connect_timeout": round(CONNECT * 1000),
        "redis_command_timeout": round(COMMAND * 1000),
    }
    options = Settings(**limits, **settings)
    async with Cache(options.redis) as writer, Cache(options.redis) as reader:
        load = Load(writer, reader)
        async with asyncio.TaskGroup() as group:
            work = [load.change_rows(), load.read_rows(), load.read_rows(), load.write_and_read_values()]
            tasks = [group.create_task(each) for each in work]
            yield load
            for task in tasks:
                task.cancel()
        await load.check_the_end()


async def goes_on(load: Load) -> None:
    """Until both processes read and write again without an error, as they do when all is well."""
    async with asyncio.timeout(RECOVERY_LIMIT):
        for cache in (load.writer, load.reader):
            while True:
                try:
                    await cache.check()
                    break
                except CacheError:
                    await asyncio.sleep(0.05)
        before = load.outcomes.copy()
        verbs = ("set", "get", "get_or_load", "invalidate")
        while any(load.outcomes[verb] < before[verb] + 20 for verb in verbs):
            await asyncio.sleep(0.01)
    for cache in (load.writer, load.reader):
        assert cache.process_stats().breaker is BreakerState.CLOSED


@pytest.mark.parametrize("binary", BINARIES)
async def test_sentinels(binary: str | None) -> None:
    with RedisSentinels(debian_redis() if binary else None) as group:
        async with under_load(**group.settings) as load:
            await goes_on(load)
            await asyncio.to_thread(group.fail_over)
            await goes_on(load)
            await asyncio.to_thread(group.wait_for_replicas)
            dead = group.primary
            await asyncio.to_thread(dead.kill)
            await asyncio.to_thread(group.wait_for_new_primary, dead)
            await goes_on(load)
            # It comes back as a primary, until the sentinels find it.
            await asyncio.to_thread(dead.start)
            await asyncio.to_thread(group.wait_for_replicas)
            await goes_on(load)


@pytest.mark.parametrize("binary", BINARIES)
async def test_a_cluster(binary: str | None) -> None:
    with RedisCluster(debian_redis() if binary else None) as cluster:
        async with under_load(**cluster.settings) as load:
            await goes_on(load)
            await asyncio.to_thread(cluster.fail_over, cluster.primaries[0])
            await goes_on(load)
            await asyncio.to_thread(cluster.wait_until_well)
            dead = cluster.primaries[1]
            await asyncio.to_thread(dead.kill)
            await asyncio.to_thread(cluster.wait_for_new_primary, dead)
            await goes_on(load)
            await asyncio.to_thread(dead.start)
            await asyncio.to_thread(cluster.wait_until_well)
            await goes_on(load)
            frozen = cluster.primaries[2]
            frozen.pause()
            await asyncio.to_thread(cluster.wait_for_new_primary, frozen)
            frozen.resume()
            await goes_on(load)
