"""Brings the tables of a database to the revision that this version of the code needs, and back."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import psycopg
import stamina
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from data_layer.database import administration
from data_layer.database.failures import translate, translated
from data_layer.database.migrations import VERSION_TABLE, VERSIONS, Revision, alembic_commands, known_revisions
from data_layer.database.schema_check import SchemaReport, find_differences
from data_layer.database.schema_state import SchemaState, SchemaStatus, read_schema_state
from data_layer.errors import (
    DatabaseError,
    DatabaseMissingError,
    DatabasePermissionError,
    DatabaseUnavailableError,
    InvalidValueError,
    MigrationError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sqlalchemy import Connection

    from data_layer.database.address import DatabaseAddress

HEAD = "head"
"""Stands for the newest revision."""

_LOCK = int.from_bytes(b"datalayr")
_POLL_SECONDS = 0.2
_RETRIED = frozenset({"55P03", "40P01"})  # lock_not_available, deadlock_detected
_READ_HOLDER = text("""
SELECT format('process %s of PostgreSQL (%s, connected since %s)', pid, application_name, backend_start)
FROM pg_locks JOIN pg_stat_activity USING (pid)
WHERE locktype = 'advisory' AND granted AND (classid::bigint << 32) | objid::bigint = :lock
AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
""")
_SET_LIMITS = text("""
SELECT set_config('lock_timeout', :lock_timeout, false), set_config('statement_timeout', :statement_timeout, false),
    set_config('idle_in_transaction_session_timeout', '0', false)
""")


class MigrationEvent(StrEnum):
    """What a migration reports while it runs."""

    WAITING = "waiting"
    STARTED = "started"
    RETRIED = "retried"
    FINISHED = "finished"


@dataclass(frozen=True, slots=True)
class MigrationProgress:
    """One report. ``number`` of ``total`` counts from 1; there is no revision while waiting for another process."""

    event: MigrationEvent
    revision: Revision | None = None
    number: int = 0
    total: int = 0


def _ignore(_: MigrationProgress) -> None:
    """Report to nobody."""


class Migrator:
    """Everything that an operator does to the tables, on a direct connection that is opened for each call.

    All methods block; asynchronous callers use ``asyncio.to_thread``. Several processes may call them at once: one
    works, the others wait for it and then find nothing left to do. Each migration is one transaction together with the
    note that it was made, so that a process that dies leaves either the old tables or the new ones.

    Args:
        address: a database, reached directly: PgBouncer in transaction mode would lose the lock.
        lock_wait: seconds to wait for another process that is migrating.
        lock_timeout: seconds for which a statement may wait for a table that others use. All who come after it wait
            as long, so that it should be short; after it the migration is tried again.
        statement_timeout: seconds that one statement may take.
        attempts: how often a migration is tried while others keep its tables locked.
        versions: the folder of the migrations.
    """

    def __init__(
        self,
        address: DatabaseAddress,
        *,
        lock_wait: float = 120,
        lock_timeout: float = 5,
        statement_timeout: float = 600,
        attempts: int = 8,
        versions: Path = VERSIONS,
    ) -> None:
        self._address = address
        self._engine = administration.make_engine(address)
        self._lock_wait = lock_wait
        self._limits = {
            "lock_timeout": f"{lock_timeout * 1000:.0f}",
            "statement_timeout": f"{statement_timeout * 1000:.0f}",
        }
        self._attempts = attempts
        self._versions = versions
        self._revisions = known_revisions(versions)

    def create(self) -> administration.CreationReport:
        """Make the database unless it exists, and the useful extensions that the server has and permits.

        Raises:
            DatabasePermissionError: the database is missing, and the user may not make it.
            DatabaseUnavailableError: the server cannot be reached.
            DatabaseLoginError: the server refused the user.
        """
        return administration.create_database(self._address)

    def current(self) -> SchemaState:
        """Where the database stands; one query if the tables fit.

        Raises:
            DatabaseMissingError: there is no such database.
            DatabaseUnavailableError: the server cannot be reached.
            DatabaseLoginError: the server refused the user.
        """
        with self._connection() as connection:
            return read_schema_state(connection, self._revisions)

    def require_current(self) -> None:
        """Do nothing if this version of the code can work on the database; one query if it can.

        Raises:
            SchemaMismatchError: it is behind, ahead or another application's; the message names the remedy.
            DatabaseMissingError: there is no such database.
            DatabaseUnavailableError: the server cannot be reached.
            DatabaseLoginError: the server refused the user.
        """
        self.current().require_current()

    def check(self) -> SchemaReport:
        """Compare models, migrations and database. Nothing is changed, but the server must not be read-only."""
        with self._connection() as connection:
            state = read_schema_state(connection, self._revisions)
            return SchemaReport(state, find_differences(connection) if state.is_current else ())

    def migrate(
        self, target: str = HEAD, *, shared: bool = False, on_progress: Callable[[MigrationProgress], None] = _ignore
    ) -> tuple[str, ...]:
        """Run the missing migrations up to ``target`` and return their revisions.

        Args:
            target: a revision, or ``head`` for the newest.
            shared: whether our tables may be added to a database that holds other applications' tables.
            on_progress: told what happens, from the thread that this runs in.

        Raises:
            MigrationError: one of them failed, and left the tables as they were before it; or another process was
                migrating for too long; or there is no such target.
            SchemaAheadError: a newer version has migrated the database.
            ForeignSchemaError: the database holds other applications' tables; nothing was changed.
            DatabasePermissionError: the user may not create tables.
        """
        goal = self._count_up_to(target)
        if self.current().is_current:
            return ()
        with self._exclusive(on_progress) as connection:
            state = read_schema_state(connection, self._revisions)
            _check_that_migrations_fit(connection, state, shared=shared)
            missing = self._revisions[self._count_up_to(state.revision) : goal]
            for number, revision in enumerate(missing, 1):
                report = _Reporter(on_progress, revision, number, len(missing))
                self._run(alembic_commands.upgrade, connection, revision.identifier, report)
        return tuple(revision.identifier for revision in missing)

    def rollback(
        self, steps: int = 1, *, on_progress: Callable[[MigrationProgress], None] = _ignore
    ) -> tuple[str, ...]:
        """Undo the last migrations and return their revisions, newest first. Undoing the first drops all our tables.

        Raises:
            MigrationError: one of them failed, and left the tables as they were before it; or another process was
                migrating for too long.
            SchemaAheadError: only the newer version that migrated the database can undo it.
            ForeignSchemaError: the database holds other applications' tables; nothing was changed.
        """
        if steps < 1:
            raise InvalidValueError("steps must be 1 or more", field="steps")
        with self._exclusive(on_progress) as connection:
            state = read_schema_state(connection, self._revisions)
            if state.state in {SchemaStatus.AHEAD, SchemaStatus.FOREIGN}:
                state.require_current()
            applied = self._revisions[: self._count_up_to(state.revision)]
            undone = applied[::-1][:steps]
            for number, revision in enumerate(undone, 1):
                report = _Reporter(on_progress, revision, number, len(undone))
                self._run(alembic_commands.downgrade, connection, self._before(revision), report)
            if len(undone) == len(applied):
                connection.execute(text(f"DROP TABLE IF EXISTS {VERSION_TABLE}"))
                connection.commit()
        return tuple(revision.identifier for revision in undone)

    def reset(self, *, on_progress: Callable[[MigrationProgress], None] = _ignore) -> bool:
        """Remove all our tables and rows; whether that meant to drop the database and to make it anew.

        It is made anew, for the same owner, where the user may do that and nobody else has tables in it, and all its
        connections are ended. Otherwise every migration is undone, which leaves what others have in the database.

        Raises:
            ForeignSchemaError: the database holds the tables of another application; nothing was changed.
            SchemaAheadError: it holds tables that this version does not know; nothing was changed.
            MigrationError: a migration could not be undone.
        """
        try:
            state = self.current()
        except DatabaseMissingError:
            return self.create().created
        if state.state is SchemaStatus.FOREIGN:
            state.require_current()
        with self._connection() as connection:
            may_recreate = administration.may_recreate(connection) and not administration.tables_of_others(connection)
        if may_recreate:
            administration.drop_and_create_database(self._address)
        else:
            self.rollback(len(self._revisions), on_progress=on_progress)
        return may_recreate

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        with translated(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def _exclusive(self, on_progress: Callable[[MigrationProgress], None]) -> Iterator[Connection]:
        """A connection that no other process migrates beside; the lock ends with it, however this process ends."""
        with self._connection() as connection:
            connection.execute(_SET_LIMITS, self._limits)
            connection.commit()
            deadline = time.monotonic() + self._lock_wait
            # Asked again and again, because a session that waits inside PostgreSQL holds a snapshot, which would
            # block a migration that creates an index concurrently.
            while not _query(connection, "pg_try_advisory_lock"):
                if time.monotonic() > deadline:
                    raise self._still_locked(connection)
                on_progress(MigrationProgress(MigrationEvent.WAITING))
                time.sleep(_POLL_SECONDS)
            yield connection
            _query(connection, "pg_advisory_unlock")

    def _still_locked(self, connection: Connection) -> MigrationError:
        holder = connection.scalar(_READ_HOLDER, {"lock": _LOCK}) or "it has just finished"
        return MigrationError(
            f"another process is migrating this database and was not ready after {self._lock_wait:g} s: {holder}; "
            "try again later, or end it if it hangs"
        )

    def _run(
        self,
        command: Callable[[Connection, str, Path], None],
        connection: Connection,
        destination: str,
        report: _Reporter,
    ) -> None:
        report(MigrationEvent.STARTED)
        try:
            for attempt in stamina.retry_context(on=_is_lock_failure, attempts=self._attempts, timeout=None):
                if attempt.num > 1:
                    report(MigrationEvent.RETRIED)
                with attempt:
                    command(connection, destination, self._versions)
        except Exception as error:
            raise _failure(report.revision, error) from error
        finally:
            connection.rollback()
        report(MigrationEvent.FINISHED)

    def _count_up_to(self, revision: str | None) -> int:
        """How many migrations lead to a revision."""
        if revision is None:
            return 0
        identifiers = [known.identifier for known in self._revisions]
        if revision == HEAD:
            return len(identifiers)
        if revision not in identifiers:
            raise MigrationError(f"there is no migration {revision!r}; there are: {', '.join(identifiers)}")
        return identifiers.index(revision) + 1

    def _before(self, revision: Revision) -> str:
        position = self._revisions.index(revision)
        return self._revisions[position - 1].identifier if position else alembic_commands.BASE


@dataclass(frozen=True, slots=True)
class _Reporter:
    on_progress: Callable[[MigrationProgress], None]
    revision: Revision
    number: int
    total: int

    def __call__(self, event: MigrationEvent) -> None:
        self.on_progress(MigrationProgress(event, self.revision, self.number, self.total))


def _query(connection: Connection, lock_function: str) -> bool:
    answer = connection.scalar(text(f"SELECT {lock_function}(:lock)"), {"lock": _LOCK})
    connection.commit()
    return bool(answer)


def _check_that_migrations_fit(connection: Connection, state: SchemaState, *, shared: bool) -> None:
    if state.state is SchemaStatus.AHEAD or (
        state.state is SchemaStatus.FOREIGN and not (shared and state.can_be_shared)
    ):
        state.require_current()
    encoding = connection.scalar(text("SHOW server_encoding"))
    connection.rollback()
    if encoding != "UTF8":
        raise MigrationError(f"the database is encoded in {encoding}; make one with: CREATE DATABASE … ENCODING 'UTF8'")


def _is_lock_failure(error: Exception) -> bool:
    return isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", None) in _RETRIED


def _failure(revision: Revision, error: Exception) -> DatabaseError:
    """The error for a migration that failed, without rows and without the text of the statement."""
    known = translate(error) if isinstance(error, DBAPIError) else None
    make: type[DatabaseError] = MigrationError
    if isinstance(known, DatabasePermissionError | DatabaseUnavailableError):
        make = type(known)
    return make(f"migration {revision.identifier} ({revision.title}) failed and changed nothing: {_cause(error)}")


def _cause(error: Exception) -> str:
    if _is_lock_failure(error):
        return "others kept its tables locked; end long transactions, or try again when there is less to do"
    orig = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(orig, psycopg.Error) and orig.diag.message_primary:
        return f"{orig.diag.message_primary} ({orig.sqlstate})"
    return str(orig).partition("\n")[0] or type(orig).__name__
