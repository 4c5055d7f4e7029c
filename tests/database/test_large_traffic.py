"""Rows of the largest size on every way into the database, and through connections that take little at a time.

Plain loopback hides what goes wrong there: the kernel takes megabytes off a sender's hands.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import text
from uuid_utils.compat import uuid7

from data_layer import DataLayer, Settings
from data_layer.database.driver import DriverConnection
from data_layer.entities import AuditLog, Project
from data_layer.entities.columns import MAXIMUM_TEXT_SIZE
from data_layer.entities.enums import AuditAction
from data_layer.repositories.audit_rows import COLUMNS, copy_rows, insert_lines, line_of
from data_layer.services.audit.recording import make_row
from tests.database.connection_helpers import settings_for
from tests.support import make_code, make_project, make_user

LARGEST = "x" * MAXIMUM_TEXT_SIZE
SEGMENT = 1400
BUFFER = 8 * 1024


class NarrowWire:
    """Leads from a port to a server's Unix socket, with Ethernet's segments and small buffers at every end."""

    def __init__(self, url: str, *, pause: float = 0) -> None:
        self._parameters = psycopg.conninfo.conninfo_to_dict(url)
        self._target = f"{self._parameters['host']}/.s.PGSQL.{self._parameters.get('port') or 5432}"
        self._pause = pause
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[str]:
        """The address of the same database through it."""
        with socket.create_server(("127.0.0.1", 0)) as listening:
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT)
            _make_narrow(listening)  # What it accepts inherits this.
            server = await asyncio.start_server(self._serve, sock=listening, limit=BUFFER)
            try:
                user, database, port = self._parameters["user"], self._parameters["dbname"], listening.getsockname()[1]
                yield f"postgresql://{user}@127.0.0.1:{port}/{database}?sslmode=disable"
            finally:
                server.close()
                for task in list(self._tasks):
                    task.cancel()
                await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        with socket.socket(socket.AF_UNIX) as end:
            _make_narrow(end)
            end.connect(self._target)
            server_reader, server_writer = await asyncio.open_unix_connection(sock=end, limit=BUFFER)
            try:
                with suppress(ConnectionError):
                    await asyncio.gather(self._pump(reader, server_writer), self._pump(server_reader, writer))
            finally:
                writer.close()
                server_writer.close()
                self._tasks.discard(task)

    async def _pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        target.transport.set_write_buffer_limits(high=BUFFER)
        while data := await source.read(BUFFER):
            await asyncio.sleep(self._pause)
            target.write(data)
            await target.drain()
        target.close()


def _make_narrow(end: socket.socket) -> None:
    end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)


@pytest.fixture(params=["unix", "narrow"])
async def database_url(request: pytest.FixtureRequest, migrated: Settings) -> AsyncIterator[str]:
    """The shared database, through its Unix socket or through a narrow wire."""
    url = address_of(migrated)
    if request.param == "unix":
        yield url
        return
    async with NarrowWire(url).open() as narrow:
        yield narrow


def address_of(settings: Settings) -> str:
    """Where the shared server is: behind a Unix socket."""
    assert settings.database.database_url
    return settings.database.database_url.get_secret_value()


@pytest.fixture
async def through(
    data: DataLayer,  # noqa: ARG001  (it empties the tables)
    database_url: str,
    migrated: Settings,
    tmp_path: Path,
) -> AsyncIterator[DataLayer]:
    """A data layer on that way."""
    async with DataLayer(settings_for(database_url, migrated, tmp_path, db_statement_timeout=10)) as through:
        yield through


async def _project(data: DataLayer) -> Project:
    user = make_user()
    project = make_project(user)
    async with data.transaction() as tx:
        tx.add(user)
        tx.add(project)
    return project


async def _sizes(data: DataLayer) -> list[int]:
    async with data.transaction() as tx:
        return list((await tx.execute(text("SELECT length(code) FROM generated_codes ORDER BY version"))).scalars())


class TestWaysOfWriting:
    async def test_insertions(self, through: DataLayer, data: DataLayer) -> None:
        project = await _project(data)
        async with through.transaction() as tx:
            tx.add(make_code(project, code=LARGEST))
        async with through.transaction() as tx:
            tx.add(make_code(project, code=LARGEST))
            await tx.flush()
            tx.add(make_code(project, code=LARGEST))
        assert await _sizes(data) == [len(LARGEST)] * 3

    async def test_many_rows_at_once(self, through: DataLayer, data: DataLayer) -> None:
        project = await _project(data)
        async with through.transaction() as tx:
            for _ in range(4):
                tx.add(make_code(project, code=LARGEST))
        assert await _sizes(data) == [len(LARGEST)] * 4

    async def test_change_of_what_was_read(self, through: DataLayer, data: DataLayer) -> None:
        project = await _project(data)
        code = make_code(project)
        async with data.transaction() as tx:
            tx.add(code)
        async with through.transaction() as tx:
            (await tx.codes.get(code.id)).code = LARGEST
        assert await _sizes(data) == [len(LARGEST)]
        async with through.transaction() as tx:
            assert (await tx.codes.get(code.id)).code == LARGEST

    async def test_audit_copy(self, through: DataLayer, data: DataLayer) -> None:
        row = make_row(AuditAction.SYSTEM_STARTUP, "Started")
        place = COLUMNS.index("details")
        rows: list[Any] = [(str(uuid7()), *row[1:place], LARGEST, *row[place + 1 :]) for _ in range(3)]
        await copy_rows(through.database, rows)
        await insert_lines(through.database, [line_of((str(uuid7()), *rows[0][1:]))])
        async with data.transaction() as tx:
            found = (await tx.execute(text("SELECT length(details) FROM audit_logs"))).scalars().all()
        assert found == [len(LARGEST)] * 4

    async def test_audit_entry_inside_a_transaction(self, through: DataLayer, data: DataLayer) -> None:
        async with through.transaction() as tx:
            tx.add(AuditLog.system_event(AuditAction.SYSTEM_STARTUP, "Started", details=LARGEST))
        async with data.transaction() as tx:
            assert (await tx.execute(text("SELECT length(details) FROM audit_logs"))).scalar_one() == len(LARGEST)

    async def test_statements_by_hand(self, through: DataLayer) -> None:
        async with through.transaction() as tx:
            result = await tx.execute(text("SELECT length(:a) + length(:b), :a").bindparams(a=LARGEST, b=LARGEST))
            assert result.one() == (2 * len(LARGEST), LARGEST)

    async def test_many_rows_by_hand(self, through: DataLayer, data: DataLayer) -> None:
        project = await _project(data)
        made = {"project": project.id, "request": uuid7(), "code": LARGEST}
        rows = [made | {"id": uuid7(), "number": 10 + number} for number in range(3)]
        statement = text(
            "INSERT INTO generated_codes (id, project_id, generation_id, variant_index, version, code, provider, model)"
            " VALUES (:id, :project, :request, :number, :number, :code, 'openai', 'm')"
        )
        async with through.transaction() as tx:
            session = await tx.orm()
            await session.execute(statement, rows)
        assert await _sizes(data) == [len(LARGEST)] * 3


async def test_a_slow_connection_may_take_longer_than_a_silent_server(migrated: Settings) -> None:
    """What counts is that the row moves."""
    async with NarrowWire(address_of(migrated), pause=0.01).open() as url:
        connection = await DriverConnection.open(url, connect_limit=30, time_limit=3)
        started = time.monotonic()
        async with connection.pipeline():
            cursor = await connection.execute("SELECT length(%s)", ["x" * 2**22])
        assert await cursor.fetchone() == (2**22,)
        assert time.monotonic() - started > 3, "the wire was not slow enough to show anything"
        await connection.close()


Traffic = Callable[..., Awaitable[Any]]


async def _large_results_while_sending(connection: psycopg.AsyncConnection[Any]) -> Any:
    async with connection.pipeline():
        cursors = [
            await connection.execute("SELECT repeat('y', %s), %s", [MAXIMUM_TEXT_SIZE, LARGEST[number:]])
            for number in range(3)
        ]
    return [await cursor.fetchall() for cursor in cursors]


async def _results_read_inside(connection: psycopg.AsyncConnection[Any]) -> Any:
    async with connection.pipeline():
        first = await connection.execute("SELECT %s", [LARGEST])
        found = await first.fetchone()
        second = await connection.execute("SELECT %s", [LARGEST])
    return found, await second.fetchone()


async def _a_sync_in_the_middle(connection: psycopg.AsyncConnection[Any], large: str = LARGEST) -> Any:
    async with connection.pipeline() as pipeline:
        first = await connection.execute("SELECT length(%s) > 1", [large])
        await pipeline.sync()
        second = await connection.execute("SELECT length(%s) > 1", [large])
    return [await first.fetchall(), await second.fetchall()]


async def _nested(connection: psycopg.AsyncConnection[Any], large: str = LARGEST) -> Any:
    async with connection.pipeline():
        first = await connection.execute("SELECT length(%s) > 1", [large])
        async with connection.pipeline():
            second = await connection.execute("SELECT length(%s) > 1", [large])
    return [await first.fetchall(), await second.fetchall()]


async def _a_block_inside(connection: psycopg.AsyncConnection[Any]) -> Any:
    async with connection.pipeline(), connection.transaction():
        await connection.execute("CREATE TEMPORARY TABLE large (content text) ON COMMIT DROP")
        await connection.execute("INSERT INTO large VALUES (%s)", [LARGEST])
        cursor = await connection.execute("SELECT length(content) FROM large")
    return await cursor.fetchall()


async def _many(connection: psycopg.AsyncConnection[Any]) -> Any:
    await connection.execute("CREATE TEMPORARY TABLE large (content text)")
    cursor = connection.cursor()
    await cursor.executemany("INSERT INTO large VALUES (%s)", [(LARGEST,)] * 3)
    count = cursor.rowcount
    await cursor.executemany(
        "INSERT INTO large VALUES (%s) RETURNING length(content)", [(LARGEST,)] * 2, returning=True
    )
    returned = [await results.fetchall() async for results in cursor.results()]
    return count, returned, await (await connection.execute("SELECT sum(length(content)) FROM large")).fetchone()


async def _copied(connection: psycopg.AsyncConnection[Any]) -> Any:
    await connection.execute("CREATE TEMPORARY TABLE large (content text)")
    async with connection.cursor().copy("COPY large FROM STDIN") as copy:
        for _ in range(3):
            await copy.write_row((LARGEST,))
    async with connection.cursor().copy("COPY large TO STDOUT") as copy:
        return [len(row[0]) async for row in copy.rows()]


async def _an_error_first(connection: psycopg.AsyncConnection[Any]) -> Any:
    async with connection.pipeline():
        await connection.execute("SELECT 1/0")
        await connection.execute("SELECT %s", [LARGEST])
        await connection.execute("SELECT %s", [LARGEST])


async def _an_error_last(connection: psycopg.AsyncConnection[Any]) -> Any:
    async with connection.pipeline():
        await connection.execute("SELECT %s", [LARGEST])
        await connection.execute("SELECT %s::int", [LARGEST])


async def _an_exception_of_the_caller(connection: psycopg.AsyncConnection[Any]) -> Any:
    async with connection.pipeline():
        await connection.execute("SELECT %s", [LARGEST])
        raise KeyError("ours")


# Psycopg 3.3 itself does not wait until everything is sent before it reads the results of these.
_HANGS_IN_THE_DRIVER = (_a_sync_in_the_middle, _nested)


@pytest.mark.parametrize(
    "traffic",
    [
        _large_results_while_sending, _results_read_inside, _a_sync_in_the_middle, _nested, _a_block_inside, _many,
        _copied, _an_error_first, _an_error_last, _an_exception_of_the_caller,
    ],
)  # fmt: skip
async def test_our_connection_does_what_the_drivers_own_does(traffic: Traffic, migrated: Settings) -> None:
    async with await psycopg.AsyncConnection.connect(address_of(migrated), autocommit=True) as own:
        expected = await _outcome(own, partial(traffic, large="small") if traffic in _HANGS_IN_THE_DRIVER else traffic)
    async with NarrowWire(address_of(migrated)).open() as url:
        ours = await DriverConnection.open(url, connect_limit=30, time_limit=20)
        async with ours:
            assert await _outcome(ours, traffic) == expected
            assert ours.is_idle
            assert await (await ours.execute("SELECT 1")).fetchone() == (1,)


async def _outcome(connection: psycopg.AsyncConnection[Any], traffic: Traffic) -> Any:
    try:
        found = await traffic(connection)
    except Exception as error:  # noqa: BLE001  (compared)
        found = type(error), str(error)[:60]
    return found, connection.info.transaction_status, connection.info.pipeline_status
