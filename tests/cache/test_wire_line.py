"""One connection: what travels together, in which order, and whom a failure hits."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_layer.cache.wire.connection import MAXIMUM_WAITING
from data_layer.errors import (
    CacheError,
    CacheTimeoutError,
    CacheUnavailableError,
    InvalidCacheValueError,
)
from data_layer.testing.redis_server import RedisServer
from tests.support import until

from .wire import LIMIT, HoldingProxy, Peer, running

LARGE = b"L" * 200_000


@pytest.fixture(scope="module")
def shared() -> Iterator[RedisServer]:
    """A server that no test breaks."""
    with RedisServer() as server:
        yield server


def reads(server: RedisServer) -> int:
    """How often the server has read from any connection."""
    return int(server.info("stats")["total_reads_processed"])


class TestTogether:
    async def test_commands_of_one_turn_are_one_packet(self, shared: RedisServer) -> None:
        async with running(shared.url) as runner:
            await runner.run("SET", b"key", b"value")
            before = reads(shared)
            answers = await asyncio.gather(*(runner.run("GET", b"key") for _ in range(300)))
            assert answers == [b"value"] * 300
            assert reads(shared) - before < 10

    async def test_a_batch_is_one_packet_and_its_answers_are_in_order(self, shared: RedisServer) -> None:
        async with running(shared.url) as runner:
            await runner.run("PING")
            before = reads(shared)
            answers = await runner.run_batch([("ECHO", number) for number in range(300)])
            assert answers == [b"%d" % number for number in range(300)]
            assert reads(shared) - before < 10

    async def test_more_than_a_line_takes_at_once(self, shared: RedisServer) -> None:
        number = 5 * MAXIMUM_WAITING
        async with running(shared.url, command=LIMIT * 1000) as runner:
            tasks = [asyncio.create_task(runner.run("INCR", b"many")) for _ in range(number)]
            assert [await task for task in tasks] == list(range(1, number + 1))
            await runner.run("DEL", b"many")


class TestAFailedCommand:
    async def test_it_hits_only_its_caller(self, shared: RedisServer) -> None:
        async with running(shared.url) as runner:
            await runner.run_all([("DEL", b"list"), ("RPUSH", b"list", b"1"), ("SET", b"text", b"value")])
            calls = [runner.run("GET", b"list" if number % 10 == 0 else b"text") for number in range(50)]
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
            assert [type(outcome) for outcome in outcomes[::10]] == [InvalidCacheValueError] * 5
            assert outcomes.count(b"value") == 45

    async def test_in_a_batch_the_others_have_their_answers(self, shared: RedisServer) -> None:
        async with running(shared.url) as runner:
            commands = [("SET", b"text", b"value"), ("INCR", b"text"), ("GET", b"text"), ("NONSENSE", b"secret")]
            stored, refused, read, unknown = await runner.run_batch(commands)
            assert (stored, read) == (b"OK", b"value")
            assert isinstance(refused, InvalidCacheValueError)
            assert isinstance(unknown, CacheError)
            assert "secret" not in str(unknown)
            with pytest.raises(InvalidCacheValueError):
                await runner.run_all(commands)

    async def test_a_transaction_with_an_unknown_command_changes_nothing(self, shared: RedisServer) -> None:
        async with running(shared.url) as runner:
            await runner.run("SET", b"text", b"old")
            with pytest.raises(CacheError, match="unknown command"):
                await runner.run_all([("SET", b"text", b"new"), ("NONSENSE", b"text")], atomic=True)
            assert await runner.run("GET", b"text") == b"old"


class TestCancellation:
    @settings(max_examples=40, deadline=None)
    @given(seed=st.integers(0, 2**32), number=st.integers(1, 60))
    def test_no_answer_goes_to_another(self, shared: RedisServer, seed: int, number: int) -> None:
        async def check() -> None:
            choose = random.Random(seed)
            async with running(shared.url) as runner:
                tasks = [asyncio.create_task(echo(runner, choose, number)) for number in range(number)]
                doomed = [task for task in tasks if choose.random() < 0.5]
                for task in doomed:
                    for _ in range(choose.randrange(4)):
                        await asyncio.sleep(0)
                    task.cancel()
                outcomes = await asyncio.gather(*tasks, return_exceptions=True)
                for task, outcome in zip(tasks, outcomes, strict=True):
                    assert outcome is None or (task in doomed and isinstance(outcome, asyncio.CancelledError))
                assert await runner.run("ECHO", b"end") == b"end"

        asyncio.run(check())

    async def test_a_caller_that_waits_for_the_connection(self, shared: RedisServer) -> None:
        async with running(shared.url) as runner:
            first, second = (asyncio.create_task(runner.run("ECHO", text)) for text in (b"1", b"2"))
            await asyncio.sleep(0)
            first.cancel()
            assert await second == b"2"
            assert first.cancelled()


async def echo(runner: Any, choose: random.Random, number: int) -> None:
    """Commands of different kinds, each of which must get its own answer."""
    text = b"%d" % number
    match choose.randrange(4):
        case 0:
            assert await runner.run("ECHO", text) == text
        case 1:
            assert await runner.run_batch([("ECHO", text), ("ECHO", text * 2)]) == [text, text * 2]
        case 2:
            await runner.run("SET", text, text)
            assert await runner.get_many([text, b"absent"]) == [text, None]
        case _:
            assert await runner.run("ECHO", text + LARGE) == text + LARGE


class TestLargeValues:
    async def test_they_do_not_hold_up_small_ones(self, shared: RedisServer) -> None:
        async with HoldingProxy(shared.port) as proxy, running(proxy.url, command=LIMIT * 1000) as runner:
            await runner.run("SET", b"small", b"1")
            large = asyncio.create_task(runner.run("SET", b"large", b"L" * 8_000_000))
            await asyncio.wait_for(proxy.held.wait(), LIMIT)
            for _ in range(100):
                assert await runner.run("GET", b"small") == b"1"
            follows = asyncio.create_task(runner.run("STRLEN", b"large"))
            assert await runner.get_many([b"small"]) == [b"1"]
            assert not large.done()
            assert not follows.done()
            proxy.released.set()
            assert await large == b"OK"
            assert await follows == 8_000_000
            assert proxy.connections == 2

    async def test_one_that_was_read_takes_the_other_line_from_then_on(self, shared: RedisServer) -> None:
        shared.execute("SET", "read", "L" * 100_000)
        async with running(shared.url) as runner:
            (primary,) = await runner.primaries()
            assert len(await runner.run("GET", b"read")) == 100_000
            assert primary.connections == 1
            found = await runner.get_many([b"absent", b"read", b"absent"])
            assert found == [None, b"L" * 100_000, None]
            assert primary.connections == 2
            await runner.run("SET", b"read", b"small")
            assert await runner.run("GET", b"read") == b"small"
            assert not primary.large

    @pytest.mark.parametrize("way", ["get", "many", "with life", "batch"])
    async def test_however_they_are_read_no_small_one_takes_the_other_line(self, shared: RedisServer, way: str) -> None:
        shared.execute("SET", "read", "L" * 100_000)
        shared.execute("SET", "small", "s")
        async with running(shared.url) as runner:
            (primary,) = await runner.primaries()
            for _ in range(2):
                if way == "get":
                    found = [await runner.run("GET", key) for key in (b"read", b"small")]
                elif way == "many":
                    found = await runner.get_many([b"small", b"absent", b"read"])
                elif way == "with life":
                    found = [(await runner.get_with_life(key))[0] for key in (b"read", b"small", b"absent")]
                else:
                    found = await runner.run_batch([("GET", b"small")]) + await runner.run_batch([("GET", b"read")])
                assert b"L" * 100_000 in found
                assert set(primary.large) == {b"read"}
            assert primary.connections == 2

    @settings(max_examples=30, deadline=None)
    @given(steps=st.lists(st.tuples(st.sampled_from([b"a", b"b", b"c"]), st.booleans(), st.booleans()), max_size=25))
    def test_the_order_of_each_key_is_kept(self, shared: RedisServer, steps: list[tuple[bytes, bool, bool]]) -> None:
        """All are sent without waiting; each read finds what was written to its key just before."""

        async def check() -> None:
            async with running(shared.url) as runner:
                await runner.unlink([b"a", b"b", b"c"])
                expected: dict[bytes, bytes] = {}
                reads: list[tuple[asyncio.Task[Any], bytes | None]] = []
                writes = []
                for number, (key, is_large, is_read) in enumerate(steps):
                    if is_read:
                        many = is_large
                        call = runner.get_many([key]) if many else runner.run("GET", key)
                        reads.append((asyncio.create_task(call), expected.get(key)))
                    else:
                        expected[key] = b"%d" % number + (LARGE if is_large else b"")
                        writes.append(asyncio.create_task(runner.run("SET", key, expected[key])))
                    if number % 7 == 6:
                        await asyncio.sleep(0)
                await asyncio.gather(*writes)
                for task, value in reads:
                    answer = await task
                    assert (answer[0] if isinstance(answer, list) else answer) == value
                (primary,) = await runner.primaries()
                assert not any(primary.large.values())

        asyncio.run(check())


class TestMisbehaviour:
    async def test_silence_ends_with_the_time_limit_for_all_who_wait(self) -> None:
        async def be_silent(command: list[bytes], writer: asyncio.StreamWriter) -> None:
            if command[0] == b"PING":
                writer.write(b"+PONG\r\n")

        async with Peer(be_silent, is_silent=True) as peer, running(peer.url, command=300) as runner:
            assert await runner.run("PING") == b"PONG"
            async with asyncio.timeout(LIMIT):
                calls = (runner.run("GET", b"%d" % number) for number in range(20))
                outcomes = await asyncio.gather(*calls, return_exceptions=True)
            assert {type(outcome) for outcome in outcomes} == {CacheTimeoutError}
            assert await runner.run("PING") == b"PONG"
            assert peer.connections == 2

    async def test_an_answer_in_pieces(self) -> None:
        async def dawdle(_command: list[bytes], writer: asyncio.StreamWriter) -> None:
            for byte in b"*2\r\n$3\r\nabc\r\n:7\r\n":
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0)

        async with Peer(dawdle) as peer, running(peer.url) as runner:
            assert await asyncio.gather(*(runner.run("ANYTHING") for _ in range(3))) == [[b"abc", 7]] * 3

    @pytest.mark.parametrize("nonsense", [b"HTTP/1.1 200 OK\r\n", b"$3\r\nabc\r\n+one too many\r\n", b"*-7\r\n"])
    async def test_garbage_breaks_the_connection_and_says_so(self, nonsense: bytes) -> None:
        async def babble(command: list[bytes], writer: asyncio.StreamWriter) -> None:
            writer.write(nonsense if command[0] == b"GET" else b"+PONG\r\n")

        async with Peer(babble) as peer, running(peer.url) as runner:
            first: Any
            second: Any
            first, second = await asyncio.gather(
                runner.run("GET", b"1"), runner.run("GET", b"2"), return_exceptions=True
            )
            assert first == b"abc" or isinstance(first, CacheUnavailableError)
            assert isinstance(second, CacheUnavailableError) or second == b"one too many"
            await until(lambda: (only := runner._routing.only) is not None and only.connections == 0)
            assert await runner.run("PING") == b"PONG"

    async def test_an_end_in_the_middle_of_an_answer(self) -> None:
        async def break_off(command: list[bytes], writer: asyncio.StreamWriter) -> None:
            if command[1] == b"bad":
                writer.write(b"$100\r\nhalf of it")
                await writer.drain()
                writer.close()
            else:
                writer.write(b"$4\r\ngood\r\n")

        async with Peer(break_off) as peer, running(peer.url) as runner:
            good: Any
            bad: Any
            good, bad = await asyncio.gather(
                runner.run("GET", b"good"), runner.run("GET", b"bad"), return_exceptions=True
            )
            assert good == b"good"
            assert isinstance(bad, CacheUnavailableError)
            # Once more on a new connection, and no third time.
            assert [command[1] for command in peer.commands].count(b"bad") == 2
            with pytest.raises(CacheUnavailableError):
                await runner.run("GET", b"bad", repeatable=False)
            assert [command[1] for command in peer.commands].count(b"bad") == 3

    async def test_an_endless_answer_ends_in_time(self) -> None:
        async def pour(_command: list[bytes], writer: asyncio.StreamWriter) -> None:
            writer.write(b"$99999999999\r\n")
            while True:
                writer.write(b"x" * 1000)
                await writer.drain()
                await asyncio.sleep(0.001)

        async with Peer(pour, is_silent=True) as peer, running(peer.url, command=300) as runner, asyncio.timeout(LIMIT):
            with pytest.raises(CacheTimeoutError):
                await runner.run("GET", b"key")

    async def test_pushed_messages_are_no_answers(self) -> None:
        async def push(_command: list[bytes], writer: asyncio.StreamWriter) -> None:
            writer.write(b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\na\r\n$6\r\nanswer\r\n")

        async with Peer(push) as peer, running(peer.url) as runner:
            assert await asyncio.gather(*(runner.run("GET", b"key") for _ in range(3))) == [b"answer"] * 3


class TestAPausedServer:
    async def test_callers_beyond_what_a_line_takes_wait_and_end_in_time(self, server: RedisServer) -> None:
        async with running(server.url, connect=500, command=500) as runner:
            (primary,) = await runner.primaries()
            await runner.run("PING")
            server.pause()
            calls = [asyncio.create_task(runner.run("SET", b"key", b"x" * 10_000)) for _ in range(3000)]
            await asyncio.sleep(0.05)
            line = primary._main
            assert line is None or line.sent < 2000
            async with asyncio.timeout(LIMIT):
                outcomes = await asyncio.gather(*calls, return_exceptions=True)
            assert {type(outcome) for outcome in outcomes} <= {CacheTimeoutError, CacheUnavailableError}
            server.resume()
            await until(lambda: primary.breaker.is_closed)
            assert await runner.run("SET", b"key", b"1") == b"OK"

    async def test_a_command_that_never_left_is_repeated_even_if_it_must_not_happen_twice(
        self, server: RedisServer
    ) -> None:
        async with running(server.url) as runner:
            (primary,) = await runner.primaries()
            await runner.run("PING")
            count = asyncio.create_task(runner.run("INCR", b"count", repeatable=False))
            await asyncio.sleep(0)
            primary.abandon("the test wants it so")
            assert await count == 1
