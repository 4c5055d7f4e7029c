"""One name, two servers that swap roles behind it: nothing old is read, nothing is lost without an error.

The host in the settings may be a primary endpoint, HAProxy or a Kubernetes service. After a failover it leads to
another server, and connections that exist stay where they are.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from time import monotonic
from typing import Any

import pytest
from redis.exceptions import ReadOnlyError

from data_layer.cache import Cache
from data_layer.cache.wire.node import LARGE
from data_layer.config import Settings
from data_layer.errors import CacheError, CacheReadOnlyError, CacheUnavailableError
from data_layer.testing.redis_server import RedisServer
from tests.support import until

from .wire import LIMIT, Endpoint, running

NOWHERE = ("127.0.0.1", 1)
BOUND = 1.0


@pytest.fixture
def old() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def new() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@asynccontextmanager
async def cache_behind(endpoint: Endpoint, **settings: Any) -> AsyncIterator[Cache]:
    limits: dict[str, Any] = {"redis_connect_timeout": 2000, "redis_command_timeout": 2000}
    async with Cache(Settings(**limits, **settings).redis, endpoint.url) as cache:
        yield cache


async def until_near(cache: Cache, key: str) -> None:
    near = cache._parts.near
    async with asyncio.timeout(LIMIT):
        hits = near.hits
        while near.hits == hits:
            await cache.get(key)
            await asyncio.sleep(0.001)


async def demote(server: RedisServer, primary: tuple[str, int] = NOWHERE) -> None:
    """It follows another, or a server that is gone: then it goes on to answer reads with what it has."""
    await asyncio.to_thread(server.execute, "REPLICAOF", *primary)


async def fail_over(endpoint: Endpoint, new: RedisServer) -> None:
    """The name leads to the new server, and the old one has no primary that it could hear from."""
    old, endpoint.server = endpoint.server, new
    await demote(old)


class TestAfterAFailover:
    @pytest.mark.parametrize("near_size", [0, 2**20], ids=["without-near-copy", "with-near-copy"])
    async def test_what_another_process_changes_at_the_new_server_is_seen_in_time(
        self, old: RedisServer, new: RedisServer, near_size: int
    ) -> None:
        async with (
            Endpoint(old) as endpoint,
            cache_behind(endpoint, redis_near_size=near_size) as reader,
            cache_behind(endpoint) as writer,
        ):
            await writer.set("key", "old", 600)
            assert await reader.get("key") == "old"
            if near_size:
                await until_near(reader, "key")
            await fail_over(endpoint, new)
            await writer.set("key", "new", 600)
            changed = monotonic()
            while await reader.get("key") != "new":  # A reader that only reads learns of it by itself.
                assert monotonic() < changed + BOUND
                await asyncio.sleep(0.005)
            assert new.execute("EXISTS", "stc:key")

    async def test_every_kind_of_write_goes_on_without_an_error(self, old: RedisServer, new: RedisServer) -> None:
        async with Endpoint(old) as endpoint, cache_behind(endpoint) as cache:
            writes: list[Any] = [
                lambda: cache.set("key", 1, 60),
                lambda: cache.add("added", 1, 60),
                lambda: cache.increment("count", ttl=60),
                lambda: cache.set_many({"a": 1, "b": 2}, 60),
                lambda: cache.set_session("session", {}, 60),
                lambda: cache.set("large", "x" * 100_000, 60),
                lambda: cache.delete("key"),
                lambda: cache.expire("key", 60),
                lambda: cache.pipeline().set("key", 1, 60).increment("count", ttl=60).execute(),
                cache.flush,
                cache.cleanup,
                cache.check,
                cache.stats,
            ]
            for write in writes:
                await cache.increment("count", ttl=60)
                other = new if endpoint.server is old else old
                await asyncio.to_thread(other.execute, "REPLICAOF", "NO", "ONE")
                await fail_over(endpoint, other)
                answer = await write()
                assert not isinstance(answer, Exception)
                if isinstance(answer, list):
                    assert [each for each in answer if isinstance(each, Exception)] == []

    async def test_commands_under_way_are_carried_out_once(self, old: RedisServer, new: RedisServer) -> None:
        """Of hundreds, some are refused and some come behind the refusal; none is lost or counted twice."""
        async with Endpoint(old) as endpoint, running(endpoint.url) as runner:
            await runner.run("PING")
            await fail_over(endpoint, new)
            counts = [runner.run("INCR", b"count", repeatable=False) for _ in range(500)]
            counts += [runner.run_all([("INCR", b"count")], atomic=True, repeatable=False) for _ in range(20)]
            await asyncio.gather(*counts)
            assert new.execute("GET", "count") == "520"
            (primary,) = await runner.primaries()
            assert primary.breaker.is_closed

    async def test_commands_under_way_when_only_the_address_shows_it_are_answered(
        self, old: RedisServer, new: RedisServer
    ) -> None:
        """Both take themselves for the primary, and no moment is without commands that may not be repeated."""
        async with Endpoint(old) as endpoint, running(endpoint.url) as runner:
            await runner.run("PING")
            endpoint.server = new
            counted = 0

            async def count(key: bytes, piece: bytes) -> None:
                nonlocal counted
                while not await asyncio.to_thread(new.execute, "EXISTS", "small", "large"):
                    for _ in range(50):
                        await runner.run("APPEND", key, piece, repeatable=False)
                        counted += len(piece)

            async with asyncio.timeout(LIMIT), asyncio.TaskGroup() as group:
                for _ in range(8):
                    group.create_task(count(b"small", b"x"))
                group.create_task(count(b"large", b"x" * LARGE))
            lengths = [int(server.execute("STRLEN", key)) for server in (old, new) for key in ("small", "large")]
            assert sum(lengths) == counted

    async def test_a_large_command_that_finds_another_server_goes_to_it(
        self, old: RedisServer, new: RedisServer
    ) -> None:
        async with Endpoint(old) as endpoint, running(endpoint.url) as runner:
            await runner.run("PING")
            endpoint.server = new
            await runner.run("SET", b"large", b"x" * 2 * LARGE, repeatable=False)
            assert await asyncio.to_thread(new.execute, "STRLEN", "large") == 2 * LARGE

    async def test_an_invalidation_reaches_the_new_server(self, old: RedisServer, new: RedisServer) -> None:
        """Also where the old one has nothing at the key and so nothing to refuse."""
        async with Endpoint(old) as endpoint, cache_behind(endpoint, redis_near_size=0) as cache:
            await cache.check()
            async with Endpoint(new) as there, cache_behind(there) as other:
                await other.set("key", "old", 600)
            await fail_over(endpoint, new)
            await cache.invalidate("key")
            assert not await asyncio.to_thread(new.execute, "EXISTS", "stc:key")

    async def test_what_is_loaded_afterwards_is_loaded_anew(self, old: RedisServer, new: RedisServer) -> None:
        """The new server may lack what others invalidated at the old one just before."""
        value = "old"

        async def load() -> str:
            return value

        async with Endpoint(old) as endpoint, cache_behind(endpoint) as cache:
            async with Endpoint(new) as there, cache_behind(there) as other:
                await other.get_or_load("key", load, 600)
            assert await cache.get_or_load("key", load, 600) == "old"
            value = "new"
            await fail_over(endpoint, new)
            await cache.set("other", 1, 60)
            assert await cache.get_or_load("key", load, 600) == "new"

    async def test_a_large_value_goes_to_the_new_server_too(self, old: RedisServer, new: RedisServer) -> None:
        async with Endpoint(old) as endpoint, cache_behind(endpoint, redis_near_size=0) as cache:
            await cache.set("large", b"o" * 200_000, 600)
            assert len(await cache.get("large", bytes) or b"") == 200_000
            await fail_over(endpoint, new)
            await cache.set("small", 1, 600)
            assert await cache.get("large") is None

    async def test_a_lock_is_lost_or_taken_at_the_new_server(self, old: RedisServer, new: RedisServer) -> None:
        async with Endpoint(old) as endpoint, cache_behind(endpoint) as cache:
            async with cache.lock("job") as before:
                first = before.token
            await fail_over(endpoint, new)
            async with cache.lock("job") as after:
                assert after.token > first
                assert await asyncio.to_thread(new.execute, "DBSIZE") == 1

    async def test_a_scan_that_was_under_way_finds_every_key_of_the_new_server(
        self, old: RedisServer, new: RedisServer
    ) -> None:
        for server in (old, new):
            script = "for i = 1, 5000 do redis.call('SET', 'stc:' .. i, 1) end"
            await asyncio.to_thread(server.execute, "EVAL", script, 0)
        async with Endpoint(old) as endpoint, cache_behind(endpoint) as cache:
            found: set[str] = set()
            moved = False
            async for key in cache.keys("*"):
                if not moved:
                    moved = True
                    await fail_over(endpoint, new)
                    await cache.delete("absent")
                    found.clear()
                found.add(key)
            assert len(found) == 5000

    async def test_the_client_of_redis_py_follows(self, old: RedisServer, new: RedisServer) -> None:
        async with Endpoint(old) as endpoint, cache_behind(endpoint) as cache:
            await cache.client.set("stc:key", "1")
            await fail_over(endpoint, new)
            await cache.set("other", 1, 60)
            await cache.client.set("stc:key", "2")
            assert await asyncio.to_thread(new.execute, "GET", "stc:key") == "2"

    async def test_a_connection_of_redis_py_that_met_a_replica_is_not_used_again(
        self, old: RedisServer, new: RedisServer
    ) -> None:
        """Nothing else is asked of the cache, so only the refusal shows what has happened."""
        async with Endpoint(old) as endpoint, cache_behind(endpoint, redis_near_size=0) as cache:
            await cache.client.set("stc:key", "1")
            await fail_over(endpoint, new)
            with pytest.raises(ReadOnlyError):
                await cache.client.set("stc:key", "2")
            await cache.client.set("stc:key", "3")
            assert await asyncio.to_thread(new.execute, "GET", "stc:key") == "3"


class TestTrust:
    async def test_never_with_tracking_and_data_from_different_servers(
        self, old: RedisServer, new: RedisServer
    ) -> None:
        """Both take themselves for the primary, and only the tracking connection is cut: it reaches the new one."""
        async with Endpoint(old) as endpoint, cache_behind(endpoint) as cache:
            await cache.set("key", "old", 600)
            await until_near(cache, "key")
            endpoint.server = new
            await asyncio.to_thread(kill_tracking, old)
            await until(lambda: not cache._parts.near.is_answering)
            await until(lambda: cache._parts.near.is_answering)
            assert await cache.get("key") is None

    async def test_two_servers_that_both_take_writes_are_told_apart_in_time(
        self, old: RedisServer, new: RedisServer
    ) -> None:
        """Nothing is cut and nobody is demoted: only a new connection shows where the name leads to."""
        async with Endpoint(old) as endpoint, cache_behind(endpoint) as reader:
            await reader.set("key", "old", 600)
            await until_near(reader, "key")
            endpoint.server = new
            async with asyncio.timeout(LIMIT):
                while await reader.get("key") is not None:
                    await asyncio.sleep(0.01)

    async def test_a_replica_is_never_read(self, old: RedisServer) -> None:
        await asyncio.to_thread(old.execute, "SET", "stc:key", "1")
        await demote(old)
        async with Endpoint(old) as endpoint, cache_behind(endpoint) as cache:
            for call in (cache.get("key"), cache.get_many(["key"]), cache.set("key", 1, 60), cache.check()):
                with pytest.raises(CacheReadOnlyError, match=r"is a replica.*name the primary"):
                    await call
            await asyncio.to_thread(old.execute, "REPLICAOF", "NO", "ONE")
            async with asyncio.timeout(LIMIT):
                while True:
                    with suppress(CacheUnavailableError):
                        assert await cache.get("key") == 1
                        break
                    await asyncio.sleep(0.05)


@pytest.mark.parametrize("every", [1, 2, 3])
async def test_cut_at_any_moment_nothing_old_is_read(old: RedisServer, new: RedisServer, every: int) -> None:
    """The servers swap again and again, with connections reset before, between and after the steps."""
    async with (
        Endpoint(old) as endpoint,
        cache_behind(endpoint) as reader,
        cache_behind(endpoint) as writer,
    ):
        for number in range(8):
            other = new if endpoint.server is old else old
            current = endpoint.server
            steps: list[Any] = [
                lambda other=other: asyncio.to_thread(other.execute, "REPLICAOF", "NO", "ONE"),
                lambda other=other: asyncio.to_thread(other.execute, "FLUSHALL"),
                lambda current=current, other=other: demote(current, ("127.0.0.1", other.port)),
            ]
            for place, step in enumerate(steps):
                if number % len(steps) == place:
                    endpoint.cut(every=every)
                await step()
                if place == 1:
                    endpoint.server = other
            changed = await set_in_time(writer, "key", number)
            async with asyncio.timeout(LIMIT):
                while True:
                    began = monotonic()
                    with suppress(CacheError):
                        found = await reader.get("key")
                        if found == number:
                            break
                        assert began < changed + BOUND, (found, number)
                    await asyncio.sleep(0.002)


def kill_tracking(server: RedisServer) -> None:
    for line in str(server.execute("CLIENT", "LIST")).splitlines():
        fields = dict(field.partition("=")[::2] for field in line.split())
        if "t" in fields["flags"] or "B" in fields["flags"]:
            server.execute("CLIENT", "KILL", "ID", fields["id"])


async def set_in_time(cache: Cache, key: str, value: object) -> float:
    async with asyncio.timeout(LIMIT):
        while True:
            with suppress(CacheError):
                await cache.set(key, value, 600)
                return monotonic()
            await asyncio.sleep(0.01)
