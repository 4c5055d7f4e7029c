"""Runs one migration or undoes it: again while others lock its tables, and with an error that names it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import stamina
from sqlalchemy.exc import DBAPIError

from data_layer.database.failures import translate
from data_layer.database.migrations.progress import MigrationEvent
from data_layer.errors import DatabaseError, DatabasePermissionError, DatabaseUnavailableError, MigrationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from data_layer.database.migrations.progress import Step

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
