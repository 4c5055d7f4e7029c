"""Sentinels: the primary is found, followed when it changes, and not trusted blindly."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest

from data_layer.cache.commands import CommandRunner, NodeAccess
from data_layer.cache.wire.breaker import BreakerState
from data_layer.errors import CacheError, CacheReadOnlyError, CacheUnavailableError
from data_layer.testing.redis_sentinels import RedisSentinels
from data_layer.testing.redis_server import RedisServer
from tests.support import until

from .wire import LIMIT, Peer, running


class FakeSentinel(Peer):
    """Names whichever server the test wants."""

    def __init__(self, named: RedisServer | None) -> None:
        super().__init__(self._name)
        self.named = named

    async def _name(self, command: list[bytes], writer: asyncio.StreamWriter) -> None:
        assert command == [b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", b"main"]
        if self.named is None:
            writer.write(b"_\r\n")
        else:
            port = b"%d" % self.named.port
            writer.write(b"*2\r\n$9\r\n127.0.0.1\r\n$%d\r\n%s\r\n" % (len(port), port))

    @property
    def settings(self) -> dict[str, Any]:
        return {"redis_sentinel_nodes": f"127.0.0.1:{self.port}", "redis_sentinel_master": "main"}


async def write_until_it_arrives(runner: CommandRunner, value: bytes, server: RedisServer) -> None:
    """A write may still go to the old primary, which does not know yet; sentinels take half a second to be asked."""
    async with asyncio.timeout(LIMIT):
        while server.execute("GET", "key") != value.decode():
            with suppress(CacheError):
                await runner.run("SET", b"key", value)
            await asyncio.sleep(0.02)


@pytest.mark.slow
async def test_a_failover_and_a_crash_are_followed() -> None:
    prepared: list[str] = []

    async def prepare(access: NodeAccess) -> None:
        assert (await access.run("ROLE"))[0] == b"master"
        prepared.append(access.name)

    with RedisSentinels() as group:
        async with running(**group.settings) as runner:
            runner.on_topology_change(prepare)
            await runner.run("SET", b"key", b"1")
            second = await asyncio.to_thread(group.fail_over)
            await write_until_it_arrives(runner, b"2", second)
            await asyncio.to_thread(group.wait_for_replicas)
            await asyncio.to_thread(second.kill)
            third = await asyncio.to_thread(group.wait_for_new_primary, second)
            await write_until_it_arrives(runner, b"3", third)
            assert prepared[-1] == third.address
            assert len(prepared) >= 3


async def test_a_primary_that_does_not_know_of_its_successor_is_left() -> None:
    """It answers still, and takes writes that will be lost."""
    with RedisServer() as old, RedisServer() as new:
        async with FakeSentinel(old) as sentinel, running(**sentinel.settings) as runner:
            await runner.run("SET", b"key", b"1")
            sentinel.named = new
            (primary,) = await runner.primaries()
            await until(lambda: primary.connections == 0)
            assert await runner.run("GET", b"key") is None
            assert old.execute("GET", "key") == "1"


async def test_a_replica_is_not_taken_for_a_primary() -> None:
    with RedisServer() as server:
        server.execute("REPLICAOF", "127.0.0.1", 1)
        async with FakeSentinel(server) as sentinel, running(**sentinel.settings) as runner:
            with pytest.raises(CacheUnavailableError, match="is a replica"):
                await runner.run("GET", b"key")
            server.execute("REPLICAOF", "NO", "ONE")
            await write_until_it_arrives(runner, b"1", server)


async def test_sentinels_that_name_a_replica_for_a_moment_fail_no_command() -> None:
    with RedisServer() as old, RedisServer() as new:
        old.execute("REPLICAOF", "127.0.0.1", 1)
        async with FakeSentinel(old) as sentinel, running(**sentinel.settings) as runner:
            count = asyncio.create_task(runner.run("INCR", b"count", repeatable=False))
            await until(lambda: sentinel.commands != [])
            sentinel.named = new
            assert await count == 1
            assert new.execute("GET", "count") == "1"


async def test_a_command_that_a_demoted_server_refuses_goes_to_its_successor() -> None:
    with RedisServer() as old, RedisServer() as new:
        async with FakeSentinel(old) as sentinel, running(**sentinel.settings) as runner:
            await runner.run("SET", b"key", b"1")
            sentinel.named = new
            old.execute("REPLICAOF", "127.0.0.1", 1)
            await runner.run("INCR", b"count", repeatable=False)
            assert new.execute("GET", "count") == "1"


async def test_without_sentinels_a_replica_refuses_writes() -> None:
    with RedisServer() as server:
        server.execute("REPLICAOF", "127.0.0.1", 1)
        async with running(server.url) as runner:
            with pytest.raises(CacheReadOnlyError):
                await runner.run("SET", b"key", b"1")


async def test_an_unknown_name_and_sentinels_that_are_gone() -> None:
    async with FakeSentinel(None) as sentinel, running(**sentinel.settings) as runner:
        with pytest.raises(CacheUnavailableError, match=r"'main'.*REDIS_SENTINEL_MASTER"):
            await runner.run("GET", b"key")
        settings = sentinel.settings
    async with running(**settings) as runner:
        with pytest.raises(CacheUnavailableError, match=settings["redis_sentinel_nodes"]):
            await runner.run("GET", b"key")


async def test_the_breaker_closes_with_the_successor() -> None:
    with RedisServer() as old, RedisServer() as new:
        async with FakeSentinel(old) as sentinel, running(**sentinel.settings) as runner:
            await runner.run("SET", b"key", b"1")
            old.kill()
            while runner.breaker_state is BreakerState.CLOSED:
                with pytest.raises(CacheUnavailableError):
                    await runner.run("GET", b"key")
            sentinel.named = new
            await until(lambda: runner.breaker_state is BreakerState.CLOSED)
            assert await runner.run("GET", b"key") is None
