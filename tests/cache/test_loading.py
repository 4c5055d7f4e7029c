"""Reads through the cache: one load for many callers, and nothing stored that changed meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from time import monotonic
from typing import Any, cast

import pytest
from pydantic import BaseModel
from redis.asyncio import Redis

from data_layer.cache import Cache, loading, markers
from data_layer.cache.codec import is_marker
from data_layer.cache.commands import Script
from data_layer.concurrency import Background
from data_layer.config import Settings
from data_layer.errors import CacheUnavailableError, InvalidCacheValueError, NotInitializedError
from data_layer.testing.redis_server import RedisServer
from tests.cache.conftest import CacheAt

LONG = 20
"""Seconds after which a test that waits in vain fails."""


class Source:
    """A row of a database: it is read at the beginning of a load, which then takes as long as the test wants."""

    def __init__(self, value: Any = "value") -> None:
        self.value = value
        self.loads = 0
        self.is_read = asyncio.Event()
        self.may_end = asyncio.Event()
        self.may_end.set()

    async def load(self) -> Any:
        self.loads += 1
        value = self.value
        self.is_read.set()
        await self.may_end.wait()
        return value

    def hold(self) -> None:
        self.is_read.clear()
        self.may_end.clear()


class Page(BaseModel):
    title: str
    parts: list[int] = []


async def until_waiting(source: Source) -> None:
    async with asyncio.timeout(LONG):
        await source.is_read.wait()


async def test_it_loads_once_and_finds_it_afterwards(cache: Cache, other: Cache) -> None:
    source = Source({"a": (1, 2)})
    for reader in (cache, other, cache, other):
        assert await reader.get_or_load("key", source.load, 60) == {"a": [1, 2]}
    assert source.loads == 1
    assert await cache.get("key") == {"a": [1, 2]}


async def test_models_come_by_type_and_none_is_a_value(cache: Cache) -> None:
    source, nothing = Source(Page(title="Home")), Source(None)
    for _ in range(3):
        page = await cache.get_or_load("page", source.load, 60, as_type=Page)
        assert page == Page(title="Home")
        page.parts.append(1)
        assert await cache.get_or_load("nothing", nothing.load, 60, as_type=Page) is None
    assert (source.loads, nothing.loads) == (1, 1)


async def test_many_callers_share_one_load_and_no_object(cache: Cache) -> None:
    source = Source([1])
    source.hold()
    calls = [asyncio.create_task(cache.get_or_load("key", source.load, 60)) for _ in range(50)]
    await until_waiting(source)
    calls += [asyncio.create_task(cache.get_or_load("key", source.load, 60)) for _ in range(50)]
    await asyncio.sleep(0.05)
    source.may_end.set()
    values = await asyncio.gather(*calls)
    assert values == [[1]] * 100
    assert len({id(value) for value in values}) == 100
    assert source.loads == 1


async def test_many_processes_share_one_load(cache: Cache, shared_server: RedisServer, cache_at: CacheAt) -> None:
    source = Source()
    source.hold()
    async with (
        cache_at(shared_server.url, redis_near_size=0) as without_near_copy,
        cache_at(shared_server.url) as with_one,
    ):
        calls = [
            asyncio.create_task(reader.get_or_load("key", source.load, 60))
            for reader in (cache, with_one, without_near_copy)
        ]
        await until_waiting(source)
        await asyncio.sleep(loading.LEASE_SECONDS + 0.5)  # Longer than a lease: it is renewed, and never for longer.
        assert 0 < await cache.client.pttl(cache._namespace.key("key")) <= loading.LEASE_SECONDS * 1000
        source.may_end.set()
        assert await asyncio.gather(*calls) == ["value"] * 3
    assert source.loads == 1


async def test_a_lease_is_not_renewed_after_its_load(cache: Cache) -> None:
    scripts: list[Script] = []
    run = cache._commands.eval

    async def note(script: Script, *arguments: Any, **options: Any) -> Any:
        scripts.append(script)
        return await run(script, *arguments, **options)

    async def fail() -> None:
        await asyncio.sleep(loading.LEASE_SECONDS / 2)
        raise ValueError

    cache._commands.eval = note  # type: ignore[method-assign]
    assert await cache.get_or_load("key", Source().load, 60) == "value"
    with suppress(ValueError):
        await cache.get_or_load("other", fail, 60)
    assert markers.RENEW_LEASE in scripts
    scripts.clear()
    await asyncio.sleep(loading.LEASE_SECONDS / 2)
    assert markers.RENEW_LEASE not in scripts


async def test_the_lease_of_a_dead_process_is_waited_for_and_then_taken(cache: Cache) -> None:
    redis_key = cache._namespace.key("key")
    await cache._commands.eval(markers.TAKE_LEASE, redis_key, markers.new_token(), 1000, 0)
    source = Source()
    call = asyncio.create_task(cache.get_or_load("key", source.load, 60))
    await asyncio.sleep(0.1)
    assert source.loads == 0
    assert await call == "value"
    assert await cache.get("key") == "value"


async def test_what_changes_while_it_is_loaded_is_not_stored(cache: Cache, other: Cache) -> None:
    source = Source("old")
    source.hold()
    early = asyncio.create_task(cache.get_or_load("key", source.load, 60))
    await until_waiting(source)
    source.value = "new"
    await other.invalidate("key")
    late = asyncio.create_task(cache.get_or_load("key", source.load, 60))
    await asyncio.sleep(0.05)
    source.may_end.set()
    assert await early == "old"  # It began before the change.
    assert await late == "new"
    assert await cache.get_or_load("key", source.load, 60) == "new"


async def test_a_value_that_is_set_meanwhile_is_kept(cache: Cache, other: Cache) -> None:
    source = Source("loaded")
    source.hold()
    call = asyncio.create_task(cache.get_or_load("key", source.load, 60))
    await until_waiting(source)
    await other.set("key", "set", 60)
    source.may_end.set()
    await call
    assert await cache.get("key") == "set"


async def test_an_exception_goes_to_all_and_nothing_is_stored(cache: Cache) -> None:
    loads = 0

    async def fail() -> str:
        nonlocal loads
        loads += 1
        await asyncio.sleep(0.01)
        raise LookupError("no such row")

    calls = [cache.get_or_load("key", fail, 60) for _ in range(10)]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {LookupError}
    assert loads == 1
    source = Source()
    async with asyncio.timeout(loading.LEASE_SECONDS / 2):  # The lease was given back.
        assert await cache.get_or_load("key", source.load, 60) == "value"


async def test_one_cancelled_caller_does_not_end_the_load_and_the_last_one_does(cache: Cache) -> None:
    source = Source()
    source.hold()
    impatient, patient = (asyncio.create_task(cache.get_or_load("key", source.load, 60)) for _ in range(2))
    await until_waiting(source)
    impatient.cancel()
    with pytest.raises(asyncio.CancelledError):
        await impatient
    source.may_end.set()
    assert await patient == "value"

    cancelled = asyncio.Event()

    async def note_cancellation() -> None:
        source.is_read.set()
        try:
            await asyncio.sleep(LONG)
        finally:
            cancelled.set()

    source.is_read.clear()
    calls = [asyncio.create_task(cache.get_or_load("slow", note_cancellation, 60)) for _ in range(3)]
    await until_waiting(source)
    for call in calls:
        call.cancel()
    await asyncio.wait(calls)
    async with asyncio.timeout(LONG):
        await cancelled.wait()
    async with asyncio.timeout(loading.LEASE_SECONDS / 2):
        assert await cache.get_or_load("slow", source.load, 60) == "value"


async def test_fresh_asks_the_source_and_stores_what_it_says(cache: Cache, other: Cache) -> None:
    source = Source("old")
    assert await cache.get_or_load("key", source.load, 60) == "old"
    assert await other.get("key") == "old"
    source.value = "new"  # Without telling the cache.
    assert await cache.get_or_load("key", source.load, 60) == "old"
    assert await cache.get_or_load("key", source.load, 60, fresh=True) == "new"
    assert await cache.get_or_load("key", source.load, 60) == "new"


async def test_fresh_does_not_join_a_load_that_began_before(cache: Cache) -> None:
    source = Source("old")
    source.hold()
    early = asyncio.create_task(cache.get_or_load("key", source.load, 60))
    await until_waiting(source)
    source.value = "new"
    fresh = asyncio.create_task(cache.get_or_load("key", source.load, 60, fresh=True))
    await asyncio.sleep(0.05)
    source.may_end.set()
    assert await fresh == "new"
    await early
    assert await cache.get("key") == "new"


@pytest.mark.parametrize("stored", [b"\x80\x04pickle", b"", b'{"title": 1}'])
async def test_what_cannot_be_read_is_loaded_again(cache: Cache, stored: bytes) -> None:
    await cache.client.set(cache._namespace.key("key"), stored)
    source = Source(Page(title="Home"))
    for _ in range(2):
        assert await cache.get_or_load("key", source.load, 60, as_type=Page) == Page(title="Home")
    assert source.loads == 1
    await cache.client.delete(cache._namespace.key("key"))
    await cache.client.lpush(cache._namespace.key("key"), "item")
    assert await cache.get_or_load("key", source.load, 60, as_type=Page) == Page(title="Home")
    assert source.loads == 2


@pytest.mark.parametrize("value", [object(), float("nan"), b"x" * (9 * 2**20)], ids=["object", "nan", "large"])
async def test_what_cannot_be_stored_is_an_error(cache: Cache, value: Any) -> None:
    with pytest.raises(InvalidCacheValueError, match="'key'"):
        await cache.get_or_load("key", Source(value).load, 60)
    assert await cache.get_or_load("key", Source("good").load, 60) == "good"


async def test_what_does_not_fit_the_type_is_an_error(cache: Cache) -> None:
    with pytest.raises(InvalidCacheValueError, match="does not fit"):
        await cache.get_or_load("key", Source({"title": 1}).load, 60, as_type=Page)
    assert not await cache.exists("key")


async def test_the_time_to_live_is_shortened_a_little(cache: Cache) -> None:
    lives = []
    for number in range(30):
        await cache.get_or_load(f"key-{number}", Source().load, 1000)
        lives.append(await cache.ttl(f"key-{number}") or 0)
    assert all(899 <= life <= 1000 for life in lives)
    assert max(lives) - min(lives) > 10


@asynccontextmanager
async def writes_held(cache: Cache) -> AsyncIterator[Callable[[], Awaitable[Any]]]:
    """The server carries out no writes before ``release`` is called; reads go on."""
    client = cast("Redis", cache.client)
    await client.client_pause(LONG * 1000, all=False)
    try:
        yield client.client_unpause
    finally:
        await client.client_unpause()


async def test_a_miss_takes_two_commands_and_a_value_in_redis_one(shared_server: RedisServer) -> None:
    commands: list[str] = []

    def note(name: str, _size: int, _seconds: float, _code: str | None) -> None:
        commands.append(name)

    options = Settings(redis_near_size=0, redis_command_timeout=5000).redis
    async with Cache(options, shared_server.url, observer=note) as cache:
        await cache.delete("key")
        for expected in (["EVALSHA", "EVALSHA"], ["EVALSHA"]):
            commands.clear()
            assert await cache.get_or_load("key", Source().load, 60) == "value"
            assert await cache.exists("key")
            assert commands == [*expected, "EVALSHA"]


async def test_a_value_is_handed_over_before_it_is_stored(cache: Cache, other: Cache) -> None:
    async with AsyncExitStack() as stack:

        async def load_and_hold_writes() -> str:
            await stack.enter_async_context(writes_held(other))
            return "value"

        assert await cache.get_or_load("key", load_and_hold_writes, 60) == "value"
        stored = await other.client.get(cache._namespace.key("key"))
        assert isinstance(stored, bytes)
        assert is_marker(stored)
    assert await cache.get_or_load("key", Source("another").load, 60) == "value"
    assert await other.get_or_load("key", Source("another").load, 60) == "value"


async def test_a_caller_that_joined_during_the_load_waits_until_the_value_is_stored(cache: Cache, other: Cache) -> None:
    source = Source("old")
    source.hold()
    early = asyncio.create_task(cache.get_or_load("key", source.load, 60))
    await until_waiting(source)
    async with writes_held(other) as release:
        changing = asyncio.create_task(other.invalidate("key"))  # Ahead of what would store the value.
        await asyncio.sleep(0.1)
        source.value = "new"
        late = asyncio.create_task(cache.get_or_load("key", source.load, 60))
        await asyncio.sleep(0.05)
        source.may_end.set()
        assert await early == "old"
        await asyncio.sleep(0.1)
        assert not late.done()
        await release()
        await changing
        assert await late == "new"


async def test_a_caller_that_is_cancelled_while_it_asks_keeps_no_lease(cache: Cache, other: Cache) -> None:
    async with writes_held(other) as release:
        call = asyncio.create_task(cache.get_or_load("key", Source().load, 60))
        await asyncio.sleep(0.05)
        call.cancel()
        await asyncio.wait([call])
        await release()
    async with asyncio.timeout(loading.LEASE_SECONDS / 2):
        assert await other.get_or_load("key", Source("another").load, 60) == "another"


async def test_a_question_whose_connection_broke_is_asked_again(cache: Cache, other: Cache) -> None:
    source = Source()
    async with writes_held(other) as release:
        call = asyncio.create_task(cache.get_or_load("key", source.load, 60))
        await asyncio.sleep(0.1)
        await other.client.client_kill_filter(skipme=True, _type="normal")
        await release()
        async with asyncio.timeout(loading.LEASE_SECONDS / 2):
            assert await call == "value"
    assert await cache.get_or_load("key", source.load, 60) == "value"
    assert source.loads == 1


async def test_each_question_has_a_lease_of_its_own(cache: Cache, other: Cache) -> None:
    """One that the server carries out late must not bring back a lease that was lost, and with it an old value."""
    tokens: list[bytes] = []
    redis_key = cache._namespace.key("key")
    async with writes_held(other) as release:
        ask = cache._commands.eval

        async def note_token(script: Script, key: bytes, *arguments: Any, **options: Any) -> Any:
            if script is markers.TAKE_LEASE:
                assert key == redis_key
                tokens.append(arguments[0])
            return await ask(script, key, *arguments, **options)

        cache._commands.eval = note_token  # type: ignore[method-assign]
        call = asyncio.create_task(cache.get_or_load("key", Source().load, 60))
        await asyncio.sleep(0.1)
        await other.client.client_kill_filter(skipme=True, _type="normal")
        await release()
        assert await call == "value"
    assert len(set(tokens)) == len(tokens) > 1


async def test_what_was_loaded_before_a_failover_is_not_believed_after_it(cache: Cache) -> None:
    """The new primary may have the lease and not the change that took it away."""
    source = Source("old")
    source.hold()
    early = asyncio.create_task(cache.get_or_load("key", source.load, 60))
    await until_waiting(source)
    cache._parts.loading._guard.begin()
    source.value = "new"
    late = asyncio.create_task(cache.get_or_load("key", source.load, 60))
    await asyncio.sleep(0.05)
    source.may_end.set()
    assert await early == "old"
    assert await late == "new"
    assert await cache.get_or_load("key", source.load, 60) == "new"


async def test_without_redis_the_source_answers_once_for_all_callers(cache_at: CacheAt) -> None:
    with RedisServer(unix_socket=True) as server:
        async with cache_at(server.url) as cache:
            source = Source()
            server.kill()
            source.hold()
            calls = [asyncio.create_task(cache.get_or_load("key", source.load, 60)) for _ in range(20)]
            await until_waiting(source)
            source.may_end.set()
            assert await asyncio.gather(*calls) == ["value"] * 20
            assert source.loads <= 2
            with pytest.raises(CacheUnavailableError):
                await cache.get("key")
            source.value = "new"
            assert await cache.get_or_load("key", source.load, 60) == "new"
            server.start()
            async with asyncio.timeout(LONG):
                while await cache_get(cache) is None:
                    await cache.get_or_load("key", source.load, 60)


async def cache_get(cache: Cache) -> Any:
    with suppress(CacheUnavailableError):
        return await cache.get("key")


async def test_after_an_outage_the_source_is_asked_once_for_each_key(cache_at: CacheAt) -> None:
    """Others may have changed the row meanwhile, and not have been able to tell Redis yet."""
    with RedisServer(unix_socket=True) as server:
        async with cache_at(server.url, connect=300, command=300) as cache:
            source = Source("old")
            assert await cache.get_or_load("key", source.load, 60) == "old"
            await asyncio.sleep(0.3)  # Until the tracking line has proven itself.
            server.pause()
            source.value = "new"
            async with asyncio.timeout(LONG):
                resume_at = monotonic() + 1.6
                while not cache._parts.loading._guard.is_on:
                    assert await cache.get_or_load("other", Source().load, 60) == "value"
                    await asyncio.sleep(0.02)
                    if monotonic() > resume_at:
                        server.resume()
            loads = source.loads
            for _ in range(5):
                assert await cache.get_or_load("key", source.load, 60) == "new"
            assert source.loads == loads + 1
            assert await cache.get("key") == "new"


async def test_a_closed_cache_ends_what_is_being_loaded(shared_server: RedisServer, cache_at: CacheAt) -> None:
    source = Source()
    source.hold()
    async with cache_at(shared_server.url) as cache:
        call = asyncio.create_task(cache.get_or_load("closing", source.load, 60))
        await until_waiting(source)
    with pytest.raises(NotInitializedError):
        await call


async def test_a_lease_that_came_too_late_is_given_back(
    cache: Cache, other: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first caller could not ask and began to load; the second has got the lease that this load waits for."""
    monkeypatch.setattr(loading, "LEASE_SECONDS", 60.0)
    monkeypatch.setattr(loading, "LONGEST_WAIT", 1.0)
    run = cache._commands.eval
    answers: list[Any] = []
    second_has_it, load_waits = asyncio.Event(), asyncio.Event()

    async def evaluate(script: Script, *arguments: Any, **options: Any) -> Any:
        if script is not markers.TAKE_LEASE:
            return await run(script, *arguments, **options)
        answers.append(None)
        number = len(answers)
        if number == 1:
            await second_has_it.wait()
            raise CacheUnavailableError("the Redis of the test is down")
        answer = await run(script, *arguments, **options)
        if number == 2:
            second_has_it.set()
            await load_waits.wait()
        load_waits.set()
        return answer

    monkeypatch.setattr(cache._commands, "eval", evaluate)
    source = Source()
    async with asyncio.timeout(LONG):
        assert await asyncio.gather(*(cache.get_or_load("key", source.load, 60) for _ in range(2))) == ["value"] * 2
    assert source.loads == 1
    assert await other.get("key") == "value"


async def test_what_was_loaded_last_is_stored_before_the_cache_is_closed(
    shared_server: RedisServer, cache_at: CacheAt, cache: Cache
) -> None:
    async with cache_at(shared_server.url, redis_near_size=0) as closed:
        assert await closed.get_or_load("last", Source().load, 60) == "value"
    assert await cache.get("last") == "value"


async def test_what_runs_in_the_background_ends_in_time() -> None:
    background = Background()
    tasks = [background.start(asyncio.sleep(seconds)) for seconds in (0, 3600)]
    await background.finish(0.01)
    assert [task.cancelled() for task in tasks] == [False, True]
