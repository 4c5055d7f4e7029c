"""What this process has stored lately: the right value for the same bytes, and within its room."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from data_layer.cache import Cache
from data_layer.cache.near import DecodedValue
from data_layer.cache.recently_stored import RecentlyStored
from data_layer.testing.redis_server import RedisServer
from tests.cache.conftest import CacheAt

CAPACITY = 20_000
WRITES = st.tuples(st.integers(0, 20), st.integers(0, 5000))


class Page(BaseModel, frozen=True):
    title: str


@given(st.lists(WRITES, max_size=60))
def test_it_stays_within_its_room_and_gives_only_what_was_stored_last(writes: list[tuple[int, int]]) -> None:
    recent = RecentlyStored(CAPACITY)
    last: dict[bytes, bytes] = {}
    for number, (name, size) in enumerate(writes):
        key, stored = b"%d" % name, b"%d" % number
        recent.add(key, DecodedValue(stored, Page, number, size))
        last[key] = stored
    found = 0
    for number, (name, size) in enumerate(writes):
        key, stored = b"%d" % name, b"%d" % number
        decoded = recent.find(key, stored, Page)
        if decoded is not None:
            assert (last[key], decoded.value) == (stored, number)
            assert recent.find(key, stored, dict) is None
            found += 4 * size
    assert found <= CAPACITY


def test_without_room_it_remembers_nothing() -> None:
    recent = RecentlyStored(0)
    recent.add(b"key", DecodedValue(b"stored", Page, Page(title="a"), 6))
    assert recent.find(b"key", b"stored", Page) is None


class Source:
    def __init__(self) -> None:
        self.page = Page(title="Home")
        self.loads = 0

    async def load(self) -> Page:
        self.loads += 1
        return self.page

    async def read(self, cache: Cache) -> Page:
        return await cache.get_or_load("page", self.load, 60, as_type=Page)


async def stored(cache: Cache) -> None:
    """Wait until what was loaded is in Redis: callers get it earlier."""
    async with asyncio.timeout(20):
        while await cache.ttl("page") is None:
            await asyncio.sleep(0.01)


async def test_what_was_loaded_and_is_read_back_is_the_same_object(cache: Cache, other: Cache) -> None:
    source = Source()
    loaded = await source.read(cache)
    await stored(cache)
    for _ in range(3):
        assert await source.read(cache) is loaded
    elsewhere = await source.read(other)
    assert elsewhere == loaded
    assert elsewhere is not loaded
    assert source.loads == 1


async def test_what_another_process_has_stored_since_counts(cache: Cache, other: Cache) -> None:
    source = Source()
    loaded = await source.read(cache)
    await stored(cache)
    source.page = Page(title="Shop")
    await cache.invalidate("page")
    assert await source.read(other) == source.page
    await stored(other)
    assert await source.read(cache) == source.page
    await cache.invalidate("page")
    source.page = Page(title="Home")
    assert await source.read(other) == source.page
    await stored(other)
    assert await source.read(cache) == loaded


async def test_without_a_near_copy_nothing_is_shared(shared_server: RedisServer, cache_at: CacheAt) -> None:
    source = Source()
    async with cache_at(shared_server.url, redis_near_size=0) as cache:
        await cache.client.flushall()
        loaded = await source.read(cache)
        await stored(cache)
        again = await source.read(cache)
        assert again == loaded
        assert again is not loaded


async def test_what_callers_may_change_is_not_remembered(cache: Cache) -> None:
    async def load() -> list[Any]:
        return [1]

    loaded = await cache.get_or_load("page", load, 60, as_type=list[int])
    await stored(cache)
    loaded.append(2)
    for _ in range(3):
        again = await cache.get_or_load("page", load, 60, as_type=list[int])
        assert again == [1]
        again.append(3)
