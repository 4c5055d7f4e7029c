"""Brings the tables of a database to the revision that this version of the code needs, and back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, text

from data_layer.database import administration
from data_layer.database.address import DatabaseAddress
from data_layer.database.driver import translated
from data_layer.database.migrations import BASE, VERSION_TABLE, VERSIONS, Revision, known_revisions
from data_layer.database.migrations.execution import ProgressListener, exclusive, execute, ignore_progress, steps
from data_layer.database.schema_check import (
    SchemaReport,
    SchemaState,
    SchemaStatus,
    find_differences,
    read_schema_state,
)
from data_layer.errors import DatabaseMissingError, InvalidValueError, MigrationError

if TYPE_CHECKING:  # Alembic is loaded for migrations only.
    from data_layer.database.migrations.alembic_commands import Migrations

HEAD = "head"
"""Stands for the newest revision."""

# A killed client is noticed while its statement still runs; servers on Windows cannot do that.
_SET_LIMITS = text("""
SELECT set_config('lock_timeout', :lock_timeout, false), set_config('statement_timeout', :statement_timeout, false),
    set_config('idle_in_transaction_session_timeout', '0', false),
    CASE WHEN version() !~ 'Visual C|mingw' THEN set_config('client_connection_check_interval', '1000', false) END
""")


class Migrator:
    """Everything that an operator does to the tables, on a direct connection that is opened for each call.

    All methods block; asynchronous callers use ``asyncio.to_thread``. Several processes may call them at once: one
    works, the others wait for it and then find nothing left to do. Each migration is one transaction together with the
    note that it was made, so that a process that dies leaves either the old tables or the new ones.

    Args:
        address: a database, reached directly: PgBouncer in transaction mode would lose the lock.
        lock_wait: seconds to wait for another process that is migrating.
        lock_timeout: seconds for which a statement may wait for a table that others use. What needs the table next
            waits as long, so that it should be short; after it the migration is tried again.
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
            DatabaseMissingError: the database does not exist.
            DatabaseUnavailableError: the server cannot be reached.
            DatabaseLoginError: the server refused the user.
        """
        with self._connection() as connection:
            return read_schema_state(connection, self._revisions)

    def require_current(self) -> None:
        """Do nothing if this version of the code can work on the database; one query if it can.

        Raises:
            SchemaMismatchError: it is behind, ahead or another application's; the message names the remedy.
            DatabaseMissingError: the database does not exist.
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
        self, target: str = HEAD, *, shared: bool = False, on_progress: ProgressListener = ignore_progress
    ) -> tuple[str, ...]:
        """Run the missing migrations up to ``target`` and return their revisions.

        Args:
            target: a revision, or ``head`` for the newest.
            shared: whether our tables may be added to a database that holds other applications' tables.
            on_progress: called with what happens, in the thread that this runs in.

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
            if not (shared and state.can_be_shared):
                state.require_migratable()
            _require_utf8(connection)
            missing = self._revisions[self._count_up_to(state.revision) : goal]
            for step in steps(missing, on_progress):
                upgrade = partial(self._migrations.upgrade, connection, step.revision.identifier)
                execute(step, connection, upgrade, self._attempts)
        return tuple(revision.identifier for revision in missing)

    def rollback(self, count: int = 1, *, on_progress: ProgressListener = ignore_progress) -> tuple[str, ...]:
        """Undo the last ``count`` migrations and return their revisions, newest first.

        To undo the first migration is to drop all our tables.

        Raises:
            MigrationError: one of them failed, and left the tables as they were before it; or another process was
                migrating for too long.
            SchemaAheadError: only the newer version that migrated the database can undo it.
            ForeignSchemaError: the database holds other applications' tables; nothing was changed.
        """
        if count < 1:
            raise InvalidValueError("the number of migrations to undo must be 1 or more", field="count")
        with self._exclusive(on_progress) as connection:
            state = read_schema_state(connection, self._revisions)
            state.require_migratable()
            applied = self._revisions[: self._count_up_to(state.revision)]
            undone = applied[::-1][:count]
            for step in steps(undone, on_progress):
                downgrade = partial(self._migrations.downgrade, connection, self._before(step.revision))
                execute(step, connection, downgrade, self._attempts)
            if undone == applied[::-1]:
                connection.execute(text(f"DROP TABLE IF EXISTS {VERSION_TABLE}"))
                connection.commit()
        return tuple(revision.identifier for revision in undone)

    def reset(self, *, on_progress: ProgressListener = ignore_progress) -> bool:
        """Remove all our tables and rows; report whether that meant to drop and recreate the database.

        It is recreated, for the same owner, where the user may do that and nobody else has tables in it; all its
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
    def _exclusive(self, listener: ProgressListener) -> Iterator[Connection]:
        with self._connection() as connection:
            connection.execute(_SET_LIMITS, self._limits)
            connection.commit()
            with exclusive(connection, self._lock_wait, listener):
                yield connection

    @cached_property
    def _migrations(self) -> Migrations:
        # Alembic is loaded when there is something to migrate; a service that starts usually has nothing.
        from data_layer.database.migrations.alembic_commands import Migrations

        return Migrations(self._versions)

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
        return self._revisions[position - 1].identifier if position else BASE


def _require_utf8(connection: Connection) -> None:
    encoding = connection.scalar(text("SHOW server_encoding"))
    connection.rollback()
    if encoding != "UTF8":
        raise MigrationError(
            f"the database is encoded in {encoding}, which cannot hold every text; "
            "set DB_NAME to another one and make it with: data-layer db create"
        )
