"""One holder at a time, renewed while it works, told when it is lost."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Any

import pytest

from data_layer.cache import Cache
from data_layer.errors import InvalidCacheKeyError, InvalidTimeToLiveError, LockLostError, LockNotAcquiredError
from data_layer.testing.redis_server import RedisServer
from tests.cache.conftest import CacheAt

LONG = 20


async def steal(cache: Cache) -> None:
    await cache.client.delete(cache._namespace.lock("key"))


async def test_never_two_holders_and_tokens_grow(cache: Cache, other: Cache) -> None:
    holders = 0
    tokens: list[int] = []

    async def work(worker: Cache) -> None:
        nonlocal holders
        async with worker.lock("key", wait=LONG) as lock:
            holders += 1
            assert holders == 1
            tokens.append(lock.token)
            await asyncio.sleep(0.001)
            holders -= 1

    await asyncio.gather(*(work(worker) for worker in [cache, other] * 15))
    assert tokens == sorted(set(tokens))
    assert len(tokens) == 30


async def test_who_does_not_want_to_wait_is_told(cache: Cache, other: Cache) -> None:
    async with cache.lock("key"):
        for seconds in (0, 0.05):
            with pytest.raises(LockNotAcquiredError, match="'key'"):
                async with other.lock("key", wait=seconds):
                    pytest.fail("two holders")
        async with other.lock("another", wait=0):
            pass
    async with other.lock("key", wait=0):
        pass


async def test_it_is_renewed_while_it_is_held(cache: Cache, other: Cache) -> None:
    redis_key = cache._namespace.lock("key")
    async with cache.lock("key", lease=3):
        for _ in range(2):
            left = await cache.client.pttl(redis_key)
            async with asyncio.timeout(LONG):
                while (now := await cache.client.pttl(redis_key)) <= left:
                    left = now
                    await asyncio.sleep(0.01)
        with pytest.raises(LockNotAcquiredError):
            async with other.lock("key", wait=0):
                pytest.fail("two holders")


async def test_the_lock_of_the_dead_ends_with_its_lease(cache: Cache, other: Cache) -> None:
    lock = cache.lock("key", lease=0.3)
    await lock.__aenter__()
    assert lock._renewal is not None
    lock._renewal.cancel()
    async with other.lock("key", wait=LONG) as taken:
        assert taken.token > lock.token
        with pytest.raises(LockLostError):
            await lock.__aexit__(None, None, None)
        with pytest.raises(LockNotAcquiredError):  # The late leaver did not unlock what is another's now.
            async with cache.lock("key", wait=0):
                pytest.fail("two holders")


async def test_a_holder_whose_lock_is_lost_is_interrupted(cache: Cache) -> None:
    started = monotonic()
    with pytest.raises(LockLostError, match="'key'"):
        async with cache.lock("key", lease=0.4):
            await steal(cache)
            await asyncio.sleep(LONG)
    assert monotonic() - started < LONG / 2
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0)  # No cancellation is left over.


async def test_an_error_of_the_work_is_not_hidden(cache: Cache) -> None:
    with pytest.raises(LookupError):
        async with cache.lock("key"):
            await steal(cache)
            raise LookupError
    with pytest.raises(LockLostError):
        async with cache.lock("key"):
            await steal(cache)


async def test_a_cancellation_from_outside_stays_one_and_unlocks(cache: Cache, other: Cache) -> None:
    inside = asyncio.Event()

    async def hold() -> None:
        async with cache.lock("key"):
            inside.set()
            await asyncio.sleep(LONG)

    task = asyncio.create_task(hold())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with other.lock("key", wait=LONG):
        pass


async def test_who_is_cancelled_while_waiting_leaves_nothing(cache: Cache, other: Cache) -> None:
    async with cache.lock("key"):
        waiting = asyncio.create_task(other.lock("key", wait=LONG).__aenter__())
        await asyncio.sleep(0.05)
        waiting.cancel()
        await asyncio.wait([waiting])
    async with cache.lock("key", wait=0):
        pass


async def test_a_server_that_is_silent_for_a_whole_lease_ends_the_work(cache_at: CacheAt) -> None:
    with RedisServer(unix_socket=True) as server:
        async with cache_at(server.url, command=1000) as cache:
            with pytest.raises(LockLostError):
                async with cache.lock("key", lease=2):
                    server.pause()
                    await asyncio.sleep(LONG)
            server.resume()


async def test_the_token_grows_even_when_the_server_has_lost_everything(cache: Cache) -> None:
    async with cache.lock("key") as lock:
        first = lock.token
    await cache.client.flushall()
    async with cache.lock("key") as lock:
        assert lock.token > first


async def test_the_token_grows_even_when_the_clock_of_the_server_goes_back(cache: Cache, other: Cache) -> None:
    """The last token is an hour ahead of the clock, as after a correction; each holder still gets a larger one."""
    async with cache.lock("key") as lock:
        ahead = lock.token + 3600 * 10**6
    stored: Any = await cache.client.get(cache._namespace.lock("key"))
    await cache.client.set(cache._namespace.lock("key"), stored[:2] + b"%016d" % ahead, px=60_000)
    tokens = []
    for holder in (cache, other, cache):
        async with holder.lock("key") as lock:
            tokens.append(lock.token)
    assert tokens == [ahead + 1, ahead + 2, ahead + 3]


async def test_a_lock_is_no_value(cache: Cache) -> None:
    await cache.set("key", "value", 60)
    async with cache.lock("key"):
        assert await cache.get("key") == "value"
        assert await cache.get("lock:key") is None
        assert [key async for key in cache.keys("*")] == ["key"]
        await cache.flush()
        with pytest.raises(LockNotAcquiredError):
            async with cache.lock("key", wait=0):
                pytest.fail("two holders")


async def test_senseless_locks_are_refused(cache: Cache) -> None:
    with pytest.raises(InvalidTimeToLiveError):
        cache.lock("key", lease=0)
    with pytest.raises(InvalidCacheKeyError):
        cache.lock("")


async def test_a_lock_that_was_left_is_not_renewed_and_interrupts_nothing(cache: Cache) -> None:
    async with cache.lock("key", lease=0.2):
        pass
    await asyncio.sleep(0.3)  # A renewal that went on would find the lock gone, and cancel this task.
    assert not any("Lock._renew " in repr(task.get_coro()) for task in asyncio.all_tasks())
