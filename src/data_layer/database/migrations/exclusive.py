"""Lets one process at a time migrate a database."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sqlalchemy import text

from data_layer.database.migrations.progress import MigrationEvent, MigrationProgress, ProgressListener
from data_layer.errors import MigrationError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, TextClause

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
