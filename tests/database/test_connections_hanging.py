"""The server goes silent, or cannot be reached: every call ends in time with a typed error, and the pool recovers."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from data_layer import DataLayer, Settings
from data_layer.errors import CommitUnknownError, DatabaseUnavailableError
from data_layer.testing.postgresql_server import PostgresqlServer
from tests.database.connection_helpers import (
    PATIENCE,
    Wire,
    backend_pid,
    count_connections,
    create_and_migrate,
    emails,
    observing,
    settings_for,
    until,
)
from tests.support import EMPTY_ALL_TABLES, make_user

Make = Callable[..., DataLayer]

pytestmark = pytest.mark.slow

NEVER = 50.0  # Seconds: if a time limit did not hold, a call would last longer than a test may.


@pytest.fixture(scope="module")
def server(base_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresqlServer]:
    with PostgresqlServer() as server:
        create_and_migrate(server, base_settings, tmp_path_factory.mktemp("server"))
        yield server


@pytest.fixture
def make(server: PostgresqlServer, base_settings: Settings, tmp_path: Path) -> Make:
    server.execute(EMPTY_ALL_TABLES, database="test")

    def make(url: str, **values: Any) -> DataLayer:
        return DataLayer(settings_for(url, base_settings, tmp_path, **values))

    return make


@pytest.fixture
async def wire(server: PostgresqlServer) -> AsyncIterator[Wire]:
    async with Wire(server.port) as wire:
        yield wire


class Work:
    """What callers do while the server goes silent, each in a transaction of its own that begins before."""

    def __init__(self, data: DataLayer) -> None:
        self._data = data
        self._user = make_user()
        self._ready = asyncio.Barrier(6)
        self._is_silent = asyncio.Event()

    async def run(self, silence: Callable[[], None]) -> dict[str, BaseException | None]:
        async with self._data.transaction() as tx:
            tx.add(self._user)
        tasks = {
            work.__name__: asyncio.create_task(work())
            for work in (self.get, self.find, self.flush, self.commit, self.leave)
        }
        await self._ready.wait()
        silence()
        self._is_silent.set()
        async with asyncio.timeout(NEVER):
            results = await asyncio.gather(*tasks.values(), return_exceptions=True)
        return dict(zip(tasks, results, strict=True))

    async def get(self) -> None:
        async with self._data.transaction() as tx:
            await tx.users.get(self._user.id)
            await self._wait()
            await tx.users.get(make_user().id)

    async def find(self) -> None:
        async with self._data.transaction() as tx:
            await tx.users.count()
            await self._wait()
            await tx.users.count()

    async def flush(self) -> None:
        async with self._data.transaction() as tx:
            await tx.users.get(self._user.id)
            await self._wait()
            tx.add(make_user())
            await tx.flush()

    async def commit(self) -> None:
        async with self._data.transaction() as tx:
            await tx.users.increment(self._user.id, "login_count")
            await self._wait()

    async def leave(self) -> None:
        async with self._data.transaction() as tx:
            tx.add(make_user())
            await tx.flush()
            await self._wait()
            raise KeyError("the caller's own")

    async def _wait(self) -> None:
        await self._ready.wait()
        await self._is_silent.wait()


def check(results: dict[str, BaseException | None]) -> None:
    assert {name: type(result) for name, result in results.items()} == {
        "get": DatabaseUnavailableError,
        "find": DatabaseUnavailableError,
        "flush": DatabaseUnavailableError,
        "commit": CommitUnknownError,
        "leave": KeyError,
    }
    assert "did not answer" in str(results["get"])


async def test_a_frozen_server_is_given_up_in_time(server: PostgresqlServer, make: Make) -> None:
    async with make(server.url("test"), db_statement_timeout=0.5, db_max_connections=6) as data:
        try:
            check(await Work(data).run(server.pause))
        finally:
            server.resume()
        assert data.database.pool_figures()["in_use"] == 0
        assert len(await emails(data)) == 1


async def test_a_wire_that_carries_nothing_is_given_up_in_time(wire: Wire, make: Make) -> None:
    async with make(wire.url, db_statement_timeout=0.5, db_max_connections=6) as data:
        try:
            check(await Work(data).run(wire.thawed.clear))
        finally:
            wire.thawed.set()
        assert data.database.pool_figures()["in_use"] == 0
        assert len(await emails(data)) == 1


@pytest.mark.parametrize("whole", [True, False], ids=["server", "one process"])
async def test_a_caller_that_stops_waiting_for_a_frozen_server_is_let_go(
    server: PostgresqlServer, make: Make, *, whole: bool
) -> None:
    async with make(server.url("test"), db_min_connections=1) as data:
        pid = await backend_pid(data)

        async def ask() -> None:
            async with data.transaction() as tx:
                await tx.users.count()

        if whole:
            server.pause()
        else:
            os.kill(pid, signal.SIGSTOP)
        started = time.monotonic()
        try:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(ask(), 0.3)
        finally:
            lasted = time.monotonic() - started
            server.resume()
            with suppress(ProcessLookupError):  # It may have ended meanwhile.
                os.kill(pid, signal.SIGCONT)
        assert lasted < 8.5  # Left alone, the driver takes more than 10 seconds, and the statement 30.
        assert await backend_pid(data) != pid
        assert data.database.pool_figures()["in_use"] == 0


@pytest.mark.parametrize("place", ["refused", "silent", "unknown"])
async def test_a_server_that_cannot_be_reached_is_told_in_time(make: Make, place: str) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if place == "silent":
            listener.listen()  # The system takes connections, and nobody answers.
        host = "no-such-host.invalid" if place == "unknown" else "127.0.0.1"
        url = f"postgresql://somebody:hidden-word@{host}:{listener.getsockname()[1]}/test"
        with pytest.raises(
            DatabaseUnavailableError, match=r"cannot be reached.*check that it runs, and DB_HOST"
        ) as caught:
            async with asyncio.timeout(PATIENCE):
                async with make(url, db_connect_timeout=1):
                    pass
    if place == "silent":
        assert "no answer within 1 s (DB_CONNECT_TIMEOUT)" in str(caught.value)
    assert "hidden-word" not in str(caught.value)


async def test_the_second_of_two_hosts_is_reached_when_the_first_is_silent(
    server: PostgresqlServer, make: Make
) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        first = f"127.0.0.1:{listener.getsockname()[1]}"
        url = f"postgresql://postgres@/test?host={first}&host=127.0.0.1:{server.port}"
        async with make(url, db_connect_timeout=2, db_min_connections=1) as data:
            assert await emails(data) == []


async def test_giving_up_while_opening_leaves_no_connection(server: PostgresqlServer, wire: Wire, make: Make) -> None:
    wire.freeze_from(1)
    data = make(f"{wire.url}&application_name=opening", db_min_connections=3, db_connect_timeout=20)
    opening = asyncio.create_task(data.open())
    async with observing(server.url("test")) as observer:

        async def one_is_open() -> bool:
            return await count_connections(observer, "opening") == 1 and wire.seen == 3

        async def none_is_open() -> bool:
            return await count_connections(observer, "opening") == 0

        await until(one_is_open)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        await until(none_is_open)


async def test_health_says_in_time_that_the_server_is_frozen(server: PostgresqlServer, make: Make) -> None:
    async with make(server.url("test")) as data:
        server.pause()
        started = time.monotonic()
        try:
            health = await data.health()
        finally:
            server.resume()
        assert (health.database, health.parts["database"].error_code) == (False, "timeout")
        assert time.monotonic() - started < 20
        async with data.transaction() as tx:
            assert (await tx.execute(text("SELECT 1"))).scalar_one() == 1
