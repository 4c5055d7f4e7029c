"""One transaction on one connection: begun late, ended certainly, repeated when nothing can have happened yet."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, nullcontext, suppress
from time import perf_counter
from typing import Any, Protocol, TypeVar

import psycopg
from psycopg.pq import TransactionStatus
from sqlalchemy.ext.asyncio import AsyncConnection

from data_layer.concurrency import uninterrupted
from data_layer.database.driver import FAILED_BEFORE, DriverConnection, needs_new_connection, translated, was_refused
from data_layer.database.engine import discard, driver_of
from data_layer.database.observation import Observation
from data_layer.database.statements import NamedQuery, Statement
from data_layer.errors import (
    CommitUnknownError,
    DatabaseError,
    DatabaseUnavailableError,
    DataLayerError,
    TransactionClosedError,
    TransactionError,
)
from data_layer.observability.log import get_log
from data_layer.schemas.base import Outcome

log = get_log(__name__)
Result = TypeVar("Result")

POSITION_SQL = NamedQuery("replication.position", "SELECT pg_current_wal_flush_lsn()::text")
COMMIT = NamedQuery("transaction.commit", "COMMIT")
ROLLBACK = NamedQuery("transaction.rollback", "ROLLBACK")
_STAY = NamedQuery("exclusive_run.stay", "SELECT set_config('idle_in_transaction_session_timeout', '0', true)")
_LOCK = NamedQuery("exclusive_run.lock", "SELECT pg_try_advisory_xact_lock(%s)")
END_OF_LOG = "FFFFFFFF/FFFFFFFF"
_ROLLBACK_SECONDS = 5.0
# How much longer a cancelled caller waits to learn whether a commit happened.
_CANCELLED_COMMIT_SECONDS = 3.0
# The garbage collector shall find the generator that holds a transaction, which the event loop then closes, and not its
# connection, which SQLAlchemy would drop in the middle of the transaction.
_in_use: set[AsyncConnection] = set()
_INSIDE = frozenset({TransactionStatus.INTRANS, TransactionStatus.INERROR})


class ConnectionSource(Protocol):
    """What a transaction needs of its database: of the primary, or of whatever is fresh enough to be read."""

    is_read_only: bool
    """Whether changes are refused."""

    tells_position: bool
    """Whether it has to be known where PostgreSQL's log was after a commit."""

    reads_need_transaction: bool
    begin_statements: tuple[Statement, ...]
    logs_statements: bool

    observation: Observation
    """Receives what happens on its connections."""

    async def connect(self) -> AsyncConnection:
        """A connection that is alive as far as can be seen without asking the server.

        Raises:
            PoolTimeoutError: when none became free in time.
            DatabaseUnavailableError: when a new one cannot be made.
        """
        ...

    async def give_back(self, connection: AsyncConnection) -> None:
        """Take a connection back that is between transactions."""
        ...

    def can_take_back(self, connection: AsyncConnection) -> bool:
        """Whether ``give_back`` puts this connection into a pool before it waits for anything."""
        ...

    def leave_replicas(self) -> bool:
        """Take further connections from the primary; whether they may have come from a replica so far."""
        ...

    def report_error(self, connection: AsyncConnection, error: psycopg.Error) -> None:
        """Record the error that broke a connection: its server may be unusable, too."""
        ...


class Transaction:
    """A transaction that takes its connection at the first statement and begins at the first change.

    PostgreSQL's READ COMMITTED takes a new snapshot for each statement, so reads before the first change see the same
    with and without a transaction around them. A connection that turns out to be dead while nothing has begun is
    replaced, and the statement repeated once.
    """

    def __init__(self, database: ConnectionSource) -> None:
        self._database = database
        self._connection: AsyncConnection | None = None
        self._observation: Observation = database.observation
        self._first_used: float | None = None
        self.outcome = Outcome.READ_ONLY
        """How it ended; while it is open, how it would end without a commit."""
        self._is_open: bool | None = None  # None until it is opened for the first and only time.
        self.has_begun = False
        self.position: str | None = None
        """Where PostgreSQL's log was after the commit, if the database reports it."""

    def open(self) -> None:
        """Allow statements from here to ``close``.

        Raises:
            TransactionClosedError: when it was used before.
        """
        if self._is_open is not None:
            raise TransactionClosedError("a transaction can be used once: call transaction() again for another one")
        self._is_open = True

    def require_open(self) -> None:
        """Refuse use outside of the block.

        Raises:
            TransactionClosedError: before ``open`` and after ``close``.
        """
        if not self._is_open:
            raise TransactionClosedError("the transaction is not open: use it inside its `async with` block")

    def require_writable(self) -> None:
        """Refuse changes in a transaction that only reads.

        Raises:
            TransactionError: when it does.
        """
        if self._database.is_read_only:
            raise TransactionError("this transaction only reads: change rows in one without read_only=True")

    async def connection(self) -> AsyncConnection:
        """The connection, in SQLAlchemy's clothes."""
        self.require_open()
        if self._connection is None:
            started = perf_counter()
            self._connection = await self._database.connect()
            _in_use.add(self._connection)
            self._first_used = self._first_used or started
        return self._connection

    async def begin(self) -> None:
        """Begin, unless it has begun."""
        await self.run([])

    async def fetch_one(self, sql: NamedQuery, parameters: Sequence[Any]) -> tuple[Any, ...] | None:
        """The first row of a single read."""
        rows = await self.fetch_all((sql, parameters))
        return rows[0][0] if rows[0] else None

    async def fetch_all(self, *queries: Statement) -> list[list[tuple[Any, ...]]]:
        """The rows of each read, all in one round trip."""
        if self._database.reads_need_transaction:
            await self.begin()
        sent = self._commented(queries)
        self._log(*queries)
        with self._observation.timed(*queries):
            return await self._execute(lambda driver: _fetch(driver, sent))

    async def run(self, statements: Sequence[Statement]) -> list[list[tuple[Any, ...]]]:
        """Run statements in one round trip, begun first if need be; the rows of each."""
        if statements:
            self.require_writable()
        beginning = () if self.has_begun else self._database.begin_statements
        if not beginning and not statements:
            return []

        self._log(*statements)
        sent = [*beginning, *self._commented(statements)]
        try:
            with self._observation.timed(*(statements or beginning)):
                rows = await self._execute(lambda driver: _send(driver, sent))
        finally:
            self.has_begun = self.has_begun or self._is_inside()
            if self.has_begun:
                self.outcome = Outcome.ROLLED_BACK  # Unless it is committed.
        return rows[len(beginning) :]

    async def copy(self, sql: NamedQuery, rows: Iterable[Sequence[str | None]]) -> None:
        """Send rows with ``COPY … FROM STDIN``; each value is a text as PostgreSQL reads it."""
        self.require_writable()
        await self.begin()
        self._log((sql, None))
        driver = driver_of(await self.connection())
        with self._observation.timed((sql, None)), translated():
            async with driver.cursor().copy(sql.encode()) as copy:
                for row in rows:
                    await copy.write_row(row)

    async def leave_replica(self) -> bool:
        """Go on reading from the primary; whether that makes a difference.

        In READ COMMITTED each statement has a snapshot of its own, so that what reads can go on anywhere.
        """
        if not self._database.leave_replicas():
            return False
        await self._discard()
        self.has_begun = False
        return True

    @property
    def can_commit_at_once(self) -> bool:
        """Whether the first changes can be sent together with their commit."""
        return not self.has_begun and not self._database.is_read_only and len(self._database.begin_statements) == 1

    async def run_and_commit(self, statements: Sequence[Statement]) -> list[list[tuple[Any, ...]]]:
        """Run the only statements that change something and commit them, all in one round trip.

        Statements that are sent together without BEGIN are one transaction, which ends with them (PostgreSQL manual,
        "Pipelining" in the chapter on the protocol).

        Raises:
            CommitUnknownError: when the connection broke before the answer.
        """
        self._log(*statements)
        if self._connection is not None and driver_of(self._connection).has_hung_up:
            await self._discard()
        sent = self._commented(statements)
        try:
            with self._observation.timed(*statements):
                rows = await self._execute(lambda driver: _send_and_commit(driver, sent), may_repeat=was_refused)
        except BaseException as error:
            self.outcome = _outcome_after(error)
            raise
        await self._end_committed()
        return rows

    async def _end_committed(self) -> None:
        self.has_begun = False
        self.outcome = Outcome.COMMITTED
        if self._database.tells_position:
            self.position = await self._find_position()

    async def _find_position(self) -> str:
        try:
            driver = driver_of(await self.connection())
            with self._observation.timed((POSITION_SQL, None)):
                cursor = await driver.execute(POSITION_SQL)
            row = await cursor.fetchone()
        except (psycopg.Error, DatabaseError) as error:
            log.info("position_unknown", reason=type(error).__name__)
            row = None
        return row[0] if row else END_OF_LOG

    async def commit(self) -> None:
        """Make the changes last.

        Raises:
            CommitUnknownError: when the connection broke before the answer.
            DatabaseUnavailableError: when it had been broken before.
            TransactionError: when a statement had failed, so that there is nothing to commit.
            ConflictError: when a deferred rule is broken.
        """
        if not self.has_begun:
            return
        driver = driver_of(await self.connection())
        in_doubt = nullcontext() if driver.has_hung_up else _CommitInDoubt(driver)
        try:
            with self._observation.timed((COMMIT, None)), translated(), in_doubt:
                cursor = await driver.execute(COMMIT)
        except BaseException as error:
            self.outcome = _outcome_after(error)
            raise
        if cursor.statusmessage != "COMMIT":
            raise TransactionError(FAILED_BEFORE)
        await self._end_committed()

    def shorten_commit(self, commit: asyncio.Task[object]) -> None:
        """Wait no longer than a moment for the answer to a commit whose caller was cancelled.

        Args:
            commit: the task that commits; cancelled while nothing was sent.
        """
        if self._connection is None:
            commit.cancel()
        elif not self._connection.invalidated:
            driver_of(self._connection).time_limit = _CANCELLED_COMMIT_SECONDS

    async def cancel_statement(self) -> None:
        """Have the server stop the statement that another task executes; without an answer the connection is closed."""
        if self._connection is not None and not self._connection.invalidated:
            with suppress(psycopg.Error):
                await driver_of(self._connection).cancel_safe()

    async def close(self) -> None:
        """Roll back what was not committed and give the connection back. Never raises, and survives cancellation."""
        try:
            await self._give_back()
        finally:
            self._is_open = False
            if self._first_used is not None:
                self._observation.transaction_ended(self.outcome, self._first_used)

    def _commented(self, statements: Sequence[Statement]) -> Sequence[Statement]:
        comments = self._observation.comments
        return statements if comments is None else comments.add_to_all(statements)

    def _is_inside(self) -> bool:
        """Whether the server has begun a transaction for us, be it a failed one."""
        if self._connection is None or self._connection.invalidated:
            return False
        return driver_of(self._connection).info.transaction_status in _INSIDE

    async def _give_back(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        _in_use.discard(connection)
        if self._database.can_take_back(connection):
            await self._database.give_back(connection)
        else:
            await uninterrupted(self._end(connection))

    async def _discard(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            _in_use.discard(connection)
            await uninterrupted(discard(connection))

    async def _end(self, connection: AsyncConnection) -> None:
        try:
            if await self._is_clean(connection):
                await self._database.give_back(connection)
                return
        except (psycopg.Error, DatabaseUnavailableError) as error:
            log.info("rollback_failed", reason=type(error).__name__)
        await discard(connection)

    async def _is_clean(self, connection: AsyncConnection) -> bool:
        if connection.invalidated:  # By SQLAlchemy, when it was interrupted in the middle of a statement.
            return False
        driver = driver_of(connection)
        if driver.info.transaction_status in _INSIDE and not driver.is_in_pipeline:
            with driver.limited(_ROLLBACK_SECONDS), self._observation.timed((ROLLBACK, None)):
                await driver.execute(ROLLBACK)
        self.has_begun = False
        return driver.is_idle

    async def _execute(
        self,
        work: Callable[[DriverConnection], Awaitable[Result]],
        *,
        may_repeat: Callable[[psycopg.Error], bool] = needs_new_connection,
    ) -> Result:
        with translated():
            try:
                return await work(driver_of(await self.connection()))
            except psycopg.Error as error:
                if self.has_begun or not may_repeat(error):
                    raise
                log.info("statement_repeated", reason=type(error).__name__)
                if self._connection is not None:
                    self._database.report_error(self._connection, error)
                await self._discard()
                return await work(driver_of(await self.connection()))

    def _log(self, *statements: Statement) -> None:
        if self._database.logs_statements:
            for sql, _ in statements:
                log.debug("statement_executed", sql=sql)


@asynccontextmanager
async def exclusive_run(database: ConnectionSource, key: int) -> AsyncIterator[bool]:
    """Let one process at a time do a piece of work in a database, also through PgBouncer.

    Yields whether this process has the lock, which it holds until the block ends, or its connection breaks.

    The lock belongs to a transaction that does nothing else: it has no snapshot, so it keeps nothing from being cleaned
    up, and PgBouncer leaves it its connection.
    """
    transaction = Transaction(database)
    transaction.open()
    try:
        _, [(is_locked,)] = await transaction.run([(_STAY, None), (_LOCK, (key,))])
        yield is_locked
    finally:
        await transaction.close()


async def _fetch(driver: DriverConnection, queries: Sequence[Statement]) -> list[list[tuple[Any, ...]]]:
    if len(queries) == 1:
        return [await (await driver.execute(*queries[0])).fetchall()]
    async with driver.pipeline():
        cursors = [await driver.execute(sql, values) for sql, values in queries]
    return [await cursor.fetchall() for cursor in cursors]


async def _send(driver: DriverConnection, statements: Sequence[Statement]) -> list[list[tuple[Any, ...]]]:
    """Send statements together; the rows of each."""
    async with driver.pipeline():
        cursors = [await driver.execute(sql, values) for sql, values in statements]
    return [await cursor.fetchall() if cursor.description else [] for cursor in cursors]


async def _send_and_commit(driver: DriverConnection, statements: Sequence[Statement]) -> list[list[tuple[Any, ...]]]:
    with _CommitInDoubt(driver):
        if len(statements) > 1:
            return await _send(driver, statements)
        cursor = await driver.execute(*statements[0])  # By itself it is a transaction without a pipeline, too.
        return [await cursor.fetchall() if cursor.description else []]


class _CommitInDoubt:
    """A connection that breaks inside may or may not have committed."""

    __slots__ = ("_driver",)

    def __init__(self, driver: DriverConnection) -> None:
        self._driver = driver

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        # Else the server has answered: it refused, or it had ended the transaction before it could hear of a commit.
        if (
            isinstance(error, psycopg.Error)
            and not isinstance(error, psycopg.errors.IdleInTransactionSessionTimeout)
            and self._driver.has_hung_up
        ):
            raise CommitUnknownError(
                "the connection broke while PostgreSQL was committing: look whether the change is there before "
                "you repeat it"
            ) from error


def _outcome_after(error: BaseException) -> Outcome:
    """How a transaction ended whose commit raised this."""
    is_known = isinstance(error, DataLayerError) and not isinstance(error, CommitUnknownError)
    return Outcome.ROLLED_BACK if is_known else Outcome.UNKNOWN
