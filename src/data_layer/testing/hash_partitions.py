"""Tables of an existing schema as partitions by hash: what a migration to them would make, for tests and benchmarks.

A unique constraint of a partitioned table has to hold the column by which it is partitioned, so that column joins each
of them, and no foreign key can name the rest of the constraint any more: those of and to these tables are dropped.
"""

# ruff: noqa: S608  (only names from the catalog stand in the statements)
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg

_FOREIGN_KEYS = """
SELECT conrelid::regclass::text, conname FROM pg_constraint
WHERE contype = 'f' AND conparentid = 0
    AND (conrelid = ANY(%(tables)s::regclass[]) OR confrelid = ANY(%(tables)s::regclass[]))
"""
_COLUMNS = """
SELECT string_agg(quote_ident(attname), ', ') FROM pg_attribute
WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
"""
_INDEXES = """
SELECT pg_get_indexdef(index.oid), indisunique, indisprimary,
    (SELECT conname FROM pg_constraint WHERE conindid = index.oid AND contype IN ('p', 'u')),
    ARRAY(SELECT attname FROM pg_attribute WHERE attrelid = indrelid AND attnum = ANY(indkey) AND indisunique),
    EXISTS (SELECT FROM pg_attribute WHERE attrelid = indrelid AND attname = %(key)s AND NOT attnotnull)
FROM pg_index JOIN pg_class AS index ON index.oid = indexrelid WHERE indrelid = %(table)s::regclass
"""
_TRIGGERS = """
SELECT pg_get_triggerdef(oid), tgname, tgenabled = 'A' FROM pg_trigger
WHERE tgrelid = %s::regclass AND NOT tgisinternal ORDER BY tgname
"""


def partition_by_hash(connection: psycopg.Connection[Any], keys: Mapping[str, str], count: int) -> None:
    """Turn tables into partitioned ones of the same name, with their rows, indexes, checks and triggers.

    Args:
        connection: in a transaction, or one that commits each statement.
        keys: the column by which each table is partitioned; of those that may be null, the primary key becomes an
            index that is unique.
        count: partitions of each table. They are called ``table_0``, ``table_1`` and so on.
    """
    for table, name in _rows(connection, _FOREIGN_KEYS, {"tables": list(keys)}):
        _run(connection, f'ALTER TABLE {table} DROP CONSTRAINT "{name}"')
    for table, key in keys.items():
        _partition(connection, table, key, count)


def _partition(connection: psycopg.Connection[Any], table: str, key: str, count: int) -> None:
    indexes = _rows(connection, _INDEXES, {"table": table, "key": key})
    triggers = _rows(connection, _TRIGGERS, [table])
    [(columns,)] = _rows(connection, _COLUMNS, [table])
    whole = f"{table}_whole"
    _run(connection, f"ALTER TABLE {table} RENAME TO {whole}")
    _run(connection, f"CREATE TABLE {table} (LIKE {whole} INCLUDING ALL EXCLUDING INDEXES) PARTITION BY HASH ({key})")
    for number in range(count):
        values = f"FOR VALUES WITH (MODULUS {count}, REMAINDER {number})"
        _run(connection, f"CREATE TABLE {table}_{number} PARTITION OF {table} {values}")
    _run(connection, f"INSERT INTO {table} ({columns}) SELECT {columns} FROM {whole}")
    _run(connection, f"DROP TABLE {whole} CASCADE")
    for definition, is_unique, is_primary, constraint, unique_columns, is_nullable in indexes:
        if is_primary and not is_nullable:
            others = [column for column in unique_columns if column != key]
            _run(
                connection, f"ALTER TABLE {table} ADD CONSTRAINT {constraint} PRIMARY KEY ({', '.join([*others, key])})"
            )
        elif is_unique and key not in unique_columns:
            _run(connection, with_key(definition.replace(" ON ONLY ", " ON "), key))
        else:
            _run(connection, definition.replace(" ON ONLY ", " ON "))
    for definition, name, is_always in triggers:
        _run(connection, definition)
        if is_always:
            _run(connection, f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {name}")


def with_key(definition: str, key: str) -> str:
    """The definition of an index with one more column at its end."""
    start = definition.index("(", definition.index(" USING "))
    end, depth = start, 1
    while depth:  # An expression may hold parentheses.
        end += 1
        depth += {"(": 1, ")": -1}.get(definition[end], 0)
    return f"{definition[:end]}, {key}{definition[end:]}"


def _rows(connection: psycopg.Connection[Any], statement: str, parameters: Any) -> list[tuple[Any, ...]]:
    return connection.execute(statement.encode(), parameters).fetchall()


def _run(connection: psycopg.Connection[Any], statement: str) -> None:
    connection.execute(statement.encode())
