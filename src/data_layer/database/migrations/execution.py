"""Run migrations: one process at a time, retrying while others lock the tables, and reporting progress."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum

import psycopg
import stamina
from sqlalchemy import Connection, TextClause, text
from sqlalchemy.exc import DBAPIError

from data_layer.database.driver import translate
from data_layer.database.migrations import Revision
from data_layer.errors import DatabaseError, DatabasePermissionError, DatabaseUnavailableError, MigrationError


class MigrationEvent(StrEnum):
    """What happened: ``WAITING`` is for another process, ``RETRIED`` after tables were locked by others."""

    WAITING = "waiting"
    STARTED = "started"
    RETRIED = "retried"
    FINISHED = "finished"


@dataclass(frozen=True, slots=True)
class MigrationProgress:
    """One report: ``number`` of ``total`` counts from 1; while waiting for another process there is no revision."""

    event: MigrationEvent
    revision: Revision | None = None
    number: int = 0
    total: int = 0


ProgressListener = Callable[[MigrationProgress], None]


def ignore_progress(_: MigrationProgress) -> None:
    """Ignore it."""


@dataclass(frozen=True, slots=True)
class Step:
    """One migration that is to be run or undone, as one of several."""

    revision: Revision
    number: int
    total: int
    listener: ProgressListener

    def report(self, event: MigrationEvent) -> None:
        """Report to the listener what happened to this step."""
        self.listener(MigrationProgress(event, self.revision, self.number, self.total))


def steps(revisions: tuple[Revision, ...], listener: ProgressListener) -> list[Step]:
    """The steps for these revisions, in this order."""
    return [Step(revision, number, len(revisions), listener) for number, revision in enumerate(revisions, 1)]


LOCK = int.from_bytes(b"datalayr")
"""The key of the advisory lock, in each database."""

_POLL_SECONDS = 0.2
_TRY = text("SELECT pg_try_advisory_lock(:lock)").bindparams(lock=LOCK)
_UNLOCK = text("SELECT pg_advisory_unlock(:lock)").bindparams(lock=LOCK)
_READ_HOLDER = text("""
SELECT format('process %s of PostgreSQL (%s, connected since %s)', pid, application_name, backend_start)
FROM pg_locks JOIN pg_stat_activity USING (pid)
WHERE locktype = 'advisory' AND granted AND (classid::bigint << 32) | objid::bigint = :lock
AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
""").bindparams(lock=LOCK)


@contextmanager
def exclusive(connection: Connection, seconds: float, listener: ProgressListener) -> Iterator[None]:
    """Hold the lock of this database; it also ends with the connection, however its process ends.

    Raises:
        MigrationError: another process did not give it back within ``seconds``.
    """
    deadline = time.monotonic() + seconds
    # Asked again and again, because a session that waits inside PostgreSQL holds a snapshot, and a migration that
    # creates an index concurrently would wait for that.
    while not _answer(connection, _TRY):
        if time.monotonic() > deadline:
            holder = _answer(connection, _READ_HOLDER) or "it has just finished"
            raise MigrationError(
                f"another process is migrating this database and was not ready after {seconds:g} s: {holder}; "
                "try again later, or end it if it hangs"
            )
        listener(MigrationProgress(MigrationEvent.WAITING))
        time.sleep(_POLL_SECONDS)
    yield
    _answer(connection, _UNLOCK)


def _answer(connection: Connection, query: TextClause) -> object:
    with connection.begin():
        return connection.scalar(query)


_RETRIED = frozenset({"55P03", "40P01"})  # lock_not_available, deadlock_detected


def execute(step: Step, connection: Connection, command: Callable[[], None], attempts: int) -> None:
    """Carry out the command, which works on the connection in transactions of its own.

    Raises:
        MigrationError: it failed, or others kept its tables locked in all ``attempts``.
        DatabasePermissionError: the user lacks a right that it needs.
        DatabaseUnavailableError: the connection broke.
    """
    step.report(MigrationEvent.STARTED)
    try:
        for attempt in stamina.retry_context(on=_is_locked_out, attempts=attempts, timeout=None):
            if attempt.num > 1:
                step.report(MigrationEvent.RETRIED)
            with attempt:
                command()
    except Exception as error:
        raise _failure(step, error) from error
    finally:
        connection.rollback()
    step.report(MigrationEvent.FINISHED)


def _is_locked_out(error: Exception) -> bool:
    return isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", None) in _RETRIED


def _failure(step: Step, error: Exception) -> DatabaseError:
    message = (
        f"migration {step.revision.identifier} ({step.revision.title}) failed and changed nothing: {_cause(error)}"
    )
    match translate(error) if isinstance(error, DBAPIError) else error:
        case DatabasePermissionError():
            return DatabasePermissionError(message)
        case DatabaseUnavailableError():
            return DatabaseUnavailableError(message)
        case _:
            return MigrationError(message)


def _cause(error: Exception) -> str:
    """What went wrong, without the statement and without rows."""
    if _is_locked_out(error):
        return "others kept its tables locked; end long transactions, or try again when there is less to do"
    orig = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(orig, psycopg.Error) and orig.diag.message_primary:
        return f"{orig.diag.message_primary} ({orig.sqlstate})"
    return str(orig).partition("\n")[0] or type(orig).__name__
