"""A cluster: keys are found wherever they are, while slots move and primaries die."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from data_layer.cache.commands import CommandRunner, NodeAccess, Script
from data_layer.cache.wire.routing import key_slot
from data_layer.errors import CacheError, CacheUnavailableError, InvalidCacheValueError
from data_layer.testing.redis_cluster import Node, RedisCluster
from data_layer.testing.redis_server import RedisServer

from .wire import LIMIT, Peer, running

KEYS = [b"key-%d" % number for number in range(200)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[RedisCluster]:
    """Six nodes; a test leaves them all running, in any role."""
    with RedisCluster() as started:
        yield started


async def test_many_keys_on_all_nodes(cluster: RedisCluster) -> None:
    async with running(**cluster.settings) as runner:
        assert await runner.run_batch([("SET", key, key) for key in KEYS]) == [b"OK"] * len(KEYS)
        assert len(await runner.primaries()) == 3
        assert await runner.get_many([*KEYS, b"absent", KEYS[0]]) == [*KEYS, None, KEYS[0]]
        seen = {key async for keys in runner.scan(b"key-*") for key in keys}
        assert seen == set(KEYS)
        assert await runner.run_all([("INCR", b"{a}1"), ("INCR", b"{a}2"), ("INCR", b"{a}1")], atomic=True) == [1, 1, 2]
        assert await runner.eval(Script("return redis.call('GET', KEYS[1])"), KEYS[1]) == KEYS[1]
        assert await runner.unlink([*KEYS, b"absent", b"{a}1", b"{a}2"]) == len(KEYS) + 2


async def test_one_failed_command_fails_alone(cluster: RedisCluster) -> None:
    async with running(**cluster.settings) as runner:
        await runner.run("RPUSH", b"list", b"1")
        answers = await runner.run_batch([("GET", b"list"), *(("SET", key, b"1") for key in KEYS[:10])])
        assert isinstance(answers[0], InvalidCacheValueError)
        assert answers[1:] == [b"OK"] * 10
        assert await runner.get_many([b"list", KEYS[0]]) == [None, b"1"]
        await runner.unlink([b"list", *KEYS[:10]])


def other_primary(cluster: RedisCluster, key: bytes) -> tuple[Node, Node]:
    source = cluster.primary_of(key)
    return source, next(node for node in cluster.primaries if node is not source)


async def test_a_slot_that_is_being_moved_and_then_has_moved(cluster: RedisCluster) -> None:
    here, there = b"{tag}here", b"{tag}there"
    slot = key_slot(here)
    source, target = other_primary(cluster, here)
    prepared: list[tuple[str, bool]] = []

    async def prepare(access: NodeAccess) -> None:
        prepared.append((access.name, access.owns(here)))

    async with running(**cluster.settings) as runner:
        runner.on_topology_change(prepare)
        await runner.run_batch([("SET", key, key) for key in (here, there, *KEYS)])
        target.execute("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
        source.execute("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id)
        source.execute("MIGRATE", "127.0.0.1", target.port, there, 0, 5000)
        assert await runner.run("GET", there) == there
        assert await runner.run("GET", here) == here
        assert await runner.run("SET", b"{tag}new", b"new") == b"OK"
        assert await runner.run_all([("INCR", b"{tag}count"), ("INCR", b"{tag}count")], atomic=True) == [1, 2]
        assert await runner.run("SET", b"{tag}large", b"L" * 200_000) == b"OK"
        source.execute("MIGRATE", "127.0.0.1", target.port, here, 0, 5000)
        prepared.clear()
        for node in (target, source, *cluster.primaries):
            node.execute("CLUSTER", "SETSLOT", slot, "NODE", target.id)
        assert await runner.run("GET", here) == here
        # Whoever got the slot was made ready before it was used for it.
        assert prepared == [(target.address, True)]
        assert await runner.run("GET", b"{tag}new") == b"new"
        assert await runner.unlink([here, there, b"{tag}new", b"{tag}count", b"{tag}large", *KEYS]) == len(KEYS) + 5


async def write_all(runner: CommandRunner) -> None:
    """Until every key was written."""
    async with asyncio.timeout(LIMIT):
        while True:
            answers = await runner.run_batch([("SET", key, key) for key in KEYS])
            if not any(isinstance(answer, CacheError) for answer in answers):
                return
            await asyncio.sleep(0.05)


async def test_an_agreed_failover_loses_nothing(cluster: RedisCluster) -> None:
    async with running(**cluster.settings) as runner:
        counts = dict.fromkeys(KEYS[:20], 0)
        is_over = False

        async def count(key: bytes) -> None:
            while not is_over:
                counts[key] += 1
                assert await runner.run("INCR", key) == counts[key]
                await asyncio.sleep(0.002)

        counting = [asyncio.create_task(count(key)) for key in counts]
        await asyncio.to_thread(cluster.fail_over, cluster.primary_of(KEYS[0]))
        is_over = True
        await asyncio.gather(*counting)
        await asyncio.to_thread(cluster.wait_until_well)
        await runner.unlink(list(counts))


async def test_a_dead_primary_fails_alone_and_is_replaced(cluster: RedisCluster) -> None:
    async with running(**cluster.settings) as runner:
        await write_all(runner)
        dead = cluster.primaries[0]
        await asyncio.to_thread(dead.kill)
        answers = await runner.run_batch([("GET", key) for key in KEYS])
        failed = [key for key, answer in zip(KEYS, answers, strict=True) if isinstance(answer, CacheError)]
        assert all(isinstance(answer, CacheUnavailableError | bytes) for answer in answers)
        assert 0 < len(failed) < len(KEYS)
        await asyncio.to_thread(cluster.wait_for_new_primary, dead)
        await write_all(runner)
        assert dead.address not in {primary.name for primary in await runner.primaries()}
        await asyncio.to_thread(dead.start)
        await asyncio.to_thread(cluster.wait_until_well)
        assert await runner.unlink(KEYS) == len(KEYS)


async def test_nodes_that_are_all_gone() -> None:
    async with running(redis_cluster_nodes="127.0.0.1:1,127.0.0.1:2") as runner:
        with pytest.raises(CacheUnavailableError, match=r"127\.0\.0\.1"):
            await runner.run("GET", b"key")
        assert all(isinstance(answer, CacheUnavailableError) for answer in await runner.run_batch([("GET", b"key")]))
        with pytest.raises(CacheUnavailableError):
            await runner.primaries()


class FakeNode(Peer):
    """A cluster of one node, which announces itself as the test wants."""

    def __init__(self, host: bytes) -> None:
        super().__init__(self._answer)
        self._host = host

    async def _answer(self, command: list[bytes], writer: asyncio.StreamWriter) -> None:
        match command:
            case [b"CLUSTER", b"INFO"]:
                writer.write(b"$18\r\ncluster_state:ok\r\n\r\n")
            case [b"CLUSTER", b"SLOTS"]:
                writer.write(b"*1\r\n*3\r\n:0\r\n:16383\r\n*3\r\n%s:%d\r\n$2\r\nid\r\n" % (self._host, self.port))
            case _:
                writer.write(b"$5\r\nfound\r\n")


@pytest.mark.parametrize(
    "host", [b"_\r\n", b"$0\r\n\r\n", b"$1\r\n?\r\n", b"$9\r\nlocalhost\r\n", b"$9\r\n127.0.0.1\r\n"]
)
async def test_nodes_announce_names_addresses_or_nothing(host: bytes) -> None:
    async with FakeNode(host) as node, running(redis_cluster_nodes=f"127.0.0.1:{node.port}") as runner:
        assert await runner.run("GET", b"key") == b"found"
        assert await runner.run_batch([("GET", b"a"), ("GET", b"b")]) == [b"found", b"found"]


class LaggingNode(FakeNode):
    """Goes on to name the old primary of all slots for a moment after a failover: the next time that it is asked."""

    def __init__(self, old: RedisServer, new: RedisServer) -> None:
        super().__init__(b"")
        self.named = [new, old, old]

    async def _answer(self, command: list[bytes], writer: asyncio.StreamWriter) -> None:
        if command != [b"CLUSTER", b"SLOTS"]:
            await super()._answer(command, writer)
            return
        named = self.named.pop() if len(self.named) > 1 else self.named[0]
        host, port = named.address.split(":")
        writer.write(
            b"*1\r\n*3\r\n:0\r\n:16383\r\n*3\r\n$9\r\n%s\r\n:%s\r\n$2\r\nid\r\n" % (host.encode(), port.encode())
        )


async def test_a_map_that_names_a_replica_for_a_moment_fails_no_command() -> None:
    with RedisServer() as old, RedisServer() as new:
        old.execute("REPLICAOF", "127.0.0.1", 1)
        async with LaggingNode(old, new) as node, running(redis_cluster_nodes=f"127.0.0.1:{node.port}") as runner:
            counts = await asyncio.gather(*(runner.run("INCR", b"count", repeatable=False) for _ in range(20)))
            assert sorted(counts) == list(range(1, 21))
            assert new.execute("GET", "count") == "20"


async def test_a_map_that_names_a_replica_for_good() -> None:
    with RedisServer() as old:
        old.execute("REPLICAOF", "127.0.0.1", 1)
        async with LaggingNode(old, old) as node, running(redis_cluster_nodes=f"127.0.0.1:{node.port}") as runner:
            with pytest.raises(CacheUnavailableError, match="is a replica"):
                await runner.run("INCR", b"count", repeatable=False)


async def test_a_node_that_describes_nonsense() -> None:
    async def babble(_command: list[bytes], writer: asyncio.StreamWriter) -> None:
        writer.write(b"*1\r\n*2\r\n:1\r\n:2\r\n")

    async with Peer(babble) as node, running(redis_cluster_nodes=f"127.0.0.1:{node.port}") as runner:
        with pytest.raises(CacheUnavailableError):
            await runner.run("GET", b"key")


async def test_no_cluster_at_all() -> None:
    with RedisServer() as server:
        async with running(redis_cluster_nodes=server.address) as runner:
            with pytest.raises(CacheError, match="cluster support disabled"):
                await runner.run("GET", b"key")


async def test_a_node_that_is_demoted_costs_no_command_even_if_it_must_not_happen_twice(cluster: RedisCluster) -> None:
    """A planned failover loses nothing, so each of the commands under way is carried out exactly once."""
    async with running(**cluster.settings, command=LIMIT * 1000) as runner:
        await runner.unlink([b"count"])
        await asyncio.to_thread(cluster.wait_until_well)
        is_over = asyncio.Event()
        counted = 0

        async def count() -> None:
            nonlocal counted
            while not is_over.is_set():
                await runner.run("INCR", b"count", repeatable=False)
                counted += 1

        counting = [asyncio.create_task(count()) for _ in range(20)]
        await asyncio.to_thread(cluster.fail_over, cluster.primary_of(b"count"))
        await asyncio.sleep(1)
        is_over.set()
        await asyncio.gather(*counting)
        assert await runner.run("GET", b"count") == b"%d" % counted
        await asyncio.to_thread(cluster.wait_until_well)
