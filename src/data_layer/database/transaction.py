"""One transaction on one connection: begun late, ended certainly, repeated when nothing can have happened yet."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg
import structlog
from psycopg.pq import TransactionStatus

from data_layer.database.engine import discard, driver_of
from data_layer.database.failures import is_disconnect, translated
from data_layer.errors import CommitUnknownError, DatabaseUnavailableError, TransactionClosedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

    from data_layer.database.engine import Database

log = structlog.get_logger(__name__)
Result = TypeVar("Result")
Statement = tuple[str, "Sequence[Any] | None"]

_ROLLBACK_SECONDS = 5.0


class Transaction:
    """A transaction that takes its connection at the first statement and begins at the first change.

    PostgreSQL's READ COMMITTED takes a new snapshot for each statement, so reads before the first change see the same
    with and without a transaction around them. A connection that turns out to be dead while nothing has begun is
    replaced, and the statement repeated once.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection: AsyncConnection | None = None
        self._is_open: bool | None = None  # None until it is opened for the first and only time.
        self.has_begun = False

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

    async def connection(self) -> AsyncConnection:
        """The connection, in SQLAlchemy's clothes."""
        self.require_open()
        if self._connection is None:
            self._connection = await self._database.connect()
        return self._connection

    async def begin(self) -> None:
        """Begin, unless it has begun."""
        await self.run([])

    async def fetch_one(self, sql: str, parameters: Sequence[Any]) -> tuple[Any, ...] | None:
        """The first row of a single read."""
        if self._database.reads_need_transaction:
            await self.begin()

        async def read(driver: psycopg.AsyncConnection[Any]) -> tuple[Any, ...] | None:
            self._log(sql)
            cursor = await driver.execute(sql, parameters)
            row: tuple[Any, ...] | None = await cursor.fetchone()
            return row

        return await self._execute(read)

    async def run(self, statements: Sequence[Statement]) -> list[tuple[Any, ...] | None]:
        """Run statements in one round trip, begun first if need be; the first row of each, or ``None``."""
        beginning: list[Statement] = [] if self.has_begun else [(sql, None) for sql in self._database.begin_statements]
        if not beginning and not statements:
            return []

        async def send(driver: psycopg.AsyncConnection[Any]) -> list[tuple[Any, ...] | None]:
            async with driver.pipeline():
                cursors = [await driver.execute(sql, values) for sql, values in (*beginning, *statements)]
            return [await cursor.fetchone() if cursor.description else None for cursor in cursors[len(beginning) :]]

        for sql, _ in statements:
            self._log(sql)
        rows = await self._execute(send)
        self.has_begun = True
        return rows

    async def commit(self) -> None:
        """Make the changes last.

        Raises:
            CommitUnknownError: when the connection broke before the answer.
            ConflictError: when a deferred rule is broken.
        """
        if not self.has_begun:
            return
        try:
            with translated():
                async with asyncio.timeout(self._database.time_limit):
                    await driver_of(await self.connection()).execute("COMMIT")
        except (DatabaseUnavailableError, TimeoutError) as error:
            raise CommitUnknownError(
                "the connection broke while PostgreSQL was committing: look whether the change is there before "
                "you repeat it"
            ) from error
        self.has_begun = False

    async def close(self) -> None:
        """Roll back what was not committed and give the connection back. Never raises, and survives cancellation."""
        await self._give_back()
        self._is_open = False

    async def _give_back(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if _is_idle(connection):
            # Nothing is left to say to the server, so this does not wait and cannot be interrupted.
            await connection.close()
        else:
            await uninterrupted(self._end(connection))

    async def _end(self, connection: AsyncConnection) -> None:
        try:
            if await self._is_clean(connection):
                await connection.close()
                return
        except (psycopg.Error, TimeoutError) as error:
            log.info("rollback_failed", reason=type(error).__name__)
        await discard(connection)

    async def _is_clean(self, connection: AsyncConnection) -> bool:
        if connection.invalidated:  # By SQLAlchemy, when it was interrupted in the middle of a statement.
            return False
        driver = driver_of(connection)
        if driver.info.transaction_status in {TransactionStatus.INTRANS, TransactionStatus.INERROR}:
            async with asyncio.timeout(_ROLLBACK_SECONDS):
                await driver.execute("ROLLBACK")
        self.has_begun = False
        return driver.info.transaction_status == TransactionStatus.IDLE

    async def _execute(self, work: Callable[[psycopg.AsyncConnection[Any]], Awaitable[Result]]) -> Result:
        with translated():
            try:
                return await self._attempt(work)
            except psycopg.OperationalError as error:
                if self.has_begun or not is_disconnect(error):
                    raise
                log.info("statement_repeated", reason="the connection was dead")
                await self._give_back()
                return await self._attempt(work)

    async def _attempt(self, work: Callable[[psycopg.AsyncConnection[Any]], Awaitable[Result]]) -> Result:
        connection = await self.connection()
        try:
            async with asyncio.timeout(self._database.time_limit):
                return await work(driver_of(connection))
        except TimeoutError:
            raise DatabaseUnavailableError(
                f"PostgreSQL did not answer for {self._database.time_limit:.0f} s; the connection was given up"
            ) from None

    def _log(self, sql: str) -> None:
        if self._database.logs_statements:
            log.debug("statement_executed", sql=sql)


def _is_idle(connection: AsyncConnection) -> bool:
    return not connection.invalidated and driver_of(connection).info.transaction_status == TransactionStatus.IDLE


async def uninterrupted(work: Coroutine[Any, Any, None]) -> None:
    """Let work end even when the caller is cancelled meanwhile; the cancellation goes on afterwards."""
    task = asyncio.create_task(work)
    cancellation: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            cancellation = error
        except Exception:  # noqa: BLE001  (raised by task.result() below)
            break
    task.result()
    if cancellation is not None:
        raise cancellation
