"""Changes of rows, and what becomes of the keys that were made from them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test
from psycopg import OperationalError

from data_layer import DataLayer
from data_layer.cache import Cache, markers, write_intents
from data_layer.cache.codec import INTENTS, VERSION
from data_layer.cache.commands import Script
from data_layer.cache.write_intents import TransactionKeys
from data_layer.config import Settings
from data_layer.database.driver import DriverConnection
from data_layer.database.transaction import COMMIT
from data_layer.errors import CacheError, CacheUnavailableError, CommitUnknownError, InvalidCacheKeyError
from data_layer.repositories.unit_of_work import CommitHooks, UnitOfWork
from data_layer.schemas.base import Outcome
from data_layer.testing.redis_server import RedisServer
from tests.cache.conftest import CacheAt
from tests.support import make_user

LONG = 20
_INTENTS = VERSION + bytes((INTENTS,))


def loader(value: Any) -> Any:
    async def load() -> Any:
        return value

    return load


async def announce(cache: Cache, *keys: str) -> TransactionKeys:
    changed = cache.transaction_keys()
    changed.add(*keys)
    await changed.before_commit()
    return changed


def has_pending(cache: Cache) -> bool:
    return cache._parts.intents.has_pending


async def until_told(cache: Cache) -> None:
    while has_pending(cache):
        await asyncio.sleep(0.01)


class TestOneWriter:
    async def test_between_intent_and_outcome_nothing_is_stored(self, cache: Cache, other: Cache) -> None:
        await cache.set("key", "old", 60)
        assert await other.get("key") == "old"
        changed = await announce(cache, "key", "absent")
        for reader in (cache, other):
            assert await reader.get_or_load("key", loader("old"), 60) == "old"
            assert await reader.get_or_load("absent", loader("old"), 60) == "old"
        assert await cache.get_many(["key", "absent"]) == {}
        changed.after(Outcome.COMMITTED)
        assert await cache.get("key") is None
        assert await other.get_or_load("key", loader("new"), 60) == "new"
        assert await cache.get("key") == "new"

    async def test_many_keys_at_once(self, cache: Cache, other: Cache) -> None:
        names = [f"key-{number}" for number in range(50)]
        await cache.set_many(dict.fromkeys(names, "old"), 60)
        changed = await announce(cache, *names)
        assert await other.get_many(names) == {}
        for name in names[:2]:
            assert await other.get_or_load(name, loader("old"), 60) == "old"
        changed.after(Outcome.COMMITTED)
        assert await cache.get_many(names) == {}
        for name in names[:2]:
            assert await other.get_or_load(name, loader("new"), 60) == "new"
        assert await cache.get_many(names) == dict.fromkeys(names[:2], "new")

    async def test_what_is_stored_after_the_outcome_stays(self, cache: Cache) -> None:
        for number in range(20):
            changed = await announce(cache, "key")
            changed.after(Outcome.COMMITTED)
            await cache.set("key", number, 60)
            assert await cache.get("key") == number

    async def test_a_load_that_began_before_is_not_stored_after(self, cache: Cache, other: Cache) -> None:
        may_end, has_begun = asyncio.Event(), asyncio.Event()

        async def load() -> str:
            has_begun.set()
            await may_end.wait()
            return "old"

        late = asyncio.create_task(other.get_or_load("key", load, 60))
        await has_begun.wait()
        changed = await announce(cache, "key")
        changed.after(Outcome.COMMITTED)
        may_end.set()
        assert await late == "old"
        assert await cache.get("key") is None
        assert await other.get("key") is None

    async def test_for_everybody_else_the_key_is_absent(self, cache: Cache) -> None:
        await announce(cache, "key")
        assert not await cache.exists("key")
        assert await cache.ttl("key") is None
        assert not await cache.expire("key", 1)
        assert not await cache.touch("key", 1000)
        assert not await cache.delete("key")
        assert await cache.flush() == 0
        assert await cache.cleanup() == 0
        assert [key async for key in cache.keys("*")] == []
        assert await cache.get_or_load("key", loader(1), 60) == 1
        assert await cache.get("key") is None, "delete and flush have left the intent alone"
        assert await cache.increment("key", 5, ttl=60) == 5
        await announce(cache, "key")
        assert await cache.add("key", "added", 60)
        assert await cache.get("key") == "added"
        await announce(cache, "key")
        await cache.set("key", "set", 60)
        assert await cache.get("key") == "set"

    async def test_an_intent_of_the_dead_ends_with_its_deadline(
        self, cache: Cache, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(write_intents, "INTENT_SECONDS", 1.0)
        await announce(cache, "key")
        assert await cache.get_or_load("key", loader(1), 60) == 1
        assert await cache.get("key") is None
        await asyncio.sleep(1.1)
        assert await cache.get_or_load("key", loader(2), 60) == 2
        assert await cache.get("key") == 2

    async def test_an_undecided_change_keeps_its_intent(self, cache: Cache) -> None:
        changed = await announce(cache, "key")
        changed.after(Outcome.UNKNOWN)
        assert await cache.get_or_load("key", loader(1), 60) == 1
        assert await cache.get("key") is None

    async def test_a_full_server_loses_the_old_value_all_the_same(self, cache_at: CacheAt) -> None:
        with RedisServer(unix_socket=True) as server:
            async with cache_at(server.url) as cache:
                await cache.set("key", "old", 60)
                await cache.client.config_set("maxmemory", "1")
                changed = await announce(cache, "key")
                assert await cache.client.exists(cache._namespace.key("key")) == 0
                assert await cache.get_or_load("key", loader("new"), 60) == "new"
                changed.after(Outcome.COMMITTED)
                await cache.client.config_set("maxmemory", "0")
                assert await cache.get_or_load("key", loader("newer"), 60) == "newer"
                assert await cache.get("key") == "newer"


class TestManyWriters:
    """The intents of one key, as the server keeps them."""

    @staticmethod
    async def eval(cache: Cache, script: Script, *arguments: bytes | int) -> None:
        await cache._commands.eval(script, cache._namespace.key("key"), *arguments)

    @staticmethod
    async def intents(cache: Cache) -> list[tuple[bytes, int]]:
        text = await cache._commands.run("GET", cache._namespace.key("key")) or _INTENTS
        assert text.startswith(_INTENTS)
        size = markers.TOKEN_SIZE
        intents = [text[start : start + size + 13] for start in range(len(_INTENTS), len(text), size + 13)]
        return [(intent[:size], int(intent[size:])) for intent in intents]

    async def writers(self, cache: Cache) -> list[bytes]:
        return [token for token, _ in await self.intents(cache)]

    async def test_each_removes_its_own_wherever_it_stands(self, cache: Cache) -> None:
        dead, *writers = (markers.new_token() for _ in range(5))
        await cache._commands.run("SET", cache._namespace.key("key"), _INTENTS + dead + b"0000000000001")
        for writer in writers:
            await self.eval(cache, markers.ANNOUNCE, writer, 60_000)
        first, second, third, fourth = writers
        assert await self.writers(cache) == writers, "the intent past its deadline is gone"
        await self.eval(cache, markers.SETTLE, second)
        await self.eval(cache, markers.SETTLE, second)
        await self.eval(cache, markers.SETTLE, b"")
        assert await self.writers(cache) == [first, third, fourth]
        await self.eval(cache, markers.ANNOUNCE, first, 60_000)
        assert await self.writers(cache) == [third, fourth, first]
        for writer in (first, third):
            await self.eval(cache, markers.SETTLE, writer)
        assert await self.writers(cache) == [fourth]
        await self.eval(cache, markers.SETTLE, fourth)
        assert await cache._commands.run("EXISTS", cache._namespace.key("key")) == 0

    async def test_their_deadlines_are_in_order_also_after_the_clock_went_back(self, cache: Cache) -> None:
        early, late = markers.new_token(), markers.new_token()
        await self.eval(cache, markers.ANNOUNCE, early, 600_000)
        await self.eval(cache, markers.ANNOUNCE, late, 60_000)
        (_, before), (_, after) = await self.intents(cache)
        assert before <= after
        await self.eval(cache, markers.SETTLE, late)
        assert await cache._commands.run("PTTL", cache._namespace.key("key")) > 500_000


class TestWithoutRedis:
    async def test_what_cannot_be_told_is_told_before_anything_is_read(self, cache_at: CacheAt) -> None:
        with RedisServer(unix_socket=True, options=["save 3600 1"]) as server:
            async with cache_at(server.url, command=700) as cache, cache_at(server.url) as witness:
                await witness.set("key", "old", 600)
                await witness.set("kept", "value", 600)
                assert await cache.get("key") == "old"
                server.pause()
                changed = await announce(cache, "key")
                changed.after(Outcome.COMMITTED)
                await cache.invalidate("key")
                assert has_pending(cache)
                assert await cache.get_or_load("key", loader("new"), 60) == "new"
                with pytest.raises(CacheError):
                    await cache.get("key")
                server.resume()
                async with asyncio.timeout(LONG):
                    while True:
                        try:
                            assert await cache.get("key") in {None, "new"}
                            break
                        except CacheError:
                            await asyncio.sleep(0.01)
                    await until_told(cache)
                    while await witness.get("key") == "old":
                        await asyncio.sleep(0.01)
                assert await witness.get("kept") == "value"

    async def test_too_many_keys_to_remember_are_all_keys(
        self, cache_at: CacheAt, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(write_intents, "MOST_REMEMBERED", 10)
        with RedisServer(unix_socket=True) as server:
            async with cache_at(server.url, command=700) as cache, cache_at(server.url) as witness:
                await witness.set_many({f"key-{number}": "old" for number in range(50)}, 600)
                await cache.check()
                server.pause()
                await cache.invalidate(*(f"key-{number}" for number in range(30)))
                assert cache._parts.intents.pending == -1
                assert not cache._parts.intents._pending  # Memory is bounded: all keys stand for each.
                with pytest.raises(CacheUnavailableError):
                    await cache.get("key-40")
                server.resume()
                async with asyncio.timeout(LONG):
                    await until_told(cache)
                    while await witness.get_many([f"key-{number}" for number in range(50)]):
                        await asyncio.sleep(0.01)

    async def test_an_announcement_that_times_out_is_made_up_for_before_the_commit_is_decided(
        self, cache_at: CacheAt
    ) -> None:
        with RedisServer(unix_socket=True) as server:
            async with cache_at(server.url, command=700) as cache, cache_at(server.url) as other:
                await cache.set("key", "old", 60)
                server.pause()
                changed = await announce(cache, "key")
                assert cache._parts.intents.pending == 1
                server.resume()
                async with asyncio.timeout(LONG):
                    await until_told(cache)
                # The transaction is still open: nobody may store what is about to be replaced.
                assert await other.get_or_load("key", loader("old"), 60) == "old"
                assert await other.get("key") is None
                changed.after(Outcome.COMMITTED)
                assert await cache.get("key") is None, "what this process asks comes behind the outcome"
                assert await other.get_or_load("key", loader("new"), 60) == "new"
                assert await other.get("key") == "new"

    async def test_nobody_waits_for_the_outcome_to_arrive(self, cache_at: CacheAt) -> None:
        with RedisServer(unix_socket=True) as server:
            async with cache_at(server.url, command=2000) as cache, cache_at(server.url) as other:
                await cache.set("key", "old", 60)
                changed = await announce(cache, "key")
                server.pause()
                changed.after(Outcome.COMMITTED)  # No coroutine: it cannot wait.
                server.resume()
                assert await cache.get("key") is None
                assert await other.get_or_load("key", loader("new"), 60) == "new"
                assert await cache.get("key") == "new"

    async def test_writing_costs_one_time_limit_at_most(self, cache_at: CacheAt) -> None:
        with RedisServer(unix_socket=True) as server:
            async with cache_at(server.url, connect=300, command=700) as cache:
                await cache.check()
                server.pause()
                async with asyncio.timeout(LONG):
                    for number in range(20):
                        changed = await announce(cache, f"key-{number}")
                        changed.after(Outcome.COMMITTED)
                server.resume()


class TestTransactions:
    async def test_a_commit_takes_the_keys_away_and_a_rollback_too(self, data: DataLayer) -> None:
        for rolls_back in (False, True):
            await data.cache.set("key", "old", 60)
            try:
                async with data.transaction() as tx:
                    tx.add(make_user())
                    tx.invalidate("key", "another")
                    assert await data.cache.get("key") == "old"
                    if rolls_back:
                        raise LookupError  # noqa: TRY301
            except LookupError:
                assert await data.cache.get("key") == "old"  # Nothing was announced: nothing can have changed.
            else:
                assert await data.cache.get("key") is None
            assert await data.cache.get_or_load("key", loader("new"), 60) in {"new", "old"}

    async def test_a_failing_commit_gives_the_keys_back(self, data: DataLayer) -> None:
        user = make_user()
        async with data.transaction() as tx:
            tx.add(user)
        with pytest.raises(Exception, match="email"):
            async with data.transaction() as tx:
                tx.add(make_user(email=user.email))
                tx.invalidate("key")
        assert await data.cache.get_or_load("key", loader(1), 60) == 1
        assert await data.cache.get("key") == 1

    async def test_an_unknown_commit_keeps_the_intent(self, data: DataLayer, monkeypatch: pytest.MonkeyPatch) -> None:
        execute = DriverConnection.execute

        async def break_at_commit(self: DriverConnection, sql: Any, *values: Any, **options: Any) -> Any:
            if sql == COMMIT:
                self.pgconn.finish()
                raise OperationalError("the connection broke")
            return await execute(self, sql, *values, **options)

        with pytest.raises(CommitUnknownError):
            async with data.transaction() as tx:
                tx.add(make_user())
                await tx.flush()  # Otherwise the row and the commit are one round trip.
                tx.invalidate("undecided")
                monkeypatch.setattr(DriverConnection, "execute", break_at_commit)
        assert await data.cache.get_or_load("undecided", loader(1), 60) == 1
        assert await data.cache.get("undecided") is None

    async def test_a_cancelled_commit_leaves_no_intent(self, data: DataLayer) -> None:
        for delay in (0.0, 0.001, 0.002, 0.004, 0.008):

            async def write() -> None:
                async with data.transaction() as tx:
                    tx.add(make_user())
                    tx.invalidate("key")

            task = asyncio.create_task(write())
            await asyncio.sleep(delay)
            task.cancel()
            await asyncio.wait([task])
            assert await data.cache.get_or_load("key", loader(1), 60) == 1
            assert await data.cache.get("key") == 1

    async def test_bad_keys_are_refused_at_once(self, data: DataLayer) -> None:
        async with data.transaction() as tx:
            with pytest.raises(InvalidCacheKeyError):
                tx.invalidate("")

    async def test_a_write_goes_on_without_redis(self, data: DataLayer, cache_at: CacheAt) -> None:
        user = make_user()
        with RedisServer(unix_socket=True) as server:
            async with cache_at(server.url, connect=300, command=700) as broken:
                server.kill()
                hooks = CommitHooks(changed_keys=broken.transaction_keys)
                async with UnitOfWork(data.database, hooks) as tx:
                    tx.add(user)
                    tx.invalidate("key")
        async with data.transaction() as tx:
            assert await tx.users.find_one(email=user.email) is not None


class IntentMachine(RuleBasedStateMachine):
    """One row, several writers and readers, whose steps are interleaved in every way, over a real server.

    Writers: announce, commit, settle; one who dies in between does nothing more. Readers: take a lease, load, fill, or
    give it back, or die. What is in the cache must be the row, and while a writer is at work there is nothing.
    """

    runner: asyncio.Runner
    cache: Cache

    def __init__(self) -> None:
        super().__init__()
        self.key = self.cache._namespace.key("key")
        self.run(self.cache._commands.run("UNLINK", self.key))
        self.row = 0
        self.writers: list[bytes] = []
        self.readers: list[tuple[bytes, int]] = []

    def run(self, work: Any) -> Any:
        return self.runner.run(work)

    def eval(self, script: Any, *arguments: Any) -> Any:
        return self.run(self.cache._commands.eval(script, self.key, *arguments))

    @precondition(lambda self: len(self.writers) < 4)
    @rule()
    def announce(self) -> None:
        self.writers.append(markers.new_token())
        self.eval(markers.ANNOUNCE, self.writers[-1], 60_000)

    @precondition(lambda self: self.writers)
    @rule(data=st.data())
    def commit(self, data: st.DataObject) -> None:
        """The writer dies afterwards, or settles later."""
        data.draw(st.sampled_from(self.writers))
        self.row += 1
        self.read()

    @precondition(lambda self: self.writers)
    @rule(data=st.data(), commits=st.booleans())
    def settle(self, data: st.DataObject, commits: bool) -> None:  # noqa: FBT001
        """After the commit, or because there is none."""
        writer = data.draw(st.sampled_from(self.writers))
        self.row += commits
        self.writers.remove(writer)
        self.eval(markers.SETTLE, writer)

    @rule(force=st.booleans())
    def take(self, force: bool) -> None:  # noqa: FBT001
        token = markers.new_token()
        if self.eval(markers.TAKE_LEASE, token, 60_000, int(force)) == markers.FREE:
            assert not self.writers
            self.readers.append((token, self.row))  # What is loaded now, and stored some time.

    @precondition(lambda self: self.readers)
    @rule(data=st.data())
    def fill(self, data: st.DataObject) -> None:
        token, version = data.draw(st.sampled_from(self.readers))
        self.eval(markers.FILL, token, b"%d" % version, 60_000)
        self.read()

    @precondition(lambda self: self.readers)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        self.eval(markers.RETURN_LEASE, data.draw(st.sampled_from(self.readers))[0])

    @rule()
    def delete(self) -> None:
        self.run(self.cache.delete("key"))

    @rule()
    def read(self) -> None:
        found = self.run(self.cache.get("key"))
        assert found is None or (found == self.row and not self.writers)


@pytest.mark.slow
def test_no_interleaving_leaves_an_old_value(shared_server: RedisServer) -> None:
    with asyncio.Runner() as runner:
        IntentMachine.runner = runner
        IntentMachine.cache = Cache(Settings(redis_near_size=0, redis_command_timeout=5000).redis, shared_server.url)
        runner.run(IntentMachine.cache.open())
        run_state_machine_as_test(
            IntentMachine,
            settings=hypothesis_settings(max_examples=200, stateful_step_count=30, deadline=None, database=None),
        )
        runner.run(IntentMachine.cache.close())
