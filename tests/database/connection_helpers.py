"""What the tests of connections share: a wire to cut, settings, and questions to the server. It has no tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Self

import psycopg
from sqlalchemy import text

from data_layer import DataLayer, Settings
from data_layer.testing.postgresql_server import PostgresqlServer

PATIENCE = 30.0  # Seconds after which a test gives up; nothing is expected to take so long.


def settings_for(database_url: str | None, base: Settings, folder: Path, **values: Any) -> Settings:
    """Settings for a database, with the Valkey of the base."""
    assert base.redis.redis_url
    return Settings(
        environment="testing",
        database_url=database_url,
        redis_url=base.redis.redis_url.get_secret_value(),
        redis_key_prefix="test-connections",
        local_storage_path=folder / "uploads",
        **values,
    )


def create_and_migrate(server: PostgresqlServer, base: Settings, folder: Path) -> None:
    """Make the database ``test`` with our tables."""

    async def prepare() -> None:
        async with DataLayer(settings_for(server.url("test"), base, folder), prepare=True):
            pass

    asyncio.run(prepare())


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(PATIENCE):
        while not await holds():
            await asyncio.sleep(0.02)


async def count_connections(observer: psycopg.AsyncConnection[Any], application: str) -> int:
    """How many connections an application has, as the server sees it."""
    cursor = await observer.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = %s",
        (application,),
        prepare=True,
    )
    row = await cursor.fetchone()
    assert row
    return int(row[0])


@asynccontextmanager
async def observing(database_url: str) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    """A connection beside those that are tested."""
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as observer:
        yield observer


async def backend_pid(data: DataLayer) -> int:
    """The number of the server's process for the connection that the pool gives next."""
    async with data.transaction() as tx:
        return int((await tx.execute(text("SELECT pg_backend_pid()"))).scalar_one())


async def emails(data: DataLayer) -> list[str]:
    """The e-mail addresses of all users."""
    async with data.transaction() as tx:
        return list((await tx.execute(text("SELECT email FROM users ORDER BY email"))).scalars())


def messages(error: BaseException | None) -> Iterator[str]:
    """What an error and everything that it came from says."""
    while error is not None:
        yield f"{error} {error!r} {error.args}"
        error = error.__cause__ or error.__context__


class Wire:
    """Leads from a port of its own to a server, and can be frozen, or cut when a word passes."""

    def __init__(self, port: int) -> None:
        self.port = 0
        self.thawed = asyncio.Event()
        self.thawed.set()
        self.cuts = 0
        self.seen = 0
        self._target = port
        self._word = b""
        self._swallows_answer = False
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.close()
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        """The address of the database ``test`` through this wire."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/test?sslmode=disable"

    def cut_at(self, word: bytes, *, after: bool = False) -> None:
        """Cut the next connection on which the client says the word: before the server hears it, or after."""
        self._word, self._swallows_answer = word, after

    def freeze_from(self, connection: int) -> None:
        """Forward nothing on connections from this one on; 0 is the first."""
        self._frozen_from = connection

    _frozen_from: int | None = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number, self.seen = self.seen, self.seen + 1
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._target)
        self._writers += [writer, server_writer]
        if self._frozen_from is not None and number >= self._frozen_from:
            return
        ends = (writer, server_writer)
        muted = asyncio.Event()
        for pump in (
            self._pump(reader, server_writer, ends, muted=muted, listens=True),
            self._pump(server_reader, writer, ends, muted=muted, listens=False),
        ):
            task = asyncio.create_task(pump)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(
        self,
        source: asyncio.StreamReader,
        target: asyncio.StreamWriter,
        ends: tuple[asyncio.StreamWriter, asyncio.StreamWriter],
        *,
        muted: asyncio.Event,
        listens: bool,
    ) -> None:
        with suppress(ConnectionError):
            while data := await source.read(65536):
                await self.thawed.wait()
                if listens and self._word and self._word in data:
                    self._word = b""
                    self.cuts += 1
                    if not self._swallows_answer:
                        break
                    muted.set()
                elif not listens and muted.is_set():
                    break
                target.write(data)
                await target.drain()
        for end in ends:
            end.close()
