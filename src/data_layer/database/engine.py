"""The engine and its pool: a bounded number of connections, opened early, checked cheaply, replaced when stale."""

from __future__ import annotations

import asyncio
import json
import os
import select
import socket
import traceback
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeVar

import psycopg
from psycopg.pq import TransactionStatus
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import QueuePool

from data_layer.database.address import session_values
from data_layer.database.failures import SilentServerError, translated
from data_layer.database.schema_state import SchemaState, read_schema_state
from data_layer.errors import DatabaseUnavailableError, NotInitializedError
from data_layer.observability.log import get_log

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from psycopg.abc import PQGen

    from data_layer.config import Settings
    from data_layer.database.address import DatabaseAddress

log = get_log(__name__)

# How much longer than the server's own limit a client waits before it gives a silent server up.
_GRACE_SECONDS = 5.0
# How long a cancelled statement may keep its caller when the server does not even take the cancellation, and how long
# a closed connection is waited for.
_CANCEL_SECONDS = 1.0
_WAKE_SECONDS = 0.1
Result = TypeVar("Result")


class _Pipeline(psycopg.AsyncPipeline):
    """Statements that travel together, ended by Sync alone.

    The driver sends a Flush after it, and PostgreSQL then no longer counts for how long the transaction is idle.
    """

    def _exit_gen(self) -> PQGen[None]:
        try:
            yield from self._sync_gen()
        except psycopg.Error:
            yield from self._fetch_gen(flush=False)
            raise


class DriverConnection(psycopg.AsyncConnection[Any]):
    """A connection that gives a silent server up: no answer is awaited for longer than ``time_limit``."""

    time_limit: float | None = None

    @classmethod
    async def open(cls, *address: str, connect_limit: float, time_limit: float, **options: Any) -> Self:
        """Connect within ``connect_limit`` seconds, looking up the name included."""
        try:
            async with asyncio.timeout(connect_limit):
                connection = await cls._connect(*address, **options)
        except TimeoutError:
            text = f"connection failed: no answer within {connect_limit:g} s (DB_CONNECT_TIMEOUT)"
            raise psycopg.errors.ConnectionTimeout(text) from None
        connection.time_limit = time_limit
        return connection

    @classmethod
    async def _connect(cls, *address: str, **options: Any) -> Self:
        try:
            return await cls.connect(*address, autocommit=True, **options)
        except BaseException as error:
            # A half-made connection stays open for as long as somebody keeps the error, which knows it.
            traceback.clear_frames(error.__traceback__)
            raise

    async def close(self) -> None:
        """Close; in the middle of something also wait for the server to let go, lest a successor be one too many."""
        if self.closed or self.is_idle:
            await super().close()
            return
        with socket.socket(fileno=os.dup(self.fileno())) as line, suppress(OSError, TimeoutError):
            await super().close()
            async with asyncio.timeout(_CANCEL_SECONDS):
                while await asyncio.get_running_loop().sock_recv(line, 4096):
                    pass

    async def wait(self, gen: PQGen[Result], interval: float = _WAKE_SECONDS, timeout: float | None = None) -> Result:  # noqa: ASYNC109  (the driver's interface)
        """Wait for the server, as everything that the driver does."""
        limit = self.time_limit if timeout is None else timeout
        try:
            return await super().wait(gen, interval, limit)
        except psycopg.errors._WaitTimeout:  # noqa: SLF001  (the driver's documentation of this method names it)
            if timeout is not None:
                raise
            self.pgconn.finish()
            text = f"PostgreSQL did not answer for {limit:g} s; the connection was given up"
            raise SilentServerError(text) from None

    async def cancel_safe(self, *, timeout: float = _CANCEL_SECONDS) -> None:  # noqa: ASYNC109  (the driver's interface)
        """Ask the server to cancel the statement; give the connection up when it cannot be asked."""
        try:
            await super().cancel_safe(timeout=min(timeout, _CANCEL_SECONDS))
        except psycopg.Error:
            self.pgconn.finish()
            raise

    @asynccontextmanager
    async def pipeline(self) -> AsyncIterator[psycopg.AsyncPipeline]:
        """Send the statements inside together."""
        async with super().pipeline() as pipeline:
            pipeline.__class__ = _Pipeline
            yield pipeline

    @contextmanager
    def limited(self, seconds: float) -> Iterator[None]:
        """Have less patience inside."""
        usual, self.time_limit = self.time_limit, seconds
        try:
            yield
        finally:
            self.time_limit = usual

    @property
    def is_idle(self) -> bool:
        """Whether it is open, between transactions and between statements, as far as the driver knows."""
        return not self.closed and self.info.transaction_status == TransactionStatus.IDLE

    @property
    def has_hung_up(self) -> bool:
        """Whether the server has closed the connection, or its process has ended."""
        return self.closed or bool(self._poll() & _HUNG_UP)

    @property
    def is_stale(self) -> bool:
        """Whether the server has said something, which on an idle connection can only be its end.

        A parameter that changed on a reload looks the same; then one connection is replaced for nothing.
        """
        return self.closed or bool(self._poll())

    def _poll(self) -> int:
        poll = select.poll()
        poll.register(self.fileno(), select.POLLIN | _HUNG_UP)
        return next((events for _, events in poll.poll(0)), 0)


# POLLRDHUP: on Linux, a TCP connection of which only the other side's half is closed.
_HUNG_UP = select.POLLHUP | select.POLLERR | getattr(select, "POLLRDHUP", 0)


class Database:
    """A pool of connections to one PostgreSQL database.

    Connections are in autocommit mode: ``Transaction`` begins when the first change is made, so that a single read
    needs a single round trip.
    """

    def __init__(self, settings: Settings, address: DatabaseAddress) -> None:
        self.address = address
        self.reads_need_transaction = settings.db_pgbouncer
        self.begin_statements = _begin_statements(settings)
        self.logs_statements = settings.db_logging
        self._settings = settings
        self._engine: AsyncEngine | None = None

    @property
    def engine(self) -> AsyncEngine:
        """SQLAlchemy's engine, for what the repositories do not cover. Its connections are in autocommit mode.

        Raises:
            NotInitializedError: before ``open`` and after ``close``.
        """
        if self._engine is None:
            raise NotInitializedError("the database is not open; use the data layer inside `async with`")
        return self._engine

    def prepare(self) -> None:
        """Make the pool without opening a connection."""
        if self._engine is None:
            self._engine = _make_engine(self._settings, self.address)

    async def open(self) -> None:
        """Open DB_MIN_CONNECTIONS connections.

        Raises:
            DatabaseError: when the server cannot be reached or refuses us; nothing stays open then.
        """
        self.prepare()
        try:
            await self._open_minimum()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Close all connections; those in use are closed when they come back."""
        engine, self._engine = self._engine, None
        if engine is not None:
            await engine.dispose()

    async def connect(self) -> AsyncConnection:
        """A connection from the pool that is alive as far as can be told without asking the server.

        Raises:
            PoolTimeoutError: when none became free in time.
            DatabaseUnavailableError: when a new one cannot be made.
        """
        with translated():
            connection = await self.engine.connect()
            for _ in range(self._settings.db_max_connections):
                if not driver_of(connection).is_stale:
                    break
                log.info("database_connection_replaced", reason="closed by the server")
                await discard(connection)
                connection = await self.engine.connect()
        return connection

    async def give_back(self, connection: AsyncConnection) -> None:
        """Take a connection back that is between transactions; the pool may have been closed meanwhile."""
        if not self._belongs_to_pool(connection):
            await discard(connection)
            return
        others_may_wait = self.pool_figures()["idle"] == 0
        await connection.close()
        if others_may_wait:
            # Whoever waits is woken in the next turn of the loop: without it this task could take it back at once.
            await asyncio.sleep(0)

    def can_take_back(self, connection: AsyncConnection) -> bool:
        """Whether ``give_back`` puts this connection into the pool before it waits for anything."""
        return self._belongs_to_pool(connection) and not connection.invalidated and driver_of(connection).is_idle

    def _belongs_to_pool(self, connection: AsyncConnection) -> bool:
        return self._engine is not None and connection.sync_engine is self._engine.sync_engine

    async def schema(self) -> SchemaState:
        """How the tables in the database relate to those that this version needs; one query when they fit."""
        connection = await self.connect()
        try:
            with translated():
                return await connection.run_sync(read_schema_state)
        finally:
            await self.give_back(connection)

    def pool_figures(self) -> dict[str, int]:
        """How many connections there may be, are in use, and wait for use."""
        pool = self.engine.pool
        if not isinstance(pool, QueuePool):
            raise TypeError("the engine has another pool than the one it was made with")
        return {"maximum": pool.size(), "in_use": pool.checkedout(), "idle": pool.checkedin()}

    async def _open_minimum(self) -> None:
        opened: list[AsyncConnection] = []

        async def open_one() -> None:
            opened.append(await self.connect())

        # At least one, so that a wrong address or password is found at start.
        attempts = [open_one() for _ in range(max(1, self._settings.db_min_connections))]
        try:
            results = await asyncio.gather(*attempts, return_exceptions=True)
        finally:
            for connection in opened:
                await self.give_back(connection)
        for result in results:
            if result is not None:
                raise result


def driver_of(connection: AsyncConnection) -> DriverConnection:
    """Psycopg's own connection, for the few statements that do without SQLAlchemy.

    Raises:
        DatabaseUnavailableError: when the connection was given up.
    """
    proxied = connection.sync_connection
    driver = None if proxied is None or proxied.invalidated else proxied.connection.driver_connection
    if not isinstance(driver, DriverConnection):
        raise DatabaseUnavailableError("the connection to PostgreSQL broke earlier; repeat the transaction")
    return driver


async def discard(connection: AsyncConnection) -> None:
    """Close a connection that must not be used again; the pool makes a new one when it needs it."""
    if not connection.invalidated:
        await connection.invalidate()
    await connection.close()


def _begin_statements(settings: Settings) -> tuple[str, ...]:
    """PgBouncer drops the options of a connection, so its transactions set them themselves."""
    if not settings.db_pgbouncer:
        return ("BEGIN",)
    values = (f"set_config('{name}', '{value}', true)" for name, value in session_values(settings).items())
    return ("BEGIN", f"SELECT {', '.join(values)}")


def _make_engine(settings: Settings, address: DatabaseAddress) -> AsyncEngine:
    connect = partial(
        DriverConnection.open,
        connect_limit=settings.db_connect_timeout * address.host_count,
        time_limit=settings.db_statement_timeout + _GRACE_SECONDS,
    )
    engine = create_async_engine(
        address.url,
        connect_args=address.options | {"async_creator_fn": connect},
        pool_size=settings.db_max_connections,
        max_overflow=0,
        pool_timeout=settings.db_pool_timeout,
        pool_use_lifo=True,
        # Transaction ends every transaction itself, and discards a connection that it could not end.
        pool_reset_on_return=None,
        skip_autocommit_rollback=True,
        json_serializer=_to_json,
        native_inet_types=False,
        use_native_hstore=False,
        hide_parameters=True,
    )
    if settings.db_logging:
        event.listen(engine.sync_engine, "before_cursor_execute", _log_statement)
    return engine


def _log_statement(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
    log.debug("statement_executed", sql=statement)


def _to_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
