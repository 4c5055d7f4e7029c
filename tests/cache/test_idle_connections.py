"""Connections that something on the way forgot while nobody used them: the first command afterwards just works."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import hiredis
import pytest

from data_layer.cache import Cache
from data_layer.cache.commands import CommandRunner
from data_layer.cache.wire.connection import MAXIMUM_WAITING
from data_layer.config import Settings
from data_layer.testing.redis_server import RedisServer
from tests.cache.conftest import CacheAt
from tests.support import until

from .wire import LIMIT, Endpoint, Listening, running


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer() as started:
        yield started


@pytest.fixture(autouse=True)
def _empty(server: RedisServer) -> None:
    server.execute("FLUSHALL")


async def connected(runner: CommandRunner) -> None:
    await runner.run("PING")
    await runner.run("SET", b"large", b"x" * 100_000)


async def test_a_forgotten_connection_is_replaced_while_nobody_uses_it(server: RedisServer) -> None:
    """Long before the time limit of a command, which here is far away."""
    async with Endpoint(server) as endpoint, running(endpoint.url, command=600_000) as runner:
        await connected(runner)
        (primary,) = await runner.primaries()
        endpoint.forget()
        await until(lambda: primary.connections == 0)
        assert await runner.run("INCR", b"count", repeatable=False) == 1
        assert primary.breaker.is_closed


@pytest.mark.parametrize("command", [("INCR", b"count"), ("SET", b"count", b"1" * 100_000)], ids=["small", "large"])
async def test_nothing_is_written_to_a_connection_that_was_silent_for_long(
    server: RedisServer, command: tuple[str | bytes, ...]
) -> None:
    """This process stood still, a laptop asleep for instance, and so has noticed nothing when the command comes."""
    async with Endpoint(server) as endpoint, running(endpoint.url) as runner:
        await connected(runner)
        endpoint.forget()
        time.sleep(0.6)  # noqa: ASYNC251  (that is the point: nothing runs)
        answers = await asyncio.gather(*(runner.run(*command, repeatable=False) for _ in range(5)))
        assert sorted(answers) in ([1, 2, 3, 4, 5], [b"OK"] * 5)


async def test_a_reset_connection(server: RedisServer) -> None:
    async with Endpoint(server) as endpoint, running(endpoint.url) as runner:
        for number in range(1, 6):
            await connected(runner)
            endpoint.cut()
            (primary,) = await runner.primaries()
            await until(lambda primary=primary: primary.connections == 0)  # type: ignore[misc]
            assert await runner.run("INCR", b"count", repeatable=False) == number


class DemotedServer(Listening):
    """Says on its first connection that it is a replica, when a command is under way behind the question."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        is_demoted, parser = self.connections == 1, hiredis.Reader()
        while data := await reader.read(65536):
            parser.feed(data)
            while (command := parser.gets()) is not False:
                if command == [b"HELLO"] and is_demoted:
                    continue
                if command[0] == b"INCR" and is_demoted:
                    writer.write(b"%1\r\n$4\r\nrole\r\n$7\r\nreplica\r\n")
                elif command[0] == b"HELLO":
                    writer.write(b"%1\r\n$4\r\nrole\r\n$6\r\nmaster\r\n")
                elif command[0] == b"INFO":
                    writer.write(b"$10\r\nrun_id:one\r\n")
                else:
                    writer.write(b":1\r\n")


async def test_what_was_sent_after_the_question_that_shows_a_replica_is_sent_again() -> None:
    async with DemotedServer() as server, running(server.url) as runner:
        assert await runner.run("PING") == 1
        (primary,) = await runner.primaries()
        connection = primary._main
        assert connection is not None
        await until(lambda: connection.sent > connection.answered)
        assert await runner.run("INCR", b"count", repeatable=False) == 1
        assert server.connections == 2


async def test_increment_and_lock_after_a_pause(server: RedisServer) -> None:
    async with Endpoint(server) as endpoint:
        settings = Settings(redis_connect_timeout=5000, redis_command_timeout=5000)
        async with Cache(settings.redis, endpoint.url) as cache:
            await cache.check()
            for number in (1, 2):
                endpoint.forget()
                time.sleep(0.6)  # noqa: ASYNC251
                assert await cache.increment("count", ttl=60) == number
                endpoint.forget()
                time.sleep(0.6)  # noqa: ASYNC251
                async with cache.lock("job"):
                    pass


async def test_a_server_that_pauses_for_less_than_the_time_limit_fails_nothing(server: RedisServer) -> None:
    """Silence shorter than REDIS_COMMAND_TIMEOUT is no failure of a command that is under way."""
    async with running(server.url) as runner:
        await runner.run("PING")
        server.pause()
        count = asyncio.create_task(runner.run("INCR", b"count", repeatable=False))
        await asyncio.sleep(1.2)
        later = asyncio.create_task(runner.run("INCR", b"count", repeatable=False))
        await asyncio.sleep(0.1)
        server.resume()
        assert [await count, await later] == [1, 2]


async def test_asking_for_the_role_is_no_work_of_the_caller(server: RedisServer) -> None:
    """The latencies that are reported are those of commands."""
    async with running(server.url) as runner:
        await runner.run("PING")
        (primary,) = await runner.primaries()
        connection = primary._main
        assert connection is not None
        before, answered = runner.latencies.count, connection.answered
        await until(lambda: connection.answered >= answered + 2)
        assert runner.latencies.count == before


async def test_callers_beyond_what_a_connection_takes_wait_while_it_has_to_prove_itself(server: RedisServer) -> None:
    async with running(server.url, command=LIMIT * 1000) as runner:
        await runner.run("PING")
        (primary,) = await runner.primaries()
        connection = primary._main
        assert connection is not None
        server.pause()
        connection.require_proof()
        calls = [asyncio.create_task(runner.run("INCR", b"count")) for _ in range(2 * MAXIMUM_WAITING)]
        await until(lambda: connection.is_full)
        server.resume()
        assert sorted(await asyncio.gather(*calls)) == list(range(1, 2 * MAXIMUM_WAITING + 1))


async def test_a_server_that_closes_what_is_idle_is_never_met(server: RedisServer) -> None:
    server.execute("CONFIG", "SET", "timeout", 1)
    try:
        async with running(server.url) as runner:
            await connected(runner)
            (primary,) = await runner.primaries()
            for _ in range(30):
                assert primary.connections == 2
                await asyncio.sleep(0.1)
    finally:
        server.execute("CONFIG", "SET", "timeout", 0)


async def test_redis_pys_client_notices_that_an_idle_connection_was_closed(
    server: RedisServer, cache_at: CacheAt
) -> None:
    async with cache_at(server.url) as cache:
        client: Any = cache.client
        assert await client.ping()
        (idle,) = client.connection_pool._available_connections
        server.execute("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await until(idle._reader.at_eof)
        assert await client.ping()
