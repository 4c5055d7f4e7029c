"""Servers that restart, hang, vanish or refuse: each call ends in time, with an error that says what to do."""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import pytest

from data_layer.cache import Cache
from data_layer.cache.wire.breaker import BreakerState
from data_layer.errors import CacheError, CacheLoginError, CacheTimeoutError, CacheUnavailableError, NotInitializedError
from data_layer.testing.redis_server import RedisServer

from .conftest import CacheAt, Listener

SHORT = {"connect": 1000, "command": 600}


@contextmanager
def within(seconds: float) -> Iterator[None]:
    start = time.monotonic()
    yield
    assert time.monotonic() - start < seconds


@asynccontextmanager
async def listening(handler: Callable[..., Awaitable[None]]) -> AsyncIterator[str]:
    listener = await asyncio.start_server(handler, "127.0.0.1", 0)
    async with listener:
        yield f"redis://127.0.0.1:{listener.sockets[0].getsockname()[1]}"


async def available(cache: Cache) -> None:
    """Waits until a server that failed again and again is asked again."""
    async with asyncio.timeout(20):
        while True:
            with suppress(CacheError):
                return await cache.check()
            await asyncio.sleep(0.05)


class TestRestart:
    async def test_the_next_command_just_works(self, server: RedisServer, cache_at: CacheAt) -> None:
        async with cache_at(server.url) as cache:
            await asyncio.gather(*(cache.set(f"key-{number}", number, 60) for number in range(20)))
            server.restart()
            assert await cache.get("key-1") is None
            await asyncio.gather(*(cache.set(f"key-{number}", number, 60) for number in range(20)))
            # In a thread, so that the event loop can notice that the connections were closed.
            await asyncio.to_thread(server.restart)
            assert await cache.increment("count", ttl=60) == 1
            assert (await cache.stats()).breaker == BreakerState.CLOSED

    async def test_it_recovers_after_being_gone(self, server: RedisServer, cache_at: CacheAt) -> None:
        async with cache_at(server.url) as cache:
            await cache.set("key", 1, 60)
            server.kill()
            for _ in range(3):
                with pytest.raises(CacheUnavailableError), within(4):
                    await cache.get("key")
            server.start()
            await available(cache)
            await cache.set("key", 2, 60)
            assert await cache.get("key") == 2
            assert (await cache.stats()).failures >= 3


class TestClosing:
    @pytest.mark.parametrize("turns", [0, 1, 3, 10, 30, 100])
    async def test_commands_end_or_are_refused_and_no_connection_is_left(
        self, server: RedisServer, cache_at: CacheAt, turns: int
    ) -> None:
        async with cache_at(server.url) as cache, cache_at(server.url, redis_near_size=0) as witness:
            calls = [asyncio.create_task(cache.get(f"key-{number}")) for number in range(100)]
            for _ in range(turns):
                await asyncio.sleep(0)
            await cache.close()
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
            unexpected = [outcome for outcome in outcomes if not isinstance(outcome, NotInitializedError | None)]
            assert unexpected == []
            async with asyncio.timeout(20):
                while (await witness.stats()).server_clients > 1:  # The server notices on its own.
                    await asyncio.sleep(0.01)

    async def test_it_waits_no_longer_than_a_command_may_take(self, server: RedisServer, cache_at: CacheAt) -> None:
        async with cache_at(server.url, **SHORT) as cache:
            await cache.check()
            server.pause()
            calls = [asyncio.create_task(cache.get(f"key-{number}")) for number in range(100)]
            await asyncio.sleep(0.01)
            with within(3):
                await cache.close()
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
            assert {type(outcome) for outcome in outcomes} <= {CacheTimeoutError, NotInitializedError}


class TestHanging:
    async def test_a_hanging_server_costs_the_command_timeout_and_is_used_again(
        self, server: RedisServer, cache_at: CacheAt
    ) -> None:
        async with cache_at(server.url, **SHORT) as cache:
            await cache.set("key", "old", 60)
            server.pause()
            for call in (cache.get, cache.delete, cache.get_session):
                with (
                    pytest.raises((CacheTimeoutError, CacheUnavailableError), match="REDIS_COMMAND_TIMEOUT"),
                    within(3),
                ):
                    await call("key")
            server.resume()
            await available(cache)
            await cache.set("key", "new", 60)
            assert await cache.get("key") == "new"

    async def test_more_callers_than_connections_wait_no_longer(self, server: RedisServer, cache_at: CacheAt) -> None:
        async with cache_at(server.url, **SHORT) as cache:
            await cache.check()
            server.pause()
            with within(3):
                outcomes = await asyncio.gather(
                    *(cache.get(f"key-{number}") for number in range(100)), return_exceptions=True
                )
            assert {type(outcome) for outcome in outcomes} == {CacheTimeoutError}
            server.resume()
            await available(cache)
            await asyncio.gather(*(cache.set(f"key-{number}", number, 60) for number in range(20)))

    async def test_connections_that_the_caller_keeps(self, server: RedisServer, cache_at: CacheAt) -> None:
        async with cache_at(server.url, **SHORT) as cache:
            client: Any = cache.client
            pool = client.connection_pool
            kept = [await pool.get_connection() for _ in range(32)]
            with within(3):
                await cache.set("key", 1, 60)
            for connection in kept:
                await pool.release(connection)
            await cache.check()

    async def test_a_connection_that_is_never_secured(self, cache_at: CacheAt) -> None:
        async with listening(Listener(b"").serve) as url, cache_at(url.replace("redis", "rediss", 1), **SHORT) as cache:
            with pytest.raises(CacheUnavailableError, match="REDIS_CONNECT_TIMEOUT"), within(3):
                await cache.get("key")

    async def test_a_server_that_accepts_and_says_nothing(self, cache_at: CacheAt) -> None:
        async with listening(Listener(b"").serve) as url, cache_at(url, **SHORT) as cache:
            with pytest.raises(CacheTimeoutError), within(3):
                await cache.get("key")

    async def test_an_answer_in_drops_has_a_limit_too(self, cache_at: CacheAt) -> None:
        """Every byte arrives within the limit for one read, but not all of them within that for a command."""

        async def drip(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                for _ in range(100):
                    writer.write(b"%0\r\n")
                    await writer.drain()
                    await asyncio.sleep(0.2)
            except ConnectionError:
                pass
            finally:
                writer.close()

        async with listening(drip) as url, cache_at(url, **SHORT) as cache:
            with pytest.raises(CacheError), within(3):
                await cache.set_many({f"key-{number}": number for number in range(100)}, 60)


class TestVanished:
    async def test_nobody_listens(self, cache_at: CacheAt) -> None:
        with RedisServer() as server:
            url, port = server.url, server.port
        async with cache_at(url) as cache:
            with pytest.raises(CacheUnavailableError, match=f"127.0.0.1:{port}"), within(4):
                await cache.check()

    async def test_there_is_no_socket(self, cache_at: CacheAt) -> None:
        async with cache_at("unix:///nowhere/redis.sock") as cache:
            with pytest.raises(CacheUnavailableError, match=r"/nowhere/redis\.sock"), within(4):
                await cache.check()

    async def test_the_name_does_not_exist(self, cache_at: CacheAt) -> None:
        async with cache_at("redis://nowhere.invalid", connect=5000) as cache:
            with pytest.raises(CacheUnavailableError, match=r"nowhere\.invalid:6379"), within(6):
                await cache.check()

    async def test_something_else_answers(self, cache_at: CacheAt) -> None:
        answer = b"HTTP/1.1 400 Bad Request\r\n\r\n"
        async with listening(Listener(answer).serve) as url, cache_at(url) as cache:
            with pytest.raises(CacheUnavailableError, match="is not Redis"), within(4):
                await cache.check()


class Interruption:
    """A proxy that passes everything on, and cuts the line before the answer to one chosen command."""

    def __init__(self, port: int, command: bytes) -> None:
        self._port = port
        self._command = command
        self.cuts = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            while request := await reader.read(65536):
                upstream_writer.write(request)
                answer = await upstream_reader.read(65536)
                if self._command in request and not self.cuts:
                    self.cuts += 1
                    return
                writer.write(answer)
                await writer.drain()
        finally:
            writer.close()
            upstream_writer.close()


class TestTheLineIsCutBeforeTheAnswer:
    @asynccontextmanager
    async def interrupted(self, cache_at: CacheAt, command: bytes) -> AsyncIterator[tuple[Cache, Interruption]]:
        with RedisServer() as server:
            proxy = Interruption(server.port, command)
            async with listening(proxy.serve) as url, cache_at(url) as cache:
                yield cache, proxy

    async def test_a_harmless_command_is_repeated(self, cache_at: CacheAt) -> None:
        async with self.interrupted(cache_at, b"\r\nGET\r\n") as (cache, proxy):
            await cache.set("key", 1, 60)
            assert await cache.get("key") == 1
            assert proxy.cuts == 1
            assert (await cache.stats()).breaker == BreakerState.CLOSED

    async def test_an_increment_is_not_counted_twice(self, cache_at: CacheAt) -> None:
        async with self.interrupted(cache_at, b"INCRBY") as (cache, proxy):
            with pytest.raises(CacheUnavailableError):
                await cache.increment("count", ttl=60)
            assert proxy.cuts == 1
            assert await cache.get("count") == 1

    async def test_an_addition_does_not_take_itself_for_another(self, cache_at: CacheAt) -> None:
        async with self.interrupted(cache_at, b"NX") as (cache, _):
            with pytest.raises(CacheUnavailableError):
                await cache.add("key", "mine", 60)
            assert await cache.get("key") == "mine"


class TestRefusals:
    @pytest.mark.parametrize("unix_socket", [True, False])
    @pytest.mark.parametrize("login", ["", ":wrong-secret@", "alice:wrong-secret@", "bob:right-secret@"])
    async def test_a_wrong_login(self, cache_at: CacheAt, login: str, unix_socket: bool) -> None:  # noqa: FBT001
        with RedisServer(unix_socket=unix_socket, username="alice", password="right-secret") as server:
            url = server.url.replace("alice:right-secret@", login)
            async with cache_at(url) as cache:
                for _ in range(2):
                    with pytest.raises(CacheLoginError, match="REDIS_PASSWORD") as failure, within(4):
                        await cache.get("key")
                    assert "secret" not in "".join(traceback.format_exception(failure.value))

    async def test_a_server_that_quotes_the_password_is_not_quoted(self, cache_at: CacheAt) -> None:
        """Redis 5 answers so to HELLO."""
        answer = b"-ERR unknown command `HELLO`, with args beginning with: `3`, `AUTH`, `me`, `my-secret`, \r\n"
        listener = Listener(answer)
        async with listening(listener.serve) as url, cache_at(url.replace("//", "//me:my-secret@")) as cache:
            with pytest.raises(CacheError, match=r"RESP3.*Redis 6") as failure:
                await cache.check()
        assert b"my-secret" in listener.received
        assert "secret" not in "".join(traceback.format_exception(failure.value))

    async def test_a_missing_right(self, cache_at: CacheAt) -> None:
        options = ["user default on nopass ~other:* +@all -info"]
        with RedisServer(options=options) as server:
            async with cache_at(server.url, redis_key_prefix="other") as cache:
                await cache.set("key", 1, 60)
                with pytest.raises(CacheError, match=r"(?i)permission"):
                    await cache.stats()
            async with cache_at(server.url, redis_key_prefix="stc") as cache:
                with pytest.raises(CacheError, match=r"(?i)permission"):
                    await cache.get("key")

    async def test_a_full_server_refuses_without_quoting_the_value(self, cache_at: CacheAt) -> None:
        with RedisServer(options=["maxmemory 1", "maxmemory-policy noeviction"]) as server:
            async with cache_at(server.url) as cache:
                calls = [
                    cache.set_session("token", "private", 60),
                    cache.set_many({"key": "private"}, 60),
                    cache.increment("private-count", ttl=60),
                ]
                for call in calls:
                    with pytest.raises(CacheError, match="maxmemory") as failure:
                        await call
                    assert "private" not in "".join(traceback.format_exception(failure.value))
                assert await cache.get("key") is None
                assert (await cache.stats()).server_memory_limit == 1

    async def test_a_database_that_does_not_exist(self, cache_at: CacheAt) -> None:
        with RedisServer() as server:
            async with cache_at(f"{server.url}/999") as cache:
                with pytest.raises(CacheError, match=r"(?i)DB index"):
                    await cache.check()

    async def test_a_replica_that_may_not_be_written(self, server: RedisServer, cache_at: CacheAt) -> None:
        async with cache_at(server.url) as cache:
            await cache.client.replicaof("127.0.0.1", "1")
            with pytest.raises(CacheError, match=r"(?i)read only"):
                await cache.set("key", 1, 60)
