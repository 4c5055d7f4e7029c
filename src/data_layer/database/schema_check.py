"""Compares the tables of a database with the models, definition by definition.

PostgreSQL itself writes both sides: the models are created once more as temporary tables, in a transaction that is
rolled back, and read from the catalogs in the same way as the real ones. So ``IN ('a', 'b')`` and what the server made
of it are never taken for different by mistake, and nothing that a model can say is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, TextClause, bindparam, text

from data_layer.database.schema_state import SchemaState
from data_layer.entities import Entity
from data_layer.entities.audit_log import DEFAULT_PARTITION
from data_layer.entities.triggers import FUNCTIONS, TRIGGERS, refuse_change, refuse_truncate

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
