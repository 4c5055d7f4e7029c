from __future__ import annotations

import asyncio
import math
import random
from datetime import timedelta
from typing import Any

import pytest

from data_layer.cache import Cache
from data_layer.cache.wire.breaker import BreakerState
from data_layer.errors import (
    InvalidCacheValueError,
    InvalidTimeToLiveError,
    NotInitializedError,
)

from .helpers import Backend, all_keys, gone

SENSELESS_TIMES: list[Any] = [
    *(0, -1, 0.0001, math.nan, math.inf, 10**9, 10**400),
    *(timedelta(0), timedelta(days=4000), "60", None, True),
]
UNCOUNTABLE = ["1", 1.5, {"a": 1}, 2**63 - 1, True, b"1"]
AMOUNTS: list[Any] = [2**63, -(2**63) - 1, 1.5, "1"]


class TestTimeToLive:
    async def test_a_value_ends(self, cache: Cache) -> None:
        await cache.set("short", 1, 1.5)
        await cache.set("delta", 1, timedelta(milliseconds=1500))
        await cache.add("added", 1, 1.5)
        await cache.set_many({"many": 1}, 1.5)
        await cache.increment("count", ttl=1.5)
        keys = ["short", "delta", "added", "many", "count"]
        assert [await cache.ttl(key) is not None for key in keys]
        for key in keys:
            await gone(cache, key)
        assert await cache.get_many(keys) == {}
        assert await cache.add("added", 2, 60)

    async def test_set_and_expire_begin_anew(self, cache: Cache) -> None:
        await cache.set("key", 1, 5)
        await cache.set("key", 2, 60)
        await cache.set("extended", 1, 5)
        assert await cache.expire("extended", timedelta(hours=1))
        for key, seconds in (("key", 60), ("extended", 3600)):
            remaining = await cache.ttl(key)
            assert remaining is not None
            assert seconds * 0.8 < remaining <= seconds
        assert await cache.get("key") == 2

    async def test_touch_never_shortens(self, cache: Cache) -> None:
        await cache.set("key", 1, 60)
        assert await cache.touch("key", 3600)
        assert await cache.touch("key", 1)
        remaining = await cache.ttl("key")
        assert remaining is not None
        assert 3500 < remaining <= 3600
        assert not await cache.touch("absent", 60)

    async def test_a_key_that_another_program_made_permanent_has_no_end(self, cache: Cache, backend: Backend) -> None:
        await cache.client.set(f"{backend.prefix}:key", "1")
        assert await cache.ttl("key") == math.inf

    async def test_a_senseless_time_is_refused_and_nothing_is_stored(self, cache: Cache) -> None:
        for ttl in SENSELESS_TIMES:
            attempts = [
                cache.set("key", 1, ttl),
                cache.add("key", 1, ttl),
                cache.set_many({"key": 1}, ttl),
                cache.increment("key", ttl=ttl),
                cache.expire("key", ttl),
                cache.set_session("key", 1, ttl),
                cache.extend_session("key", ttl),
            ]
            for attempt in attempts:
                with pytest.raises(InvalidTimeToLiveError):
                    await attempt
            assert await all_keys(cache) == []


class TestCounters:
    async def test_concurrent_increments_are_all_counted(self, cache: Cache) -> None:
        sums = await asyncio.gather(*(cache.increment("count", ttl=60) for _ in range(100)))
        assert sorted(sums) == list(range(1, 101))
        assert await cache.get("count") == 100
        assert await cache.increment("count", -30, ttl=60) == 70

    async def test_the_time_to_live_is_that_of_the_first_increment(self, cache: Cache) -> None:
        await cache.increment("count", ttl=60)
        await cache.increment("count", ttl=6000)
        remaining = await cache.ttl("count")
        assert remaining is not None
        assert remaining <= 60

    async def test_a_whole_number_that_was_set_can_be_counted(self, cache: Cache) -> None:
        await cache.set("count", 41, 60)
        assert await cache.increment("count", ttl=60) == 42

    async def test_what_cannot_be_counted_is_refused_and_kept(self, cache: Cache) -> None:
        for value in UNCOUNTABLE:
            await cache.set("count", value, 60)
            with pytest.raises(InvalidCacheValueError, match="'count'"):
                await cache.increment("count", ttl=60)
            assert await cache.get("count") == value

    async def test_an_amount_that_is_no_whole_number_of_64_bits_is_refused(self, cache: Cache) -> None:
        for amount in AMOUNTS:
            with pytest.raises(InvalidCacheValueError):
                await cache.increment("count", amount, ttl=60)
            assert not await cache.exists("count")


class TestLife:
    async def test_outside_open_and_close_it_says_so(self, backend: Backend) -> None:
        cache = backend.cache()
        with pytest.raises(NotInitializedError):
            await cache.get("key")
        for _ in range(2):
            await cache.open()
            await cache.open()
            await cache.set("key", 1, 60)
            await cache.check()
            await cache.close()
            await cache.close()
            with pytest.raises(NotInitializedError):
                await cache.check()
            with pytest.raises(NotInitializedError):
                _ = cache.client

    async def test_more_callers_than_connections(self, cache: Cache) -> None:
        async def write_and_read(number: int) -> None:
            await cache.set(f"key-{number}", number, 60)
            assert await cache.get(f"key-{number}") == number

        await asyncio.gather(*(write_and_read(number) for number in range(300)))
        assert (await cache.stats()).server_clients <= 40

    async def test_a_cancelled_call_never_gives_its_answer_to_another(self, cache: Cache) -> None:
        keys = {f"key-{number}": number for number in range(50)}
        await cache.set_many(keys, 60)
        chance = random.Random(7)

        async def impatient(key: str) -> None:
            try:
                async with asyncio.timeout(chance.random() * 0.01):
                    assert await cache.get(key) == keys[key]
            except TimeoutError:
                pass

        for _ in range(10):
            patient = asyncio.gather(*(cache.get(key) for key in keys))
            await asyncio.gather(*(impatient(key) for key in keys))
            assert await patient == list(keys.values())


class TestStatistics:
    async def test_reads_are_counted_where_they_ended(self, cache: Cache, backend: Backend) -> None:
        await cache.set_many({f"key-{number}": number for number in range(150)}, 60)
        await cache.get("key-1")
        await cache.get_many(["key-2", "key-3", "absent"])
        await cache.client.set(f"{backend.prefix}:strange", "?")
        await cache.get("strange")
        stats = await cache.stats()
        assert (stats.keys, stats.keys_complete) == (151, True)
        assert (stats.hits, stats.misses, stats.undecodable, stats.failures) == (3, 2, 1, 0)
        assert (stats.hit_rate, stats.breaker) == (0.6, BreakerState.CLOSED)
        assert stats.latency_p50_ms is not None
        assert stats.latency_p99_ms is not None
        assert 0 < stats.latency_p50_ms <= stats.latency_p99_ms

    async def test_each_server_tells_of_itself_and_all_are_summed(self, cache: Cache, backend: Backend) -> None:
        await cache.set("key", 1, 60)
        await cache.get("key")
        stats = await cache.stats()
        assert stats.server.startswith(("valkey 9.", "redis 7."))
        assert len(stats.servers) == len(backend.target.servers())
        for server in stats.servers:
            assert (server.error, server.breaker) == (None, BreakerState.CLOSED)
            assert server.memory_used > 100_000
            assert server.clients >= 1
        assert stats.server_memory_used == sum(server.memory_used for server in stats.servers)
        assert stats.server_memory_limit is None
        assert stats.server_hits >= 1
        assert stats.server_hit_rate is not None
        assert 0 <= stats.server_hit_rate <= 1

    async def test_what_compression_saves(self, cache: Cache) -> None:
        await cache.set("small", "x", 60)
        await cache.set("page", "<div></div>" * 1000, 60)
        stats = cache.process_stats()
        assert stats.compressed_values == 1
        assert 10_000 < stats.compression_saved < 11_002

    async def test_not_every_key_of_a_large_server_is_looked_at(
        self, cache: Cache, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("data_layer.cache.measuring.SCANS_PER_COUNT", 1)
        await cache.set_many({f"key-{number}": number for number in range(5000)}, 60)
        stats = await cache.stats()
        assert not stats.keys_complete
        assert 0 < stats.keys < 5000
