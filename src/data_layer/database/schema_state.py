"""How the tables in a database relate to those that this version of the code needs; one query when they fit."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import Connection, text
from sqlalchemy.exc import ProgrammingError

from data_layer.database.migrations import VERSION_TABLE, Revision, known_revisions
from data_layer.database.statements import named
from data_layer.entities import Entity
from data_layer.errors import ForeignSchemaError, SchemaAheadError, SchemaBehindError, SchemaMismatchError

_UNDEFINED_TABLE = "42P01"
_READ_REVISIONS = named("schema.revisions", text(f"SELECT version_num FROM {VERSION_TABLE}"))  # noqa: S608  (a constant)

# What an extension brought along belongs to the server, not to an application.
_READ_TABLES = named(
    "schema.tables",
    text("""
SELECT relname FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE nspname = current_schema() AND relkind IN ('r', 'p', 'v', 'm', 'f') AND relname <> :version_table
AND NOT EXISTS (
    SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = pg_class.oid AND deptype = 'e'
)
ORDER BY relname
""").bindparams(version_table=VERSION_TABLE),
)


class SchemaStatus(StrEnum):
    """What a database is to this version of the code."""

    UP_TO_DATE = "up_to_date"
    BEHIND = "behind"
    AHEAD = "ahead"
    EMPTY = "empty"
    FOREIGN = "foreign"


@dataclass(frozen=True, slots=True)
class SchemaState:
    """Where a database stands.

    ``revision`` is where it is, ``head`` where this version of the code needs it to be, and ``pending`` lists the
    migrations between them, oldest first. ``strangers`` are the tables that make it the database of another
    application.
    """

    state: SchemaStatus
    revision: str | None
    head: str | None
    pending: tuple[str, ...] = ()
    strangers: tuple[str, ...] = ()

    @property
    def is_current(self) -> bool:
        """Whether this version of the code can work on it."""
        return self.state is SchemaStatus.UP_TO_DATE

    @property
    def clashes(self) -> tuple[str, ...]:
        """The strangers' tables that have the name of one of ours."""
        return tuple(name for name in self.strangers if name in Entity.metadata.tables)

    @property
    def can_be_shared(self) -> bool:
        """Whether our tables could be added to those of another application."""
        return self.state is SchemaStatus.FOREIGN and self.revision is None and not self.clashes

    def require_current(self) -> None:
        """Do nothing if this version of the code can work on the database.

        Raises:
            SchemaBehindError: migrations are missing, or there are no tables yet.
            SchemaAheadError: a newer version has migrated it.
            ForeignSchemaError: it holds the tables of another application.
        """
        if not self.is_current:
            raise self._error()

    def require_migratable(self) -> None:
        """Do nothing if this version of the code can run or undo migrations on the database.

        Raises:
            SchemaAheadError: a newer version has migrated it.
            ForeignSchemaError: it holds the tables of another application.
        """
        if self.state in {SchemaStatus.AHEAD, SchemaStatus.FOREIGN}:
            raise self._error()

    def _error(self) -> SchemaMismatchError:
        match self.state:
            case SchemaStatus.EMPTY:
                return SchemaBehindError("the database has no tables yet; make them with: data-layer db migrate")
            case SchemaStatus.BEHIND:
                return SchemaBehindError(
                    f"the database is at revision {self.revision} and this version needs {self.head}; "
                    f"run the missing {', '.join(self.pending)} with: data-layer db migrate"
                )
            case SchemaStatus.AHEAD:
                return SchemaAheadError(
                    f"the database is at revision {self.revision}, which this version does not know (it ends at "
                    f"{self.head}); update the service"
                )
            case _:
                return self._foreign_error()

    def _foreign_error(self) -> ForeignSchemaError:
        sharing = ", or share this one with: data-layer db migrate --shared" if self.can_be_shared else ""
        return ForeignSchemaError(
            f"the database holds tables of another application ({_some_of(self.clashes or self.strangers)}); "
            f"set DB_NAME to another database and make it with: data-layer db create{sharing}"
        )


def read_schema_state(connection: Connection, revisions: Sequence[Revision] | None = None) -> SchemaState:
    """Compare a database with the migrations that this version of the code has.

    Args:
        connection: one without an open transaction; the transaction that reading begins is ended.
        revisions: the migrations, oldest first; by default the package's own.
    """
    known = [revision.identifier for revision in (known_revisions() if revisions is None else revisions)]
    try:
        stored = _read_revisions(connection)
        if len(stored) == 1 and stored[0] in known:
            return _state_at(stored[0], known)
        return _state_without_known_revision(stored, known, connection.scalars(_READ_TABLES).all())
    finally:
        connection.rollback()


def _read_revisions(connection: Connection) -> Sequence[str]:
    try:
        return connection.scalars(_READ_REVISIONS).all()
    except ProgrammingError as error:
        if getattr(error.orig, "sqlstate", None) != _UNDEFINED_TABLE:
            raise
        connection.rollback()
        return ()


def _state_at(revision: str, known: list[str]) -> SchemaState:
    pending = tuple(known[known.index(revision) + 1 :])
    state = SchemaStatus.BEHIND if pending else SchemaStatus.UP_TO_DATE
    return SchemaState(state, revision, known[-1], pending)


def _state_without_known_revision(stored: Sequence[str], known: list[str], tables: Sequence[str]) -> SchemaState:
    head = known[-1] if known else None
    revision = ", ".join(sorted(stored)) or None
    if revision and any(name in Entity.metadata.tables for name in tables):
        return SchemaState(SchemaStatus.AHEAD, revision, head)
    state = SchemaStatus.FOREIGN if tables or revision else SchemaStatus.EMPTY
    strangers = tuple(tables) if not revision else (VERSION_TABLE, *tables)
    return SchemaState(state, revision, head, tuple(known), strangers)


def _some_of(names: Collection[str], limit: int = 5) -> str:
    shown = ", ".join(list(names)[:limit])
    return f"{shown} and {len(names) - limit} more" if len(names) > limit else shown
