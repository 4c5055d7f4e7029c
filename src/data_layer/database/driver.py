"""Psycopg's connection, with a limit on every wait. Its errors and SQLAlchemy's become errors of this library here."""

from __future__ import annotations

import asyncio
import os
import select
import socket
import time
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, suppress
from typing import Any, Self, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.generators import send
from psycopg.pq import PipelineStatus, TransactionStatus
from sqlalchemy import Index, UniqueConstraint
from sqlalchemy.exc import DBAPIError, PendingRollbackError, SQLAlchemyError, StatementError
from sqlalchemy.exc import TimeoutError as PoolExhausted
from sqlalchemy.orm.exc import StaleDataError

from data_layer.database.statements import NumberedQuery
from data_layer.entities import Entity
from data_layer.entities.triggers import APPEND_RULE, GENERATION_RULE, MOVE_RULE, USAGE_RULE, VERSION_RULE
from data_layer.errors import (
    AppendOnlyError,
    ConcurrentChangeError,
    DatabaseError,
    DatabaseLoginError,
    DatabaseMissingError,
    DatabasePermissionError,
    DatabaseUnavailableError,
    DataLayerError,
    DuplicateError,
    IllegalStatusMoveError,
    InvalidTextError,
    InvalidValueError,
    MissingReferenceError,
    PoolTimeoutError,
    SchemaMismatchError,
    StatementTimeoutError,
    StillReferencedError,
    TransactionError,
    ValueTooLongError,
)

NO_CONNECTION_FREE = (
    "no connection to PostgreSQL became free in time; raise DB_MAX_CONNECTIONS or DB_POOL_TIMEOUT, "
    "or look for transactions that stay open"
)
_STALE_PLAN = "0A000"
READ_ONLY = "25006"
# Values that the driver cannot send are a ValueError of some kind: a number of 5,000 digits, half a surrogate pair.
_FOREIGN = (psycopg.Error, SQLAlchemyError, ValueError, OverflowError)


class SilentServerError(psycopg.OperationalError):
    """The server did not answer a statement in time; whether it carried it out is unknown."""


class _Translated:
    """The block of ``translated``; a class, because each statement opens two and a generator costs twice as much."""

    __slots__ = ()

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, _FOREIGN):
            raise translate(error) from error


_TRANSLATED = _Translated()


def translated() -> AbstractContextManager[None, None]:
    """Raise the library's errors for what the driver or SQLAlchemy raises inside.

    Raises:
        DataLayerError: the class that says most precisely what happened.
    """
    return _TRANSLATED


def translate(error: Exception) -> DataLayerError:
    """The library's error for one of the driver's or SQLAlchemy's."""
    match error:
        case PoolExhausted():
            return PoolTimeoutError(NO_CONNECTION_FREE)
        case PendingRollbackError():
            return TransactionError(FAILED_BEFORE)
        case StaleDataError():
            return ConcurrentChangeError("the row was removed by someone else in the meantime; read it again")
        case StatementError(orig=DataLayerError() as ours):
            return ours
        case DBAPIError(orig=psycopg.Error() as orig):
            deleting = (error.statement or "").lstrip()[:6].upper() == "DELETE"
            return _from_driver(orig, deleting=deleting)
        case StatementError(orig=Exception() as orig):
            return translate(orig)
        case psycopg.Error():
            return _from_driver(error, deleting=False)
        case ValueError() | OverflowError():
            return _not_sendable(error)
        case _:
            return DatabaseError(f"the statement cannot be used: {type(error).__name__}: {error}")


def _not_sendable(error: ValueError | OverflowError) -> InvalidValueError:
    if isinstance(error, UnicodeEncodeError):
        return InvalidTextError("a text holds half a surrogate pair, which is not a character")
    return InvalidValueError(f"a value cannot be stored: {_first_line(str(error))}")


def needs_new_connection(error: psycopg.Error) -> bool:
    """Whether the connection is gone or unusable, so that a new one may serve the same statement."""
    if isinstance(error, SilentServerError):
        return False
    if error.sqlstate is None:
        return _is_break(error)
    return was_refused(error) or error.sqlstate.startswith(("08", "57P"))


def was_refused(error: psycopg.Error) -> bool:
    """Whether the server has done nothing, because of something that another connection may not have.

    A plan was made before a migration; or the server has become a standby, and a new connection finds the primary.
    """
    return error.sqlstate in {_STALE_PLAN, READ_ONLY}


def _from_driver(error: psycopg.Error, *, deleting: bool) -> DataLayerError:
    state = error.sqlstate
    if state is None:
        return _without_state(error)
    make = _BY_STATE.get(state) or _BY_CLASS.get(state[:2])
    if state == "23503":
        return _reference_error(error, deleting=deleting)
    if make is None:
        return DatabaseError(f"PostgreSQL refused the statement ({state}): {error.diag.message_primary}")
    return make(error)


def _without_state(error: psycopg.Error) -> DataLayerError:
    """Errors that the driver makes by itself, and failed logins, for which libpq gives no state."""
    text = str(error)
    if _TOO_MANY in text:
        return InvalidValueError(
            "a statement carries 65,535 values at most, and this one has more: pass a list as one array, or in batches"
        )
    if isinstance(error, psycopg.DataError):
        if "NUL" in text:
            return InvalidTextError("a text holds a NUL character, which PostgreSQL cannot store; remove it")
        return InvalidValueError(f"a value does not fit its column: {text}")
    if not _is_break(error):
        return DatabaseError(f"the driver refused the address or the statement: {text}")
    if 'role "' in text and "does not exist" in text:
        return DatabaseLoginError("PostgreSQL has no such user; check DB_USERNAME, or DATABASE_URL")
    if ('database "' in text and "does not exist" in text) or "no such database" in text:
        return DatabaseMissingError("the database does not exist; make it with: data-layer db create")
    for signs, kind, message in _REFUSALS:
        if any(sign in text for sign in signs):
            return kind(message.format(_first_line(text)))
    return DatabaseUnavailableError(f"the connection to PostgreSQL broke: {_first_line(text)}; repeat the call")


def _is_break(error: psycopg.Error) -> bool:
    # While statements are sent together, the driver has no more precise class than DatabaseError for it.
    if any(sign in str(error) for sign in (_TOO_MANY, *_OF_THE_CALLER)):
        return False
    return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError) or type(error) is psycopg.DatabaseError


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0] if text.strip() else "no reason given"


def _reference_error(error: psycopg.Error, *, deleting: bool) -> DataLayerError:
    constraint = error.diag.constraint_name or ""
    if constraint == VERSION_RULE:
        return MissingReferenceError("parent_id names no version of the same project", field="parent_id")
    if constraint == GENERATION_RULE:
        return MissingReferenceError("generation_id names no generation of the same project", field="generation_id")
    field = _field_of(constraint)
    if deleting:
        table = error.diag.table_name
        return StillReferencedError(f"the row is still referred to by {table}.{field}; remove those first", field=field)
    return MissingReferenceError(f"{field} names a row that does not exist", field=field)


def _duplicate(error: psycopg.Error) -> DataLayerError:
    field = _field_of(error.diag.constraint_name or "")
    return DuplicateError(f"{error.diag.table_name}: this {field} is already taken", field=field)


def _check_violated(error: psycopg.Error) -> DataLayerError:
    constraint = error.diag.constraint_name or ""
    if constraint == MOVE_RULE:
        return IllegalStatusMoveError(str(error.diag.message_primary), field="status")
    field = constraint.removeprefix(f"ck_{error.diag.table_name}_")
    return InvalidValueError(f"{field} holds a value that {error.diag.table_name} does not allow", field=field)


def _restricted(error: psycopg.Error) -> DataLayerError:
    if error.diag.constraint_name in {APPEND_RULE, USAGE_RULE}:
        return AppendOnlyError(str(error.diag.message_primary))
    return _reference_error(error, deleting=True)


def _value_missing(error: psycopg.Error) -> DataLayerError:
    field = error.diag.column_name
    return InvalidValueError(f"{field} is missing", field=field)


def _statement_stopped(error: psycopg.Error) -> DataLayerError:
    return StatementTimeoutError(
        f"PostgreSQL stopped the statement: {error.diag.message_primary}; "
        "look for locks and missing indexes, or raise DB_STATEMENT_TIMEOUT"
    )


def _schema_wrong(error: psycopg.Error) -> DataLayerError:
    return SchemaMismatchError(f"{error.diag.message_primary}; see: data-layer db check")


def _statement_not_prepared(error: psycopg.Error) -> DataLayerError:
    return DatabaseError(f"{error.diag.message_primary}; behind PgBouncer or another pooler set DB_PGBOUNCER=true")


def _not_supported(error: psycopg.Error) -> DataLayerError:
    if "cached plan" in str(error.diag.message_primary):
        return ConcurrentChangeError("the tables were changed in the meantime; repeat the transaction")
    return DatabaseError(f"PostgreSQL does not support this: {error.diag.message_primary}")


def _conflict(message: str) -> Callable[[psycopg.Error], DataLayerError]:
    def make(error: psycopg.Error) -> DataLayerError:
        if "recovery" in str(error.diag.message_primary):
            return DatabaseUnavailableError(
                "the replica ended the read, because it had to follow the primary; repeat it"
            )
        return ConcurrentChangeError(message)

    return make


def _always(make: type[DataLayerError], message: str) -> Callable[[psycopg.Error], DataLayerError]:
    return lambda error: make(message.format(error.diag.message_primary))


# What libpq and the driver refuse to send over a connection that is as good as before.
_TOO_MANY = "number of parameters must be between"
_OF_THE_CALLER = (
    "out of memory",
    "another command is already in progress",
    "not allowed in pipeline mode",
    "exceeds",
    "the cursor is closed",
    "no result available",
    "the last operation didn't produce",
)

FAILED_BEFORE = (
    "a statement of this transaction had failed, so nothing of it was stored; "
    "let the error leave the `async with` block, and repeat the transaction"
)

# What libpq says when it cannot connect, so that the server sends no SQLSTATE: the first line that fits counts.
_ADVICE_TLS = "check DB_SSL, DB_SSL_CA, DB_SSL_CERT and DB_SSL_KEY"
_REFUSALS: tuple[tuple[tuple[str, ...], type[DatabaseError], str], ...] = (
    (
        ("authentication failed", "no password supplied", "no such user", "not permitted to log in"),
        DatabaseLoginError,
        "PostgreSQL refused the user name or the password; check DB_USERNAME and DB_PASSWORD, or DATABASE_URL",
    ),
    (
        ("no pg_hba.conf entry", "pg_hba.conf rejects"),
        DatabaseLoginError,
        "PostgreSQL does not let this client in: {0}; check pg_hba.conf on the server, and DB_SSL here",
    ),
    (
        ("certificate", "private key file", "does not support SSL", "sslmode", " alert "),
        DatabaseLoginError,
        f"PostgreSQL and this client did not accept each other: {{0}}; {_ADVICE_TLS}",
    ),
    (
        ("permission denied for database",),
        DatabasePermissionError,
        "the database user may not connect to this database: {0}; GRANT CONNECT to it",
    ),
    (
        ("too many clients", "too many connections", "remaining connection slots", "no more connections allowed"),
        DatabaseUnavailableError,
        "PostgreSQL has no connection left: {0}; lower DB_MAX_CONNECTIONS, or raise max_connections on the server",
    ),
    (
        ("the database system is",),
        DatabaseUnavailableError,
        "PostgreSQL is starting or stopping: {0}; try again in a moment",
    ),
    (
        ("unsupported startup parameter",),
        DatabaseError,
        "there is a PgBouncer in front of PostgreSQL: {0}; set DB_PGBOUNCER=true",
    ),
    (
        ("connection failed", "failed to resolve host", "connection timeout"),
        DatabaseUnavailableError,
        "PostgreSQL cannot be reached: {0}; check that it runs, and DB_HOST and DB_PORT, or DATABASE_URL",
    ),
)

_BY_STATE: dict[str, Callable[[psycopg.Error], DataLayerError]] = {
    _STALE_PLAN: _not_supported,
    "22001": _always(ValueTooLongError, "{0}"),
    "22021": _always(InvalidTextError, "a text holds bytes that are not UTF-8"),
    "22P05": _always(InvalidTextError, "a text holds a character that PostgreSQL cannot store, such as NUL"),
    "23001": _restricted,
    "23502": _value_missing,
    "23505": _duplicate,
    "23514": _check_violated,
    "25006": _always(DatabaseUnavailableError, "PostgreSQL is read-only at the moment: {0}"),
    "25P02": _always(TransactionError, FAILED_BEFORE),
    "25P03": _always(StatementTimeoutError, "the transaction did nothing for too long and was ended: {0}"),
    "25P04": _always(StatementTimeoutError, "the transaction took too long and was ended: {0}"),
    "26000": _statement_not_prepared,
    "28000": _always(DatabaseLoginError, "PostgreSQL refused the login: {0}"),
    "28P01": _always(DatabaseLoginError, "PostgreSQL refused the user name or the password"),
    "3D000": _always(DatabaseMissingError, "{0}; make it with: data-layer db create"),
    "40001": _conflict("someone else changed the same rows first; repeat the transaction"),
    "40P01": _conflict("two transactions waited for each other; repeat the transaction"),
    "42501": _always(DatabasePermissionError, "the database user lacks a right: {0}"),
    "42703": _schema_wrong,
    "42883": _schema_wrong,
    "42P01": _schema_wrong,
    "42P05": _statement_not_prepared,
    "53100": _always(DatabaseError, "the disk of the PostgreSQL server is full: {0}"),
    "53300": _always(DatabaseUnavailableError, "PostgreSQL has no connection left: {0}; lower DB_MAX_CONNECTIONS"),
    "54000": _always(ValueTooLongError, "{0}"),
    "54001": _always(InvalidValueError, "a value is nested too deeply: {0}"),
    "55P03": _statement_stopped,
    "57014": _statement_stopped,
}
_BY_CLASS: dict[str, Callable[[psycopg.Error], DataLayerError]] = {
    "08": _always(DatabaseUnavailableError, "the connection to PostgreSQL broke: {0}"),
    "22": _always(InvalidValueError, "a value does not fit its column: {0}"),
    "57": _always(DatabaseUnavailableError, "PostgreSQL is not available: {0}"),
}


def _field_of(constraint: str) -> str:
    return _FIELDS.get(constraint, constraint)


def _fields_by_constraint() -> dict[str, str]:
    """The last column of each constraint and index: the one that a caller can choose."""
    fields = {}
    for table in Entity.metadata.tables.values():
        named: list[Any] = [*table.constraints, *table.indexes]
        for item in named:
            if item.name:
                fields[str(item.name)] = _last_column(item)
    return fields


def _last_column(item: UniqueConstraint | Index) -> str:
    columns = [column.name for column in item.columns]
    return columns[-1] if columns else str(item.name).split("_", 2)[-1]


_FIELDS = _fields_by_constraint()


Result = TypeVar("Result")

# How long a cancelled statement may keep its caller when the server does not even take the cancellation, and how long
# a closed connection is waited for.
_CANCEL_SECONDS = 1.0
_WAKE_SECONDS = 0.1


class _Pipeline(psycopg.AsyncPipeline):
    """Statements that are sent together, ended by Sync alone.

    The driver sends a Flush after it, and PostgreSQL then no longer counts for how long the transaction is idle.
    """

    def _fetch_gen(self, *, flush: bool) -> PQGen[None]:
        # The driver's step of communicating ends when the last statement is in libpq's buffer, which need not have
        # taken it off our hands: reading alone, we would wait for a server that waits for the rest of a large row.
        # ``send`` reads too while it waits, so that a server that cannot go on before its results are read does.
        yield from send(self.pgconn)
        yield from super()._fetch_gen(flush=flush)

    def _exit_gen(self) -> PQGen[None]:
        try:
            yield from self._sync_gen()
        except psycopg.Error:
            # What follows the statement that failed says only that it was skipped.
            with suppress(psycopg.Error):
                yield from self._fetch_gen(flush=False)
            raise


class DriverConnection(psycopg.AsyncConnection[Any]):
    """A connection that gives a server up that neither says nor takes anything for ``time_limit`` seconds."""

    time_limit: float | None = None
    """In seconds. It may be changed while somebody waits."""
    opened_at: float = 0.0
    """When it was opened, in seconds of the monotonic clock."""

    @classmethod
    async def open(
        cls, *address: str, connect_limit: float, time_limit: float, first: str = "", **options: Any
    ) -> Self:
        """Connect within ``connect_limit`` seconds, looking up the name included.

        Args:
            address: libpq's connection string.
            connect_limit: in seconds.
            time_limit: seconds for which the server may be silent.
            first: a statement that each new connection executes.
            options: libpq's, and the driver's.
        """
        try:
            async with asyncio.timeout(connect_limit):
                connection = await cls._connect(*address, first=first.encode(), **options)
        except TimeoutError:
            text = f"connection failed: no answer within {connect_limit:g} s (DB_CONNECT_TIMEOUT)"
            raise psycopg.errors.ConnectionTimeout(text) from None
        connection.time_limit = time_limit
        connection.opened_at = time.monotonic()
        return connection

    @classmethod
    async def _connect(cls, *address: str, first: bytes, **options: Any) -> Self:
        connection = None
        try:
            connection = await cls.connect(*address, autocommit=True, **options)
            if first:
                await connection.execute(first, prepare=False)
        except BaseException as error:
            # A half-made connection stays open for as long as somebody keeps the error, which knows it.
            traceback.clear_frames(error.__traceback__)
            if connection is not None:
                await connection.close()
            raise
        return connection

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

    async def execute(
        self, query: Any, params: Any = None, *, prepare: bool | None = None, binary: bool = False
    ) -> psycopg.AsyncCursor[Any]:
        """Execute a statement with a cursor of its own."""
        if not isinstance(query, NumberedQuery):
            return await super().execute(query, params, prepare=prepare, binary=binary)
        return await psycopg.AsyncRawCursor(self).execute(query, params, prepare=prepare, binary=binary)

    async def wait(self, gen: PQGen[Result], interval: float = _WAKE_SECONDS, timeout: float | None = None) -> Result:  # noqa: ASYNC109  (the driver's interface)
        """Wait for the server, as everything that the driver does."""
        try:
            return await super().wait(self._while_heard(gen) if timeout is None else gen, interval, timeout)
        except SilentServerError:
            self.pgconn.finish()
            raise

    def _while_heard(self, gen: PQGen[Result]) -> PQGen[Result]:
        """Pass on what a generator waits for, as long as the server does not stay silent for too long.

        A large row on a slow connection may take longer than the limit: what counts is that it moves.
        """
        heard = time.monotonic()
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if ready:
                    heard = time.monotonic()
                elif self.time_limit is not None and time.monotonic() - heard >= self.time_limit:
                    text = f"PostgreSQL did not answer for {self.time_limit:g} s; the connection was given up"
                    raise SilentServerError(text)
                wanted = gen.send(ready)
        except StopIteration as end:
            result: Result = end.value
            return result

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
        async with self.lock:
            self._check_connection_ok()
            pipeline = self._pipeline = self._pipeline or _Pipeline(self)
        try:
            async with pipeline:
                yield pipeline
        except BaseException:
            # PostgreSQL skipped everything after the statement that failed, also preparing statements, which the driver
            # believes to be prepared all the same: each later use of them on this connection would fail.
            self._prepared.clear()
            raise
        finally:
            if pipeline.level == 0:
                async with self.lock:
                    self._pipeline = None

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
        """Whether it is open, between transactions and between statements, as far as the driver knows.

        Cancellation while entering a pipeline leaves the connection in pipeline mode.
        """
        return not self.closed and not self.is_in_pipeline and self.pgconn.transaction_status == TransactionStatus.IDLE

    @property
    def is_in_pipeline(self) -> bool:
        """Whether statements are being collected, so that their results come later."""
        return self.pgconn.pipeline_status != PipelineStatus.OFF

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
