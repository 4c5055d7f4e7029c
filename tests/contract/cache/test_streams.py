from __future__ import annotations

import asyncio
import random

import pytest

from data_layer.cache import Cache
from data_layer.cache.streams import MAXIMUM_BYTES, MAXIMUM_ENTRIES
from data_layer.errors import CacheError, InvalidCacheKeyError, InvalidCacheValueError, InvalidTimeToLiveError

from .helpers import VALUES, Backend, all_keys, gone


async def test_entries_come_back_in_order_and_from_any_place(cache: Cache) -> None:
    stream = cache.stream("log:{1}", ttl=60)
    assert await stream.read() == []
    ids = [await stream.append(value) for value in VALUES]
    found = await stream.read()
    assert [entry.value for entry in found] == VALUES
    assert [entry.id for entry in found] == ids
    for place, entry_id in enumerate(ids):
        assert [entry.value for entry in await stream.read(entry_id)] == VALUES[place + 1 :]


async def test_long_streams_are_read_in_pieces(cache: Cache) -> None:
    stream = cache.stream("long", ttl=60)
    await asyncio.gather(*(stream.append(number) for number in range(200)))
    found: list[object] = []
    last = None
    while entries := await stream.read(last):
        assert len(entries) <= 64
        found += [entry.value for entry in entries]
        last = entries[-1].id
    assert found == list(range(200))


async def test_a_stream_ends_by_itself_and_each_entry_prolongs_it(cache: Cache) -> None:
    stream = cache.stream("short", ttl=0.4)
    await stream.append(1)
    await gone(cache, "short")
    assert await stream.read() == []
    await stream.append(2)
    await cache.stream("short", ttl=60).append(3)
    remaining = await cache.ttl("short")
    assert remaining is not None
    assert 50 < remaining <= 60


async def test_the_number_of_entries_is_bounded(cache: Cache) -> None:
    stream = cache.stream("many", ttl=60)
    for start in range(0, MAXIMUM_ENTRIES + 100, 100):
        await asyncio.gather(*(stream.append(number) for number in range(start, start + 100)))
    assert await cache._commands.run("XLEN", cache._namespace.key("many")) == MAXIMUM_ENTRIES
    other = cache.stream("many", ttl=60)
    await other.append("other")
    assert await cache._commands.run("XLEN", cache._namespace.key("many")) == MAXIMUM_ENTRIES


async def test_the_size_of_a_stream_is_bounded(cache: Cache) -> None:
    stream = cache.stream("large", ttl=60)
    piece = random.Random(3).randbytes(MAXIMUM_BYTES // 4)
    for _ in range(9):
        await stream.append(piece)
    assert 1 <= await cache._commands.run("XLEN", cache._namespace.key("large")) <= 4
    larger = random.Random(4).randbytes(MAXIMUM_BYTES * 2 - 1000)
    await stream.append(larger)
    assert [entry.value == larger for entry in await stream.read()] == [True]


async def test_a_reader_hears_of_changes_in_other_processes(backend: Backend) -> None:
    async with backend.cache() as reading, backend.cache() as writing:
        stream = reading.stream("heard", ttl=60)
        found: list[object] = []
        last = None
        for number in range(20):
            with stream.watch() as changes:
                appending = asyncio.create_task(writing.stream("heard", ttl=60).append(number))
                async with asyncio.timeout(20):
                    while len(found) <= number:
                        for entry in await stream.read(last):
                            found.append(entry.value)
                            last = entry.id
                        if len(found) <= number:
                            await changes.wait(20)
                await appending
        assert found == list(range(20))


async def test_waiting_ends_without_changes(cache: Cache) -> None:
    with cache.stream("silent", ttl=60).watch() as changes:
        async with asyncio.timeout(20):
            await changes.wait(0.05)
    assert not cache._parts.tracking._watched


async def test_what_is_not_a_stream(cache: Cache) -> None:
    await cache.set("value", 1, 60)
    stream = cache.stream("value", ttl=60)
    with pytest.raises(CacheError):
        await stream.append(1)
    with pytest.raises(CacheError):
        await stream.read()
    assert await cache.get("value") == 1
    with pytest.raises(InvalidCacheValueError):
        await cache.stream("x", ttl=60).append(object())
    with pytest.raises(InvalidCacheKeyError):
        cache.stream("", ttl=60)
    with pytest.raises(InvalidTimeToLiveError):
        cache.stream("x", ttl=0)


async def test_flush_removes_streams(cache: Cache) -> None:
    await cache.stream("a", ttl=60).append(1)
    assert await all_keys(cache) == ["a"]
    await cache.flush()
    assert await cache.stream("a", ttl=60).read() == []


async def test_cleanup_leaves_streams_that_end(cache: Cache) -> None:
    await cache.stream("log", ttl=60).append(1)
    await cache._commands.run("XADD", cache._namespace.key("endless"), "*", "v", b"1")
    await cache._commands.run("SADD", cache._namespace.key("set"), "x")
    assert await cache.cleanup() == 2
    assert await all_keys(cache) == ["log"]
    assert [entry.value for entry in await cache.stream("log", ttl=60).read()] == [1]
