"""Real processes, real time: what one ends, the others refuse within two seconds, whatever is broken."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import text

from data_layer import DataLayer, Settings
from data_layer.database.listener import Listener
from data_layer.entities.enums import UserRole, UserStatus
from data_layer.errors import DatabaseError, InvalidSessionError
from data_layer.repositories.session_changes import ChangeBatch, read_changes
from data_layer.schemas.actors import SYSTEM
from data_layer.services.sessions import change_stream
from data_layer.testing.postgresql_server import PostgresqlServer
from data_layer.testing.redis_server import RedisServer
from tests.observability.conftest import logging_as_before  # noqa: F401  (a fixture)
from tests.services.sessions.test_sessions import new_user, token_of
from tests.support import until

GENEROUS = 30.0


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with RedisServer(unix_socket=True) as server:
        yield server


@pytest.fixture
async def pair(data: DataLayer, settings: Settings, redis: RedisServer) -> AsyncIterator[tuple[DataLayer, DataLayer]]:
    """Two processes with a Redis that can be broken; ``data`` has emptied the tables."""
    assert data
    changed = settings.replaced(redis_url=SecretStr(redis.url), redis_connect_timeout=500)
    async with DataLayer(changed) as one, DataLayer(changed) as other:
        yield one, other


async def holds_a_copy(data: DataLayer, token: str) -> None:
    """Wait until the process answers from a copy of its own."""
    deadline = time.monotonic() + GENEROUS
    while time.monotonic() < deadline:
        await data.sessions.validate(token)
        if data.sessions._copies.near.by_key and time.monotonic() < data.sessions._copies.watermark.fresh_until:
            return
        await asyncio.sleep(0.01)
    pytest.fail("the process never kept a copy")


async def is_refused(data: DataLayer, token: str) -> None:
    """Wait until the process refuses a token. How long it takes is measured elsewhere: machines for tests are slow."""
    deadline = time.monotonic() + GENEROUS
    while time.monotonic() < deadline:
        try:
            await data.sessions.validate(token)
        except InvalidSessionError:
            return
        await asyncio.sleep(0.01)
    pytest.fail("an ended session was accepted")


async def test_one_ends_it_and_the_other_refuses(pair: tuple[DataLayer, DataLayer]) -> None:
    one, other = pair
    user = await new_user(one)
    new = await one.sessions.create(user)
    for data in pair:
        await holds_a_copy(data, token_of(new))
    await one.sessions.revoke(SYSTEM, new.session.id)
    await is_refused(other, token_of(new))


async def test_an_operator_with_sql_is_heard_too(pair: tuple[DataLayer, DataLayer]) -> None:
    one, other = pair
    user = await new_user(one)
    new = await one.sessions.create(user)
    for data in pair:
        await holds_a_copy(data, token_of(new))
    async with one.transaction() as tx:
        await tx.execute(text("UPDATE users SET role = 'admin'"))
    deadline = time.monotonic() + GENEROUS
    while (await other.sessions.validate(token_of(new))).role is not UserRole.ADMIN:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    async with one.transaction() as tx:
        await tx.execute(text("UPDATE users SET status = 'suspended'"))
    for data in pair:
        await is_refused(data, token_of(new))


async def test_deleting_an_account_ends_its_sessions(pair: tuple[DataLayer, DataLayer]) -> None:
    one, other = pair
    user = await new_user(one)
    new = await one.sessions.create(user)
    await holds_a_copy(other, token_of(new))
    async with one.transaction() as tx:
        await tx.users.delete(await tx.users.get(user))
    await is_refused(other, token_of(new))
    async with one.transaction() as tx:
        assert (await tx.users.get(user)).status is UserStatus.INACTIVE


async def test_without_redis(pair: tuple[DataLayer, DataLayer], redis: RedisServer) -> None:
    one, other = pair
    new = await one.sessions.create(await new_user(one))
    ended = await one.sessions.create(new.session.user_id)
    for token in (token_of(new), token_of(ended)):
        await holds_a_copy(other, token)
    redis.kill()
    try:
        await one.sessions.revoke(SYSTEM, ended.session.id)
        await is_refused(other, token_of(ended))
        for data in pair:
            assert await data.sessions.validate(token_of(new)), "losing Redis logs nobody out"
    finally:
        redis.start()
    for data in pair:
        assert await data.sessions.validate(token_of(new))
        await is_refused(data, token_of(ended))


async def test_a_redis_that_hangs_costs_no_more_than_a_moment(
    pair: tuple[DataLayer, DataLayer], redis: RedisServer
) -> None:
    one, other = pair
    new = await one.sessions.create(await new_user(one))
    await holds_a_copy(other, token_of(new))
    redis.pause()
    try:
        for _ in range(20):
            new = await one.sessions.create(new.session.user_id)
            assert await other.sessions.validate(token_of(new))
    finally:
        redis.resume()


async def test_the_stream_comes_back_by_itself(pair: tuple[DataLayer, DataLayer]) -> None:
    one, other = pair
    new = await one.sessions.create(await new_user(one))
    await holds_a_copy(other, token_of(new))
    async with one.transaction() as tx:
        await tx.execute(
            text(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE query LIKE '%session_changes%' "
                "AND pid <> pg_backend_pid() AND datname = current_database()"
            )
        )
    await one.sessions.revoke(SYSTEM, new.session.id)
    await is_refused(other, token_of(new))
    again = await one.sessions.create(new.session.user_id)
    await holds_a_copy(other, token_of(again))


async def test_a_database_that_stops_and_starts(short_folder: Path, redis: RedisServer) -> None:
    """While it is away nothing is known, which is not a refusal; afterwards everybody is still logged in."""
    with PostgresqlServer() as server:
        from data_layer import Settings

        settings = Settings(
            environment="testing",
            database_url=SecretStr(server.url("sessions")),
            redis_url=SecretStr(redis.url),
            local_storage_path=short_folder,
            db_connect_timeout=4,
        )
        async with DataLayer(settings, prepare=True) as data:
            new = await data.sessions.create(await new_user(data))
            ended = await data.sessions.create(new.session.user_id)
            for token in (token_of(new), token_of(ended)):
                await holds_a_copy(data, token)
            server.stop()
            deadline = time.monotonic() + GENEROUS
            with pytest.raises(DatabaseError):
                while time.monotonic() < deadline:
                    await data.sessions.validate(token_of(new))
                    await asyncio.sleep(0.02)
            server.start()
            server.execute(
                "UPDATE sessions SET status = 'revoked' WHERE id = %s", ended.session.id, database="sessions"
            )
            await is_refused(data, token_of(ended))
            await holds_a_copy(data, token_of(new))


async def test_many_changes_under_an_open_transaction_are_read_once(
    data: DataLayer, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody reads them again and again until the older transaction ends."""
    received: list[int] = []

    async def read(listener: Listener, known: str | None) -> ChangeBatch:
        reading = await read_changes(listener, known)
        received.append(-1 if reading.changes is None else len(reading.changes))
        return reading

    monkeypatch.setattr(change_stream, "read_changes", read)
    async with DataLayer(settings) as process, data.transaction() as old:
        await old.execute(text("CREATE TEMPORARY TABLE open_for_long () ON COMMIT DROP"))
        process.sessions.changes.start()
        await until(lambda: 0 in received)
        received.clear()
        many = text("INSERT INTO session_changes (session_id) SELECT gen_random_uuid() FROM generate_series(1, 100000)")
        await asyncio.create_task(_execute(data, many))
        await until(lambda: -1 in received)
        place = received.index(-1)
        await until(lambda: len(received) >= place + 4)
        assert received[place + 1 : place + 4] == [0, 0, 0]
        new = await process.sessions.create(await asyncio.create_task(new_user(data)))
        assert await process.sessions.validate(token_of(new))


async def _execute(data: DataLayer, statement: Any) -> None:
    async with data.transaction() as tx:
        await tx.execute(statement)
