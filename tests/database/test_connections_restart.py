"""The server ends, or a connection breaks: idle connections are replaced unnoticed, and nothing is stored by halves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from data_layer import DataLayer, Settings
from data_layer.errors import CommitUnknownError, DatabaseError, DatabaseUnavailableError
from data_layer.testing.postgresql_server import PostgresqlServer, StopMode
from tests.database.connection_helpers import (
    PATIENCE,
    Wire,
    backend_pid,
    create_and_migrate,
    emails,
    settings_for,
)
from tests.support import EMPTY_ALL_TABLES, make_user

Make = Callable[..., DataLayer]

STOPS = [StopMode.FAST, StopMode.IMMEDIATE, StopMode.KILL]


@pytest.fixture(scope="module")
def server(base_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresqlServer]:
    with PostgresqlServer() as server:
        create_and_migrate(server, base_settings, tmp_path_factory.mktemp("server"))
        yield server


@pytest.fixture
def make(server: PostgresqlServer, base_settings: Settings, tmp_path: Path) -> Make:
    """A data layer with empty tables."""
    server.execute(EMPTY_ALL_TABLES, database="test")

    def make(url: str = "", **values: Any) -> DataLayer:
        return DataLayer(settings_for(url or server.url("test"), base_settings, tmp_path, **values))

    return make


@pytest.fixture
async def wire(server: PostgresqlServer) -> AsyncIterator[Wire]:
    async with Wire(server.port) as wire:
        yield wire


@pytest.mark.parametrize("by_socket", [True, False], ids=["socket", "tcp"])
@pytest.mark.parametrize("stop", STOPS)
async def test_after_a_restart_the_first_reads_and_writes_succeed(
    server: PostgresqlServer, make: Make, stop: StopMode, *, by_socket: bool
) -> None:
    user = make_user()
    url = server.url("test") if by_socket else server.url("test", host="127.0.0.1")
    async with make(url, db_min_connections=4, db_max_connections=4) as data:
        async with data.transaction() as tx:
            tx.add(user)

        async def get() -> None:
            async with data.transaction() as tx:
                assert (await tx.users.get(user.id)).email == user.email

        async def find() -> None:
            async with data.transaction() as tx:
                assert await tx.users.find_one(email=user.email) is not None

        async def write() -> None:
            async with data.transaction() as tx:
                tx.add(make_user())

        for works in ((get,), (find,), (write,), (get, find, write)):
            await asyncio.to_thread(server.restart, stop)
            await asyncio.gather(*(work() for work in works), *(work() for work in works))
        assert len(await emails(data)) == 1 + 4


async def test_a_connection_that_the_server_ended_is_replaced(server: PostgresqlServer, make: Make) -> None:
    async with make(db_min_connections=1) as data:
        pid = await backend_pid(data)
        server.execute("SELECT pg_terminate_backend(%s, 5000)", pid)
        new = await backend_pid(data)
        assert new != pid
        assert await backend_pid(data) == new


@pytest.mark.parametrize(
    ("word", "writes"), [(b"FROM users", False), (b"BEGIN", True)], ids=["read by id", "first change"]
)
async def test_a_connection_that_breaks_at_the_first_statement_is_replaced(
    wire: Wire, make: Make, word: bytes, *, writes: bool
) -> None:
    user = make_user()
    async with make(wire.url, db_min_connections=1) as data:
        async with data.transaction() as tx:
            tx.add(user)
        for after in (False, True):
            wire.cut_at(word, after=after)
            async with data.transaction() as tx:
                assert (await tx.users.get(user.id)).email == user.email
                if writes:
                    tx.add(make_user())
                    await tx.flush()
        assert wire.cuts == 2
        assert len(await emails(data)) == (3 if writes else 1)


@pytest.mark.parametrize("arrives", [False, True])
async def test_a_connection_that_breaks_at_the_only_statement_stores_it_once_or_asks(
    wire: Wire, make: Make, *, arrives: bool
) -> None:
    user, is_told = make_user(), False
    async with make(wire.url, db_min_connections=1) as data:
        wire.cut_at(b"INSERT INTO users", after=arrives)
        try:
            async with data.transaction() as tx:
                tx.add(user)
        except CommitUnknownError:
            is_told = True
        assert wire.cuts == 1
        stored = await emails(data)
    assert stored == [user.email] or (is_told and stored == [])


async def test_a_restart_between_reading_and_the_first_change_is_not_felt(server: PostgresqlServer, make: Make) -> None:
    user, new = make_user(), make_user()
    async with make(db_min_connections=1) as data:
        async with data.transaction() as tx:
            tx.add(user)
        async with data.transaction() as tx:
            await tx.users.get(user.id)
            await asyncio.to_thread(server.restart)
            tx.add(new)
        assert sorted(await emails(data)) == sorted([user.email, new.email])


@pytest.mark.parametrize("stop", STOPS)
@pytest.mark.parametrize("goes_on", [True, False], ids=["statement", "commit"])
async def test_a_restart_in_the_middle_of_a_transaction_is_told_and_stores_nothing(
    server: PostgresqlServer, make: Make, stop: StopMode, *, goes_on: bool
) -> None:
    async with make(db_min_connections=2) as data:
        with pytest.raises(DatabaseUnavailableError):
            async with data.transaction() as tx:
                tx.add(make_user())
                await tx.flush()
                await asyncio.to_thread(server.restart, stop)
                if goes_on:
                    tx.add(make_user())
                    await tx.flush()
        assert await emails(data) == []
        assert data.database.pool_figures()["in_use"] == 0


async def test_after_a_break_the_rest_of_a_transaction_is_not_stored_alone(
    server: PostgresqlServer, make: Make
) -> None:
    async with make() as data:
        with pytest.raises(DatabaseError):
            async with data.transaction() as tx:
                tx.add(make_user())
                await tx.flush()
                pid = (await tx.execute(text("SELECT pg_backend_pid()"))).scalar_one()
                server.execute("SELECT pg_terminate_backend(%s, 5000)", pid)
                with pytest.raises(DatabaseUnavailableError):
                    await tx.users.count()
                tx.add(make_user())
        assert await emails(data) == []


async def test_the_callers_error_is_not_hidden_by_a_broken_connection(server: PostgresqlServer, make: Make) -> None:
    async with make() as data:
        with pytest.raises(KeyError, match="the reason"):
            async with data.transaction() as tx:
                tx.add(make_user())
                pid = (await tx.execute(text("SELECT pg_backend_pid()"))).scalar_one()
                server.execute("SELECT pg_terminate_backend(%s, 5000)", pid)
                raise KeyError("the reason")
        assert data.database.pool_figures()["in_use"] == 0
        assert await emails(data) == []


@pytest.mark.parametrize("arrives", [False, True])
async def test_a_connection_that_breaks_at_commit_leaves_the_question_open(
    wire: Wire, make: Make, *, arrives: bool
) -> None:
    user = make_user()
    async with make(wire.url, db_min_connections=1) as data:
        with pytest.raises(CommitUnknownError, match="look whether the change is there"):
            async with data.transaction() as tx:
                tx.add(user)
                await tx.flush()
                wire.cut_at(b"COMMIT", after=arrives)
        assert wire.cuts == 1
        assert await emails(data) == ([user.email] if arrives else [])


async def test_under_load_a_restart_is_told_and_over_when_the_server_is_back(
    server: PostgresqlServer, make: Make
) -> None:
    certain: set[str] = set()
    possible: set[str] = set()
    refused: set[str] = set()
    last_results: dict[int, BaseException | None] = {}
    is_over = asyncio.Event()

    async def save(data: DataLayer) -> None:
        user = make_user()
        try:
            async with data.transaction() as tx:
                tx.add(user)
                await tx.flush()
                await tx.users.get(user.id)
                await tx.users.count()
        except CommitUnknownError:
            possible.add(user.email)
            raise
        except DatabaseUnavailableError:
            refused.add(user.email)
            raise
        certain.add(user.email)

    async def work(data: DataLayer, number: int) -> None:
        while not is_over.is_set():
            try:
                await save(data)
                last_results[number] = None
            except (CommitUnknownError, DatabaseUnavailableError) as error:
                last_results[number] = error
                await asyncio.sleep(0.02)

    async with make(db_max_connections=8) as data:
        tasks = [asyncio.create_task(work(data, number)) for number in range(20)]
        for stop in STOPS:
            await asyncio.sleep(0.15)
            await asyncio.to_thread(server.restart, stop)
        last_results.clear()
        async with asyncio.timeout(PATIENCE):
            while len(last_results) < 20 or any(last_results.values()):
                await asyncio.sleep(0.02)
                assert not any(task.done() for task in tasks)
        is_over.set()
        await asyncio.gather(*tasks)
        stored = set(await emails(data))
        assert data.database.pool_figures()["in_use"] == 0
    assert refused, "the restarts were too quick to be felt"
    assert certain <= stored <= certain | possible
    assert not refused & stored
