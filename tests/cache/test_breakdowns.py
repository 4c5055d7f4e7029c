"""Whatever is wrong with the server: calls end in time, the loader answers, nothing old is read, and it recovers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import pytest

from data_layer.cache import Cache
from data_layer.cache.wire.breaker import BreakerState
from data_layer.config import Settings
from data_layer.errors import CacheError, CacheLoginError
from data_layer.testing.redis_server import RedisServer

pytestmark = pytest.mark.slow

CONNECT, COMMAND = 1.0, 0.5
# The limits of a call, and time for a busy machine: without them, a call to a frozen server never ends.
CALL_LIMIT = CONNECT + 2 * COMMAND + 30
RECOVERY_LIMIT = 30
PATIENT = {"redis_command_timeout": 10_000}
"""For servers that answer, however busy the machine is."""


@dataclass(frozen=True)
class Breakdown:
    """Something goes wrong, and later it does not."""

    begin: Callable[[RedisServer], object]
    end: Callable[[RedisServer], object]
    opens_breaker: bool = False


def configure(**values: object) -> Callable[[RedisServer], object]:
    words = [word for name, value in values.items() for word in (name.replace("_", "-"), str(value))]
    return lambda server: server.execute("CONFIG", "SET", *words)


BREAKDOWNS = {
    "frozen": Breakdown(RedisServer.pause, RedisServer.resume, opens_breaker=True),
    "killed": Breakdown(RedisServer.kill, RedisServer.start, opens_breaker=True),
    "full": Breakdown(configure(maxmemory=1), configure(maxmemory=0)),
    "read-only": Breakdown(
        lambda server: server.execute("REPLICAOF", "127.0.0.1", 1),
        lambda server: server.execute("REPLICAOF", "NO", "ONE"),
    ),
    "without replicas": Breakdown(configure(min_replicas_to_write=1), configure(min_replicas_to_write=0)),
}


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer() as started:
        yield started


@asynccontextmanager
async def opened(server: RedisServer, **settings: Any) -> AsyncIterator[Cache]:
    limits: dict[str, Any] = {
        "redis_connect_timeout": round(CONNECT * 1000),
        "redis_command_timeout": round(COMMAND * 1000),
    }
    async with Cache(Settings(**limits | settings).redis, server.url) as cache:
        yield cache


@contextmanager
def in_time() -> Iterator[None]:
    started = time.monotonic()
    yield
    assert time.monotonic() - started < CALL_LIMIT


async def recovered(cache: Cache) -> None:
    """By itself: nothing but ordinary calls."""
    async with asyncio.timeout(RECOVERY_LIMIT):
        while True:
            with suppress(CacheError):
                await cache.check()
                return
            await asyncio.sleep(0.05)


def always(value: object) -> Callable[[], Awaitable[object]]:
    async def load() -> object:
        await asyncio.sleep(0)
        return value

    return load


@pytest.mark.parametrize("name", BREAKDOWNS)
async def test_it_is_survived(server: RedisServer, name: str) -> None:
    breakdown = BREAKDOWNS[name]
    async with opened(server) as cache, opened(server) as other:
        assert await cache.get_or_load("changed", always("old"), 600) == "old"
        assert await cache.get_or_load("same", always("same"), 600) == "same"
        await asyncio.to_thread(breakdown.begin, server)
        with in_time(), pytest.raises(CacheError):
            await cache.check()
        with in_time():
            await cache.invalidate("changed")
        for _ in range(8):
            with in_time():
                assert await cache.get_or_load("changed", always("new"), 600) == "new"
            with in_time():
                assert await cache.get_or_load("same", always("same"), 600) == "same"
        calls: list[Awaitable[object]] = [
            cache.set("key", 1, 60),
            cache.increment("count", ttl=60),
            cache.add("a", 1, 60),
        ]
        for call in calls:
            with in_time(), pytest.raises(CacheError):
                await call
        with in_time():  # All together: what does not work is not waited for again and again.
            for _ in range(50):
                assert await cache.get_or_load("changed", always("new"), 600) == "new"
                assert await cache.get_or_load("same", always("same"), 600) == "same"
        if breakdown.opens_breaker:
            assert cache.process_stats().breaker is not BreakerState.CLOSED
        await asyncio.to_thread(breakdown.end, server)
        await recovered(cache)
        assert cache.process_stats().breaker is BreakerState.CLOSED
        await recovered(other)
        assert await cache.get_or_load("changed", always("new"), 600) == "new"
        # Others learn of it as soon as Redis takes it from the writer.
        async with asyncio.timeout(RECOVERY_LIMIT):
            while await other.get_or_load("changed", always("new"), 600) != "new":
                await asyncio.sleep(0.05)
        async with asyncio.timeout(RECOVERY_LIMIT):
            while True:
                with suppress(CacheError):
                    await cache.set("key", 2, 60)
                    assert await other.get("key") == 2
                    break


async def test_readers_without_pause_give_way_to_others(server: RedisServer) -> None:
    """Where Redis is refused at once and a load has just ended, nothing would let the event loop turn."""

    async def read() -> None:
        for number in range(300):
            assert await cache.get_or_load("key", always(number), 60) is not None

    async with opened(server) as cache:
        await cache.check()
        await asyncio.to_thread(server.kill)
        while cache.process_stats().breaker is BreakerState.CLOSED:
            assert await cache.get_or_load("key", always(1), 60) == 1
        await asyncio.gather(read(), read(), read())


async def test_a_server_that_comes_back_empty_is_no_source_of_old_values(server: RedisServer) -> None:
    async with opened(server, **PATIENT) as cache:
        await cache.set("key", "gone", 600)
        assert await cache.get("key") == "gone"
        await asyncio.to_thread(server.restart)
        # The near copy may answer for a second after what it heard last.
        await asyncio.sleep(1)
        assert await cache.get("key") is None
        assert await cache.get_or_load("key", always("new"), 600) == "new"


async def test_connections_that_the_server_kills(server: RedisServer) -> None:
    async with opened(server, **PATIENT) as cache:
        for number in range(20):
            await cache.set(f"key-{number}", number, 60)
            await asyncio.to_thread(server.execute, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            assert await cache.get(f"key-{number}") == number
        assert cache.process_stats().failures == 0


async def test_a_server_that_is_loading() -> None:
    slow_loading = ["key-load-delay 2000", "loading-process-events-interval-bytes 1024"]
    with RedisServer(options=slow_loading) as server:
        async with opened(server) as cache:
            await cache.set_many({f"key-{number}": "x" * 100 for number in range(1500)}, 600)
            assert await cache.get_or_load("changed", always("old"), 600) == "old"
            # Here the server refuses connections or says LOADING; the start ends when it has loaded.
            restart = asyncio.create_task(asyncio.to_thread(server.restart, keep_data=True))
            loading = 0
            await cache.invalidate("changed")
            while not restart.done():
                with in_time():
                    assert await cache.get_or_load("changed", always("new"), 600) == "new"
                try:
                    with in_time():
                        await cache.check()
                except CacheError as error:
                    loading += "LOADING" in str(error)
                await asyncio.sleep(0.01)
            await restart
            await recovered(cache)
            assert loading
            assert await cache.get("key-1499") == "x" * 100
            assert await cache.get_or_load("changed", always("new"), 600) == "new"


async def test_a_password_that_was_changed_and_changed_back() -> None:
    with RedisServer(username="app", password="first") as server:
        async with opened(server) as cache:
            await cache.set("key", 1, 600)
            # A connection that is logged in stays so until it is replaced.
            server.execute("ACL", "SETUSER", "app", "resetpass", ">second")
            await asyncio.to_thread(kill_clients, server, "second")
            with in_time(), pytest.raises(CacheLoginError) as failure:
                async with asyncio.timeout(RECOVERY_LIMIT):
                    while True:
                        await cache.get("other")
            assert "first" not in str(failure.value)
            with in_time():
                assert await cache.get_or_load("key", always("loaded"), 600) == "loaded"
            await asyncio.to_thread(change_password, server, "second", "first")
            await recovered(cache)
            assert await cache.get("key") in {1, "loaded"}


def kill_clients(server: RedisServer, password: str) -> None:
    _execute(server, password, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


def change_password(server: RedisServer, password: str, new: str) -> None:
    _execute(server, password, "ACL", "SETUSER", "app", "resetpass", f">{new}")


def _execute(server: RedisServer, password: str, *command: str) -> None:
    server._password, before = password, server._password
    try:
        server.execute(*command)
    finally:
        server._password = before
