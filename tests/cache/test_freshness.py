"""The proof that the near copy is fresh: what it takes, how soon it comes in a busy loop, and who waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from time import monotonic
from typing import Any

import pytest

from data_layer.cache import Cache, tracking
from data_layer.cache.tracking import Prover
from data_layer.cache.wire.connection import Connection
from data_layer.testing.redis_server import RedisServer
from tests.cache.conftest import CacheAt
from tests.support import until

LONG = 1000
KEYS = [f"key-{number}" for number in range(100)]
READS = ("mget", "get", "pttl", "evalsha", "eval")
Confirm = Callable[[], None]


def reads(server: RedisServer) -> int:
    """How many commands that read values the server has carried out."""
    figures = server.info("commandstats")
    lines = (figures.get(f"cmdstat_{name}", "calls=0") for name in READS)
    return sum(int(line.removeprefix("calls=").partition(",")[0]) for line in lines)


class Questions:
    """Counts the questions of proofs, and keeps them from being asked while ``is_holding``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self.is_holding = False
        self._held: list[Callable[[], None]] = []
        ask = Connection.ask_role

        def ask_role(connection: Connection, confirmed: Confirm) -> None:
            self.count += 1
            if self.is_holding:
                self._held.append(lambda: ask(connection, confirmed))
            else:
                ask(connection, confirmed)

        monkeypatch.setattr(Connection, "ask_role", ask_role)

    def release(self) -> None:
        self.is_holding = False
        for ask in self._held:
            ask()


@pytest.fixture
def questions(monkeypatch: pytest.MonkeyPatch) -> Questions:
    """Trust that lasts until a test ends it, and no proof but the first unless somebody asks for it."""
    monkeypatch.setattr(tracking, "TRUST_SECONDS", LONG)
    monkeypatch.setattr(tracking, "_PAUSE_SECONDS", LONG)
    monkeypatch.setattr(tracking, "_PATIENCE_SECONDS", LONG)
    return Questions(monkeypatch)


@pytest.fixture
async def cache(questions: Questions, shared_server: RedisServer, cache_at: CacheAt) -> AsyncIterator[Cache]:
    """Holds all keys near."""
    assert not questions.count
    async with cache_at(shared_server.url) as opened:
        await opened.client.flushall()
        await until(lambda: opened._parts.near.is_answering)
        await opened.set_many(dict.fromkeys(KEYS, "value"), 600)
        await until_all_are_near(opened)
        yield opened


async def until_all_are_near(cache: Cache) -> None:
    near = cache._parts.near
    for _ in range(LONG):
        hits = near.hits
        await cache.get_many(KEYS)
        if near.hits == hits + len(KEYS):
            return
        await cache.exists("key")  # Meanwhile the report of what was set arrives.
    pytest.fail("the keys are not kept near")


def silence(cache: Cache) -> None:
    """As if the event loop had stood still for longer than a proof lasts."""
    cache._parts.near.trusted_until = monotonic()


class TestReadersOfASilentCopy:
    async def test_share_one_proof_and_ask_for_no_value(
        self, cache: Cache, questions: Questions, shared_server: RedisServer
    ) -> None:
        near = cache._parts.near
        silence(cache)
        asked, hits, read = questions.count, near.hits, reads(shared_server)
        found = await asyncio.gather(*(cache.get_many(KEYS) for _ in range(32)))
        assert found == [dict.fromkeys(KEYS, "value")] * 32
        assert questions.count == asked + 2
        assert near.hits == hits + 32 * len(KEYS)
        assert reads(shared_server) == read
        assert near.is_answering

    async def test_of_one_key_too(self, cache: Cache, questions: Questions, shared_server: RedisServer) -> None:
        async def load() -> object:
            pytest.fail("what is near is not loaded")

        kinds: list[Callable[[], Coroutine[Any, Any, Any]]] = [
            lambda: cache.get(KEYS[0]),
            lambda: cache.get_or_load(KEYS[0], load, 600),
        ]
        for read in kinds:
            silence(cache)
            asked, before = questions.count, reads(shared_server)
            assert await asyncio.gather(*(read() for _ in range(32))) == ["value"] * 32
            assert questions.count == asked + 2
            assert reads(shared_server) == before

    async def test_see_what_was_changed_before_they_asked(self, cache: Cache, shared_server: RedisServer) -> None:
        for number in range(100):
            await asyncio.to_thread(shared_server.execute, "SET", f"stc:{KEYS[0]}", str(number))
            silence(cache)
            assert await cache.get(KEYS[0]) == number
            await until_all_are_near(cache)

    async def test_do_not_wait_for_a_proof_of_what_the_copy_does_not_hold(
        self, cache: Cache, questions: Questions
    ) -> None:
        silence(cache)
        asked = questions.count
        assert await cache.get("absent") is None
        assert await cache.get_many(["absent"]) == {}
        assert questions.count == asked

    async def test_ask_again_where_the_first_question_was_asked_too_long_ago(
        self, cache: Cache, questions: Questions, shared_server: RedisServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The loop stood still between a question and its answer."""
        questions.is_holding = True
        silence(cache)
        reading = asyncio.create_task(cache.get_many(KEYS))
        prover = cache._parts.tracking._prover
        assert prover is not None
        await until(lambda: prover._unanswered > 0)
        prover._asked -= LONG
        read = reads(shared_server)
        monkeypatch.setattr(tracking, "_PAUSE_SECONDS", LONG * 3)  # The usual next proof does not come now.
        questions.release()
        assert await reading == dict.fromkeys(KEYS, "value")
        assert reads(shared_server) == read

    async def test_ask_for_the_values_where_no_proof_comes_and_wait_only_once(
        self, cache: Cache, questions: Questions, shared_server: RedisServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tracking, "_PATIENCE_SECONDS", 0)
        questions.is_holding = True
        silence(cache)
        read = reads(shared_server)
        assert await cache.get_many(KEYS) == dict.fromkeys(KEYS, "value")
        assert reads(shared_server) > read

        async def wait_for_nothing(_: Prover) -> bool:
            pytest.fail("nobody waits for a proof that does not come")

        with monkeypatch.context() as patched:
            patched.setattr(Prover, "prove", wait_for_nothing)
            assert await cache.get_many(KEYS) == dict.fromkeys(KEYS, "value")
        questions.release()
        await until(lambda: cache._parts.near.is_answering)
        silence(cache)
        asked = questions.count
        assert await cache.get(KEYS[0]) == "value"
        assert questions.count == asked + 2

    async def test_are_released_when_the_listening_connection_is_lost(self, cache: Cache, questions: Questions) -> None:
        questions.is_holding = True
        silence(cache)
        reading = asyncio.create_task(cache.get_many(KEYS))
        tracker = cache._parts.tracking
        await until(lambda: tracker._prover is not None and tracker._prover._unanswered > 0)
        await cache.client.execute_command("CLIENT", "KILL", "TYPE", "pubsub", "SKIPME", "yes")
        await cache.client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        assert await reading == dict.fromkeys(KEYS, "value")


class Asked:
    """A connection that confirms when a test says so."""

    def __init__(self) -> None:
        self.questions: list[Confirm] = []

    def ask_role(self, confirmed: Confirm) -> None:
        self.questions.append(confirmed)

    def confirm(self) -> None:
        self.questions.pop(0)()


class TestAProof:
    @pytest.fixture
    def connections(self) -> list[Asked]:
        return [Asked(), Asked()]

    @pytest.fixture
    def moments(self) -> list[float]:
        return []

    @pytest.fixture
    async def prover(self, connections: list[Asked], moments: list[float]) -> AsyncIterator[Prover]:
        prover = Prover(connections, moments.append)  # type: ignore[arg-type]
        yield prover
        prover.close()

    async def test_takes_two_answers_of_every_connection_and_counts_from_before_the_first_question(
        self, prover: Prover, connections: list[Asked], moments: list[float]
    ) -> None:
        before = monotonic()
        prover.ask()
        asked = monotonic()
        for connection in (0, 1, 1, 0):
            assert not moments
            connections[connection].confirm()
        assert len(moments) == 1
        assert before <= moments[0] <= asked

    async def test_is_shared_and_survives_a_waiter_that_is_cancelled(
        self, prover: Prover, connections: list[Asked]
    ) -> None:
        waiters = [asyncio.create_task(prover.prove()) for _ in range(3)]
        await until(lambda: all(connection.questions for connection in connections))
        waiters[0].cancel()
        await asyncio.wait(waiters[:1])
        assert [len(connection.questions) for connection in connections] == [1, 1]
        for connection in (*connections, *connections):
            connection.confirm()
        assert await asyncio.gather(*waiters[1:]) == [True, True]

    async def test_that_took_longer_than_the_pause_is_followed_by_the_next_at_once(
        self, prover: Prover, connections: list[Asked], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tracking, "_PAUSE_SECONDS", 0)
        prover.ask()
        for connection in (*connections, *connections):
            connection.confirm()
        assert [len(connection.questions) for connection in connections] == [1, 1]

    async def test_that_never_comes_ends_with_the_prover(
        self, prover: Prover, connections: list[Asked], moments: list[float]
    ) -> None:
        waiter = asyncio.create_task(prover.prove())
        await until(lambda: all(connection.questions for connection in connections))
        prover.close()
        assert await waiter is False
        for connection in (*connections, *connections):
            connection.confirm()
        assert not moments
        assert not await prover.prove()


class Transport(asyncio.Transport):
    """Collects what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []

    def write(self, data: Any) -> None:
        self.written.append(bytes(data))

    def abort(self) -> None:
        pass


class TestAQuestion:
    """In one turn of the event loop: no task of a busy loop comes between."""

    HELLO = b"*1\r\n$5\r\nHELLO\r\n"
    MASTER = b"%1\r\n$4\r\nrole\r\n$6\r\nmaster\r\n"

    @pytest.fixture
    async def transport(self) -> Transport:
        return Transport()

    @pytest.fixture
    async def connection(self, transport: Transport) -> AsyncIterator[Connection]:
        connection = Connection("server", LONG)
        connection.connection_made(transport)
        yield connection
        connection.close()

    async def test_is_written_and_its_answer_read_without_another_turn(
        self, connection: Connection, transport: Transport
    ) -> None:
        confirmed: list[bool] = []
        connection.ask_role(lambda: confirmed.append(True))
        assert transport.written == [self.HELLO]
        connection.data_received(self.MASTER)
        assert confirmed == [True]

    async def test_overtakes_nothing(self, connection: Connection, transport: Transport) -> None:
        confirmed: list[bool] = []
        for _ in range(2):
            answer = connection.send(b"command")
            connection.ask_role(lambda: confirmed.append(True))
            connection.data_received(b"+OK\r\n")
            assert answer.result() == b"OK"
            connection.data_received(self.MASTER)
        assert transport.written == [b"command", self.HELLO] * 2
        assert confirmed == [True, True]

    async def test_waits_with_what_is_held_back(self, connection: Connection, transport: Transport) -> None:
        confirmed: list[bool] = []
        connection.watch_role()
        connection.require_proof()
        answer = connection.send(b"command")
        connection.ask_role(lambda: confirmed.append(True))
        assert transport.written == [self.HELLO]  # The question to which an answer is required.
        connection.data_received(self.MASTER)
        assert transport.written == [self.HELLO, b"command" + self.HELLO]
        connection.data_received(b"+OK\r\n" + self.MASTER)
        assert answer.result() == b"OK"
        assert confirmed == [True]

    @pytest.mark.parametrize("answer", [MASTER.replace(b"master", b"slaves"), b"%0\r\n", b"-NOPERM no\r\n", b"+OK\r\n"])
    async def test_ends_the_connection_where_the_server_does_not_say_that_it_is_a_primary(
        self, connection: Connection, answer: bytes
    ) -> None:
        connection.ask_role(lambda: pytest.fail("this is no confirmation"))
        connection.data_received(answer)
        assert connection.is_closed

    async def test_is_not_confirmed_by_the_end_of_the_connection(self, connection: Connection) -> None:
        connection.ask_role(lambda: pytest.fail("this is no confirmation"))
        connection.close()
        connection.ask_role(lambda: pytest.fail("nothing is asked any longer"))
