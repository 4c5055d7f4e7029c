"""A server that fails again and again is left alone, and used again when it is back."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_layer.cache.commands import CommandRunner, NodeAccess
from data_layer.cache.wire.breaker import FAILURES_BEFORE_OPENING, LONGEST_PAUSE, BreakerState, CircuitBreaker
from data_layer.errors import CacheError, CacheTimeoutError, CacheUnavailableError
from data_layer.testing.redis_server import RedisServer
from tests.support import until

from .wire import LIMIT, Peer, running


def is_closed(breaker: CircuitBreaker) -> bool:
    """As it is now: mypy believes that a property stays as it was."""
    return breaker.is_closed


def state_of(something: CommandRunner | CircuitBreaker) -> BreakerState | None:
    """As it is now."""
    return something.breaker_state if isinstance(something, CommandRunner) else something.state


class TestCircuitBreaker:
    def test_it_opens_after_failures_in_a_row(self) -> None:
        breaker = CircuitBreaker(failures=3)
        breaker.note_failure()
        breaker.note_failure()
        breaker.note_answer()
        breaker.note_failure()
        breaker.note_failure()
        assert is_closed(breaker)
        breaker.note_failure()
        assert breaker.state is BreakerState.OPEN

    def test_after_an_attempt_one_failure_opens_it_until_a_command_was_answered(self) -> None:
        breaker = CircuitBreaker(failures=3)
        for _ in range(3):
            breaker.note_failure()
        breaker.try_again()
        assert state_of(breaker) is BreakerState.HALF_OPEN
        assert not is_closed(breaker)
        breaker.note_success_of_attempt()
        assert is_closed(breaker)
        breaker.note_failure()
        assert state_of(breaker) is BreakerState.OPEN
        breaker.note_success_of_attempt()
        breaker.note_answer()
        breaker.note_failure()
        assert is_closed(breaker)

    @given(st.integers(1, 60))
    def test_pauses_grow_to_a_limit_and_differ(self, number: int) -> None:
        breaker = CircuitBreaker(first_pause=0.1, longest_pause=2.0)
        pauses = [breaker.next_pause() for _ in range(number)]
        for position, pause in enumerate(pauses):
            longest = min(0.1 * 2**position, 2.0)
            assert longest / 2 <= pause <= longest
        breaker.note_answer()
        assert breaker.next_pause() <= 0.1


async def open_breaker(runner: CommandRunner) -> None:
    """Commands fail until the breaker is open."""
    (primary,) = await runner.primaries()
    while primary.breaker.is_closed:
        with pytest.raises(CacheError):
            await runner.run("GET", b"key")


class TestAServerThatIsGone:
    async def test_commands_are_refused_at_once_and_go_on_when_it_is_back(self, server: RedisServer) -> None:
        async with running(server.url) as runner, asyncio.timeout(LIMIT):
            await runner.run("SET", b"key", b"1")
            assert state_of(runner) is BreakerState.CLOSED
            server.kill()
            await open_breaker(runner)
            assert state_of(runner) is not BreakerState.CLOSED
            before = asyncio.get_running_loop().time()
            for _ in range(100):
                with pytest.raises(CacheUnavailableError, match="left alone"):
                    await runner.run("GET", b"key")
                    await runner.run_all([("GET", b"key")])
            # No attempt to connect is made for any of them, which would take longer than this.
            assert asyncio.get_running_loop().time() - before < LONGEST_PAUSE
            await asyncio.to_thread(server.start)
            await until(lambda: runner.breaker_state is BreakerState.CLOSED)
            assert await runner.run("GET", b"key") is None

    async def test_a_server_that_greets_and_then_says_nothing(self) -> None:
        async def be_silent(_command: list[bytes], _writer: asyncio.StreamWriter) -> None:
            pass

        async with Peer(be_silent, is_silent=True) as peer, running(peer.url, command=50) as runner:
            (primary,) = await runner.primaries()
            for _ in range(FAILURES_BEFORE_OPENING):
                with pytest.raises(CacheTimeoutError):
                    await runner.run("GET", b"key")
            assert peer.connections == FAILURES_BEFORE_OPENING
            # It greets, so the next attempt succeeds; but then one silent command is enough.
            await until(lambda: primary.breaker.is_closed)
            with pytest.raises(CacheTimeoutError):
                await runner.run("GET", b"key")
            assert not primary.breaker.is_closed

    async def test_what_must_come_first_comes_first(self, server: RedisServer) -> None:
        """The invalidations that a lost server missed, before anybody reads."""
        prepared: list[str] = []

        async def prepare(access: NodeAccess) -> None:
            assert access.owns(b"anything")
            prepared.append(access.name)
            await asyncio.sleep(0.05)
            await access.run("RPUSH", b"list", b"prepared")

        async with running(server.url) as runner, asyncio.timeout(LIMIT):
            runner.on_topology_change(prepare)
            await asyncio.gather(*(runner.run("RPUSH", b"list", b"used") for _ in range(10)))
            assert await runner.run("LINDEX", b"list", 0) == b"prepared"
            await asyncio.to_thread(server.restart)
            await asyncio.gather(*(runner.run("RPUSH", b"list", b"used") for _ in range(10)))
            assert await runner.run("LRANGE", b"list", 0, -1) == [b"prepared"] + [b"used"] * 10
            assert len(prepared) == 2

    async def test_a_server_that_cannot_be_made_ready_is_not_used(self, server: RedisServer) -> None:
        broken = True

        async def prepare(_access: NodeAccess) -> None:
            if broken:
                raise KeyError("a mistake in the program")

        async with running(server.url) as runner, asyncio.timeout(LIMIT):
            runner.on_topology_change(prepare)
            await open_breaker(runner)
            server.execute("SET", "key", "1")
            broken = False
            await until(lambda: runner.breaker_state is BreakerState.CLOSED)
            assert await runner.run("GET", b"key") == b"1"

    @pytest.mark.parametrize("turns", [0, 1, 2, 3, 5, 20])
    async def test_being_made_ready_again_and_again(self, server: RedisServer, turns: int) -> None:
        """As happens when a primary gets slots: nobody sends meanwhile, and everybody afterwards."""
        is_preparing = False

        async def prepare(access: NodeAccess) -> None:
            nonlocal is_preparing
            is_preparing = True
            await access.run("SET", b"state", b"closed")
            await asyncio.sleep(0.01)
            await access.run("SET", b"state", b"open")
            is_preparing = False

        async with running(server.url) as runner, asyncio.timeout(LIMIT):
            runner.on_topology_change(prepare)
            await runner.run("PING")
            (primary,) = await runner.primaries()
            readers = []
            for _ in range(10):
                readers += [asyncio.create_task(runner.run("GET", b"state")) for _ in range(5)]
                primary.prepare_again()
                for _ in range(turns):
                    await asyncio.sleep(0)
                readers.append(asyncio.create_task(runner.run("SET", b"large", b"L" * 100_000)))
            answers = set(await asyncio.gather(*readers))
            assert answers == {b"open", b"OK"}
            assert not is_preparing
