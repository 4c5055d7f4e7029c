"""Compares the tables of a database with the models, definition by definition.

PostgreSQL itself writes both sides: the models are created once more as temporary tables, in a transaction that is
rolled back, and read from the catalogs in the same way as the real ones. So ``IN ('a', 'b')`` and what the server made
of it are never taken for different by mistake, and nothing that a model can say is left out.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import Connection, TextClause, bindparam, text
from sqlalchemy.exc import ProgrammingError

from data_layer.database.migrations import VERSION_TABLE, Revision, known_revisions
from data_layer.database.statements import named
from data_layer.entities import Entity
from data_layer.entities.audit_log import DEFAULT_PARTITION
from data_layer.entities.triggers import FUNCTIONS, TRIGGERS, refuse_change, refuse_truncate
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


Key = tuple[str, str]
Definitions = dict[Key, str]

_DEFINITIONS = text("""
WITH ours AS (
    SELECT oid, relname, relpersistence, relkind, relispartition, relpartbound FROM pg_class
    WHERE relnamespace = CASE WHEN :temporary THEN pg_my_temp_schema() ELSE to_regnamespace(current_schema()) END
    AND relname IN :tables AND relkind IN ('r', 'p', 'v', 'm', 'f')
)
SELECT 'table', relname, concat_ws(' ',
    CASE WHEN relkind NOT IN ('r', 'p') THEN 'no plain table' WHEN relpersistence = 'u' THEN 'unlogged' END,
    CASE WHEN relkind = 'p' THEN 'PARTITION BY ' || pg_get_partkeydef(oid) END,
    CASE WHEN relispartition THEN 'PARTITION ' || pg_get_expr(relpartbound, oid) END)
FROM ours
UNION ALL
SELECT 'column', relname || '.' || attname, concat_ws(' ',
    format_type(atttypid, atttypmod),
    CASE WHEN attcollation <> typcollation THEN 'COLLATE ' || attcollation::regcollation END,
    CASE WHEN attnotnull THEN 'NOT NULL' END,
    CASE WHEN attidentity <> '' THEN 'GENERATED AS IDENTITY' END,
    CASE attgenerated WHEN '' THEN 'DEFAULT ' WHEN 's' THEN 'STORED ' ELSE 'VIRTUAL ' END
        || pg_get_expr(adbin, adrelid, true))
FROM ours
JOIN pg_attribute ON attrelid = ours.oid AND attnum > 0 AND NOT attisdropped
JOIN pg_type ON pg_type.oid = atttypid
LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
UNION ALL
SELECT 'constraint', relname || '.' || conname, pg_get_constraintdef(pg_constraint.oid, true)
FROM ours JOIN pg_constraint ON conrelid = ours.oid AND contype IN ('p', 'u', 'f', 'c', 'x')
UNION ALL
SELECT 'index', ours.relname || '.' || pg_class.relname,
    pg_get_indexdef(indexrelid, 0, true) || CASE WHEN indisvalid THEN '' ELSE ' (invalid)' END
FROM ours JOIN pg_index ON indrelid = ours.oid JOIN pg_class ON pg_class.oid = indexrelid
WHERE NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid AND contype IN ('p', 'u', 'x'))
UNION ALL
SELECT 'trigger', relname || '.' || tgname, concat(
    pg_get_triggerdef(pg_trigger.oid, true), '; ALTER TABLE ', relname, ' ',
    CASE tgenabled WHEN 'O' THEN 'ENABLE' WHEN 'A' THEN 'ENABLE ALWAYS' WHEN 'R' THEN 'ENABLE REPLICA' ELSE 'DISABLE'
    END, ' TRIGGER ', tgname)
FROM (
    SELECT oid, relname FROM ours
    UNION
    SELECT pg_class.oid, pg_class.relname FROM ours, pg_partition_tree(ours.oid) JOIN pg_class ON pg_class.oid = relid
) AS tables
JOIN pg_trigger ON tgrelid = tables.oid AND NOT tgisinternal
""").bindparams(bindparam("tables", [*Entity.metadata.tables, DEFAULT_PARTITION], expanding=True))

# Maintenance makes them and gives them their triggers; their other definitions follow from those of their table.
_AUDIT_PARTITIONS = text("""
SELECT relname FROM pg_partition_tree(to_regclass('audit_logs')) JOIN pg_class ON pg_class.oid = relid WHERE level > 0
""")

_FUNCTIONS = text("""
SELECT 'function', proname, concat(
    'CREATE OR REPLACE FUNCTION ', proname, '() RETURNS ', prorettype::regtype, ' LANGUAGE ', lanname,
    CASE WHEN prosecdef THEN ' SECURITY DEFINER' END, ' SET ' || array_to_string(proconfig, ', '),
    ' AS $body$', prosrc, '$body$')
FROM pg_proc JOIN pg_language ON pg_language.oid = prolang
WHERE pronamespace = to_regnamespace(current_schema()) AND pronargs = 0 AND proname IN :functions
""").bindparams(bindparam("functions", [function.name for function in FUNCTIONS], expanding=True))


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that the models and the database do not agree on; ``None`` stands for something that is not there."""

    kind: str
    name: str
    expected: str | None
    actual: str | None

    def __str__(self) -> str:
        if self.actual is None:
            return f"{self.kind} {self.name} is missing"
        if self.expected is None:
            return f"{self.kind} {self.name} is not in the models: {self.actual}"
        if self.kind == "function":
            return f"function {self.name} has another text"
        return f"{self.kind} {self.name} should be: {self.expected}; but is: {self.actual}"


@dataclass(frozen=True, slots=True)
class SchemaReport:
    """Whether models, migrations and database agree; ``differences`` are looked for only at the newest revision."""

    state: SchemaState
    differences: tuple[Difference, ...]

    @property
    def agrees(self) -> bool:
        """Whether nothing needs to be done."""
        return self.state.is_current and not self.differences


def find_differences(connection: Connection) -> tuple[Difference, ...]:
    """All differences between the models and the tables in the current schema; nothing is changed.

    Tables of others beside ours do not count, but what was added to our own tables does. The database user needs
    the right to create temporary tables, and the server must not be a read-only replica.
    """
    with connection.begin() as transaction:
        actual = _read(connection, _DEFINITIONS, temporary=False) | _read(connection, _FUNCTIONS)
        partitions = connection.scalars(_AUDIT_PARTITIONS).all()
        expected = _definitions_of_models(connection, partitions)
        transaction.rollback()
    missing_tables = {name for kind, name in expected.keys() - actual.keys() if kind == "table"}
    return tuple(
        Difference(*key, expected.get(key), actual.get(key))
        for key in sorted(expected.keys() | actual.keys())
        if expected.get(key) != actual.get(key) and not _belongs_to(key, missing_tables)
    )


def _belongs_to(key: Key, tables: set[str]) -> bool:
    """Whether it is part of one of the tables, so that naming the table says enough."""
    table, dot, _ = key[1].partition(".")
    return bool(dot) and table in tables


def _definitions_of_models(connection: Connection, audit_partitions: Sequence[str]) -> Definitions:
    path = "pg_temp, " + str(connection.scalar(text("SHOW search_path")))
    connection.execute(text("SELECT set_config('search_path', :path, true)"), {"path": path})
    Entity.metadata.create_all(connection, checkfirst=False)
    functions = {("function", function.name): function.create for function in FUNCTIONS}
    of_partitions = [make(table) for table in audit_partitions for make in (refuse_change, refuse_truncate)]
    triggers = {("trigger", str(trigger)): "; ".join(trigger.create) for trigger in (*TRIGGERS, *of_partitions)}
    return _read(connection, _DEFINITIONS, temporary=True) | functions | triggers


def _read(connection: Connection, query: TextClause, **parameters: bool) -> Definitions:
    rows = connection.execute(query, parameters)
    return {(kind, name): definition or "" for kind, name, definition in rows}
