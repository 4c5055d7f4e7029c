"""Copies of sessions: where they are kept, until when they are used, and when Redis is left alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from contextvars import Context
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import TextClause, text

from data_layer import DataLayer, Settings
from data_layer.entities.enums import SessionType, UserRole
from data_layer.errors import CacheUnavailableError, DatabaseUnavailableError, DataLayerError, InvalidSessionError
from data_layer.repositories.sessions import FoundSession, SessionRepository
from data_layer.schemas.actors import SYSTEM
from data_layer.schemas.sessions import ActiveSession, NewSession
from data_layer.services.sessions import SessionCopies, activity
from data_layer.services.sessions.copies import NearCopies, NearCopy
from data_layer.services.sessions.hashing import make_token
from tests.services.sessions.support import Process, World, movable_time, start_process
from tests.support import make_user

LIFE, MARGIN = 400, 20
"""SESSION_TTL, and how long before its end the database is asked, in seconds."""


def token_of(new: NewSession) -> str:
    return new.token.get_secret_value()


async def come_from(process: Process, token: str) -> str:
    """Validate, and report where the answer came from."""
    await process.catch_up()
    before = replace(process.sessions.validations)
    with suppress(DataLayerError):
        await process.sessions.validate(token)
    after = asdict(process.sessions.validations)
    ((source, number),) = (
        (name, after[name] - count) for name, count in asdict(before).items() if after[name] != count
    )
    assert number == 1
    return source


@asynccontextmanager
async def started(world: World) -> AsyncIterator[Process]:
    process = await start_process(world)
    try:
        yield process
    finally:
        await process.stop()


async def expiry_in_database(world: World, new: NewSession) -> Any:
    async with world.data.transaction() as tx:
        return (await tx.sessions.get(new.session.id)).expires_at


async def pass_time(world: World, seconds: float, *processes: Process) -> None:
    """Let time pass in steps after which processes still know what they knew."""
    while seconds > 0:
        await world.pass_time(min(seconds, 50.0))
        seconds -= 50.0
        for process in processes:
            await process.catch_up()


async def test_use_shortly_before_the_end_moves_the_end_of_every_copy(settings: Settings) -> None:
    short = settings.replaced(session_ttl=LIFE)
    async with movable_time(short) as world, started(world) as one, started(world) as other:
        new = await one.sessions.create(await world.new_user())
        token = token_of(new)
        assert await come_from(one, token) == "database"
        await pass_time(world, LIFE - 3, one, other)
        session = await one.sessions.validate(token)
        assert session.expires_at == await expiry_in_database(world, new)
        assert session.expires_at == new.session.expires_at + timedelta(seconds=LIFE - 3)
        await pass_time(world, LIFE - MARGIN - 1, one, other)
        assert await come_from(one, token) == "near"
        assert await come_from(other, token) == "redis"
        await pass_time(world, 2, one, other)
        assert await come_from(other, token) == "database"


async def test_what_nobody_answers_is_counted_too(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object) -> None:
        raise DatabaseUnavailableError("the database of the test is down")

    async with movable_time(settings) as world, started(world) as process:
        token = token_of(await process.sessions.create(await world.new_user()))
        with monkeypatch.context() as patch:
            patch.setattr(SessionRepository, "find_active", fail)
            assert await come_from(process, token) == "failed"
        unknown = make_token()
        # Too short, unknown, and unknown a moment ago.
        assert [await come_from(process, wrong) for wrong in ("short", unknown, unknown)] == ["refused"] * 3
        assert await come_from(process, token) == "database"


async def test_what_changed_while_it_was_read_is_not_kept(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    find = SessionRepository.find_active
    async with movable_time(settings) as world, started(world) as process:
        new = await process.sessions.create(await world.new_user())
        await process.catch_up()

        async def end_it_meanwhile(self: SessionRepository, hashes: Any) -> FoundSession | None:
            found = await find(self, hashes)
            await asyncio.create_task(world.data.sessions.revoke(SYSTEM, new.session.id), context=Context())
            await process.catch_up()
            return found

        with monkeypatch.context() as patch:
            patch.setattr(SessionRepository, "find_active", end_it_meanwhile)
            assert (await process.sessions.validate(token_of(new))).id == new.session.id
        with pytest.raises(InvalidSessionError):
            await process.sessions.validate(token_of(new))


async def test_redis_in_trouble_is_left_alone_for_a_second(
    data: DataLayer, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, asked = 1000.0, 0

    async def refuse(*_: Any) -> None:
        nonlocal asked
        asked += 1
        raise CacheUnavailableError("the Redis of the test is down")

    for name in ("get", "set", "delete_many"):
        monkeypatch.setattr(data.cache, name, refuse)
    user = make_user()
    async with data.transaction() as tx:
        tx.add(user)
    session = (await data.sessions.create(user.id)).session
    found = FoundSession(session, 5000.0, 3600.0, 1, "server")
    copies = SessionCopies(data.cache, settings.security, clock=lambda: now).shared
    asked = 0
    asks: list[Callable[[], Awaitable[Any]]] = [
        partial(copies.read, "key"),
        partial(copies.write, "key", found),
        partial(copies.remove, ["key"]),
    ]
    for ask in asks:
        now += 1.0
        await ask()
        times = asked
        now += 0.9
        assert await copies.read("key") is None
        await copies.write("key", found)
        assert asked == times
        now += 0.1
    assert asked == 3


async def test_activity_is_written_while_the_process_runs(
    data: DataLayer, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(activity, "_SOON", 2)
    monkeypatch.setattr(activity, "FLUSH_SECONDS", 3600.0)
    user = make_user()
    async with data.transaction() as tx:
        tx.add(user)
    async with DataLayer(settings) as other:
        tokens = [token_of(await other.sessions.create(user.id)) for _ in range(2)]
        for token in tokens:
            await other.sessions.validate(token)
        written = text("SELECT count(*) FROM sessions WHERE request_count = 1")
        async with asyncio.timeout(30):
            while await scalar(data, written) < 2:
                await asyncio.sleep(0.01)


async def scalar(data: DataLayer, statement: TextClause) -> int:
    async with data.transaction() as tx:
        return int((await tx.execute(statement)).scalar_one())


def test_a_refusal_lasts_for_a_moment_and_until_a_session_changes() -> None:
    copies = NearCopies()
    copies.refuse("unknown", until=10.25)
    assert copies.refuses("unknown", 10.0)
    assert not copies.refuses("another", 10.0)
    assert not copies.refuses("unknown", 10.25)
    copies.refuse("unknown", until=20.25)
    copies.forget([UUID(int=1)])
    assert not copies.refuses("unknown", 20.0)
    for number in range(5_000):
        copies.refuse(str(number), until=30.0)
    assert copies.refuses("4999", 29.0)
    assert not copies.refuses("0", 29.0)


def copy_of(number: int) -> NearCopy:
    session = ActiveSession(
        id=UUID(int=number),
        user_id=UUID(int=number),
        role=UserRole.USER,
        type=SessionType.WEB,
        created_at=datetime(2026, 12, 1, tzinfo=UTC),
        expires_at=datetime(2026, 12, 8, tzinfo=UTC),
    )
    return NearCopy(session, 1e9)


def test_copies_that_nobody_uses_any_more_are_dropped_while_others_are_added() -> None:
    copies = NearCopies()
    copies.put("used", copy_of(0), 0.0)
    for number in range(1, 10_000):
        copies.put(str(number), copy_of(number), float(number))
        copies.by_key["used"].last_request = float(number)
    assert len(copies.by_key) < 2_000
    assert len(copies._keys) == len(copies.by_key)
    assert {"used", "9999", "9100"} < copies.by_key.keys()


def test_copies_share_the_names_of_their_fields() -> None:
    copies = NearCopies()
    for number in range(2):
        copies.put(str(number), copy_of(number), 0.0)
    first, second = (copy.session.model_fields_set for copy in copies.by_key.values())
    assert first is second
    assert first == ActiveSession.model_fields.keys()
