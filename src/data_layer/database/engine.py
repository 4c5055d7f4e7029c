"""The engine and its pool: a bounded number of connections, opened early, checked cheaply, replaced when stale."""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from time import perf_counter
from typing import Any, Final, cast

import psycopg
from pydantic_core import from_json
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool, ConnectionPoolEntry, QueuePool
from typing_extensions import override

from data_layer.concurrency import uninterrupted
from data_layer.context import Priority, current_patience
from data_layer.database.address import DatabaseAddress, session_statement, session_values
from data_layer.database.driver import NO_CONNECTION_FREE, READ_ONLY, DriverConnection, translated
from data_layer.database.observation import Observation
from data_layer.database.schema_check import SchemaState, read_schema_state
from data_layer.database.statements import NamedQuery, Statement
from data_layer.errors import DatabaseOverloadedError, DatabaseUnavailableError, NotInitializedError, PoolTimeoutError
from data_layer.observability.log import get_log
from data_layer.settings.database import DatabaseSettings

log = get_log(__name__)

BEGIN: Final = NamedQuery("transaction.begin", "BEGIN")
_BEGIN_READ_COMMITTED: Final = NamedQuery("transaction.begin", "BEGIN ISOLATION LEVEL READ COMMITTED")

_CHECK_SECONDS = 0.05
_Turn = asyncio.Future[None]
_Place = tuple[_Turn, float]
"""A turn, and when the task gives up, in seconds of the monotonic clock."""
_NO_OPTIONS: Final[Mapping[str, object]] = {}
# How much longer than the server's own limit a client waits before it gives a silent server up.
_GRACE_SECONDS = 5.0


class _LentPool(AsyncAdaptedQueuePool):
    """A pool whose user keeps idle connections, and puts them back when others want them."""

    _sqla_logger_namespace = "sqlalchemy.pool"  # Or else it would log as one of our modules.
    take_back_one: Callable[[], bool]

    @override
    def _do_get(self) -> ConnectionPoolEntry:
        if not self.checkedin():
            self.take_back_one()
        return super()._do_get()


class ConnectionQueue:
    """Which task gets the next connection while all are in use, and which is refused.

    The pool itself lets any number of tasks wait, in the order in which they came. Here a probe comes first, then what
    is shed last, then everything else, each in the order in which it came. At most DB_POOL_QUEUE ordinary tasks wait;
    one more is refused at once, because it would hardly be served in time.

    ``data_layer.context.current_patience`` gives the priority of a task. Work that no request began is shed last: it
    may hold what is stored nowhere else.

    Args:
        free: how many connections can be taken at once.
        most: how many ordinary tasks may wait (DB_POOL_QUEUE).
        seconds: how long a task waits that names no time of its own (DB_POOL_TIMEOUT).
    """

    def __init__(self, free: Callable[[], int], *, most: int, seconds: float) -> None:
        self._free = free
        self._most = most
        self._seconds = seconds
        self._queues: dict[Priority, deque[_Place]] = {priority: deque() for priority in Priority}
        self._length = 0
        self._promised = 0
        self._check: asyncio.TimerHandle | None = None

    @property
    def is_needed(self) -> bool:
        """Whether a task that wants a connection now has to wait."""
        return self._length > 0 or self._free() <= self._promised

    async def wait(self) -> None:
        """Return when a connection is free. The caller takes it before it awaits anything.

        Raises:
            DatabaseOverloadedError: too many tasks wait.
            PoolTimeoutError: no connection became free in time.
        """
        patience = current_patience()
        queue = self._queues[patience.priority]
        if patience.priority is Priority.ORDINARY and len(queue) >= self._most:
            raise DatabaseOverloadedError(
                f"all connections to PostgreSQL are in use, and {self._most} tasks wait for one (DB_POOL_QUEUE); "
                "repeat it in a few seconds"
            )
        turn: _Turn = asyncio.get_running_loop().create_future()
        seconds = None if patience.seconds is None else patience.seconds()
        place = turn, time.monotonic() + (self._seconds if seconds is None else seconds)
        queue.append(place)
        self._length += 1
        self._check_soon()
        try:
            await turn
        except BaseException:
            self._leave(queue, place)
            raise
        self._promised -= 1

    def wake(self) -> None:
        """Let tasks go on for which connections are free."""
        while self._length and self._free() > self._promised:
            queue = next(queue for queue in self._queues.values() if queue)
            turn, _ = queue.popleft()
            self._length -= 1
            if not turn.done():
                self._promised += 1
                turn.set_result(None)

    def _leave(self, queue: deque[_Place], place: _Place) -> None:
        turn, _ = place
        if turn.done() and not turn.cancelled() and turn.exception() is None:
            # It was let through at the moment at which it gave up.
            self._promised -= 1
            self.wake()
            return
        with suppress(ValueError):
            queue.remove(place)
            self._length -= 1

    def _check_soon(self) -> None:
        """Look again soon: a connection may become free in other ways than by ``Database.give_back``.

        It is one timer for all tasks that wait, because one for each would be a third of what waiting costs.
        """
        if self._check is None:
            self._check = asyncio.get_running_loop().call_later(_CHECK_SECONDS, self._check_now)

    def _check_now(self) -> None:
        self._check = None
        self.wake()
        now = time.monotonic()
        for queue in self._queues.values():
            for place in [place for place in queue if place[1] <= now]:
                queue.remove(place)
                self._length -= 1
                if not place[0].done():
                    place[0].set_exception(PoolTimeoutError(NO_CONNECTION_FREE))
        if self._length:
            self._check_soon()


class Database:
    """A pool of connections to one PostgreSQL database.

    SQLAlchemy's pool limits, opens and closes them. Those that are idle are kept here, ready for use, and go back into
    the pool when ``engine`` is asked for one.

    Connections are in autocommit mode: ``Transaction`` begins when the first change is made, so that a single read
    needs a single round trip.
    """

    def __init__(self, settings: DatabaseSettings, address: DatabaseAddress) -> None:
        self.address = address
        self.is_read_only = False
        self.tells_position = bool(settings.db_replica_hosts)
        self.reads_need_transaction = settings.db_pgbouncer
        self.begin_statements = _begin_statements(settings)
        self.logs_statements = settings.db_logging
        self.observation = Observation(settings)
        self._settings = settings
        self._engine: AsyncEngine | None = None
        self._at_hand: list[AsyncConnection] = []
        self._trusted_since = 0.0
        self.waiting = 0
        """How many tasks wait for a connection."""
        self._queue = ConnectionQueue(self._free, most=settings.db_pool_queue, seconds=settings.db_pool_timeout)

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
            cast("_LentPool", self._engine.pool).take_back_one = self._return_one
            self.observation.observe_engine(self._engine.sync_engine)

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
        while self._return_one():
            pass
        if engine is not None:
            await engine.dispose()

    async def connect(self) -> AsyncConnection:
        """A connection from the pool that is alive as far as can be seen without asking the server.

        Raises:
            PoolTimeoutError: when none became free in time.
            DatabaseOverloadedError: when too many tasks wait for one.
            DatabaseUnavailableError: when a new one cannot be made.
        """
        started = perf_counter()
        self.waiting += 1
        try:
            with translated():
                connection = await self._connect()
        except BaseException as error:
            self.observation.connection_awaited(started, error)
            raise
        finally:
            self.waiting -= 1
        if self.observation.observers:
            self.observation.connection_awaited(started)
        return connection

    async def _connect(self) -> AsyncConnection:
        if self._queue.is_needed:
            await self._queue.wait()
        try:
            connection = self._at_hand.pop() if self._at_hand else await self.engine.connect()
        except BaseException:
            self._queue.wake()
            raise
        for _ in range(self._settings.db_max_connections):
            driver = driver_of(connection)
            if not driver.is_stale and driver.opened_at >= self._trusted_since:
                break
            log.info("database_connection_replaced", reason="closed by the server, or older than its change of role")
            await discard(connection)
            connection = self._at_hand.pop() if self._at_hand else await self.engine.connect()
        return connection

    async def give_back(self, connection: AsyncConnection) -> None:
        """Take a connection back that is between transactions; the pool may have been closed meanwhile."""
        if not self.owns(connection):
            await discard(connection)
            return
        others_may_wait = not self._at_hand and cast("QueuePool", self.engine.pool).checkedin() == 0
        proxied = connection.sync_connection
        if proxied is None or proxied.in_transaction() or proxied.get_execution_options() != _NO_OPTIONS:
            await connection.close()
        else:  # To close it and open another one would cost more than many a statement.
            self._at_hand.append(connection)
        self._queue.wake()
        if others_may_wait:
            # A waiting task is woken in the next turn of the loop: without it this task could take it back at once.
            await asyncio.sleep(0)

    def can_take_back(self, connection: AsyncConnection) -> bool:
        """Whether ``give_back`` puts this connection into the pool before it waits for anything."""
        driver = _driver_or_none(connection)
        return driver is not None and self.owns(connection) and driver.is_idle

    def owns(self, connection: AsyncConnection) -> bool:
        """Whether a connection comes from the pool that is open now."""
        return self._engine is not None and connection.sync_engine is self._engine.sync_engine

    def leave_replicas(self) -> bool:
        """Its connections are the primary's anyway."""
        return False

    def report_error(self, connection: AsyncConnection, error: psycopg.Error) -> None:
        """Record the error that broke a connection.

        Where several servers are named, one that takes no writes has become a standby: no older connection is used
        again.
        """
        if self.owns(connection) and error.sqlstate == READ_ONLY and self.address.host_count > 1:
            self._trusted_since = time.monotonic()

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
        at_hand = len(self._at_hand)
        return {
            "maximum": pool.size(),
            "in_use": pool.checkedout() - at_hand,
            "idle": pool.checkedin() + at_hand,
        }

    def _free(self) -> int:
        """How many connections can be taken at once; once the pool is closed nobody needs to wait to learn it."""
        if self._engine is None:
            return self._settings.db_max_connections
        pool = cast("QueuePool", self._engine.pool)
        return len(self._at_hand) + pool.size() - pool.checkedout()

    def _return_one(self) -> bool:
        """Put a connection that is kept at hand back into SQLAlchemy's pool; whether there was one."""
        if not self._at_hand:
            return False
        proxied = self._at_hand.pop().sync_connection
        if proxied is not None:
            proxied.close()
        return True

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
    driver = _driver_or_none(connection)
    if driver is None:
        raise DatabaseUnavailableError("the connection to PostgreSQL broke earlier; repeat the transaction")
    return driver


def _driver_or_none(connection: AsyncConnection) -> DriverConnection | None:
    proxied = connection.sync_connection
    driver = None if proxied is None or proxied.invalidated else proxied.connection.driver_connection
    return driver if isinstance(driver, DriverConnection) else None


async def discard(connection: AsyncConnection) -> None:
    """Close a connection that must not be used again; the pool makes a new one when it needs it."""
    if not connection.invalidated:
        await connection.invalidate()
    await connection.close()


@asynccontextmanager
async def driver_connection(database: Database) -> AsyncIterator[DriverConnection]:
    """Lend the driver's own connection for single statements that belong to no transaction of a caller.

    It is in autocommit mode, and goes back clean, or not at all.

    Raises:
        DataLayerError: for what the driver raises inside.
    """
    connection = await database.connect()
    try:
        with translated():
            yield driver_of(connection)
    finally:
        await uninterrupted(_release(database, connection))


async def _release(database: Database, connection: AsyncConnection) -> None:
    if not connection.invalidated and driver_of(connection).is_idle:
        await database.give_back(connection)
    else:
        await discard(connection)


def _begin_statements(settings: DatabaseSettings) -> tuple[Statement, ...]:
    """PgBouncer drops the options of a connection, so its transactions set them themselves."""
    if not settings.db_pgbouncer:
        return ((BEGIN, None),)
    values = NamedQuery("transaction.settings", session_statement(session_values(settings), is_local=True))
    return (_BEGIN_READ_COMMITTED, None), (values, None)


def _make_engine(settings: DatabaseSettings, address: DatabaseAddress) -> AsyncEngine:
    connect = partial(
        DriverConnection.open,
        connect_limit=settings.db_connect_timeout * address.host_count,
        time_limit=settings.db_statement_timeout + _GRACE_SECONDS,
        first=address.first_statement,
    )
    engine = create_async_engine(
        address.url,
        connect_args=address.options | {"async_creator_fn": connect},
        poolclass=_LentPool,
        pool_size=settings.db_max_connections,
        max_overflow=0,
        pool_timeout=settings.db_pool_timeout,
        pool_use_lifo=True,
        # Transaction ends every transaction itself, and discards a connection that it could not end.
        pool_reset_on_return=None,
        skip_autocommit_rollback=True,
        json_serializer=_to_json,
        json_deserializer=_from_json,
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


def _from_json(stored: bytes) -> Any:
    """A value of jsonb. Python's own reader takes many times as long, but reads whatever somebody nested by hand."""
    try:
        return from_json(stored, cache_strings="keys")
    except ValueError:
        return json.loads(stored)
