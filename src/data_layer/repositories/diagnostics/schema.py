"""Whether our tables can be used, and the audit trail has room for the months to come."""

from __future__ import annotations

from typing import TYPE_CHECKING

from data_layer.database.migrations import VERSION_TABLE
from data_layer.entities import AuditLog, Entity
from data_layer.entities.audit_log import DEFAULT_PARTITION
from data_layer.repositories.audit_partitions import AuditPartitions, Month
from data_layer.repositories.diagnostics.question import ask, ask_one

if TYPE_CHECKING:
    from data_layer.database.engine import Database

# Rows of the trail are never changed; whoever may not, need not be able to.
_APPEND_ONLY = AuditLog.__tablename__
_RIGHTS = """
SELECT wanted.name AS "table", string_agg(privilege, ', ') AS missing
FROM unnest(%(names)s::text[]) AS wanted(name)
CROSS JOIN unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS privilege
JOIN pg_class c ON c.oid = to_regclass(wanted.name)
WHERE NOT has_table_privilege(c.oid, privilege)
AND NOT (wanted.name = %(append_only)s AND privilege IN ('UPDATE', 'DELETE'))
AND NOT (wanted.name = %(version_table)s AND privilege <> 'SELECT')
GROUP BY wanted.name ORDER BY wanted.name
"""
_OWNERSHIP = """
SELECT has_schema_privilege(current_schema(), 'CREATE') AS may_create,
       bool_and(pg_has_role(relowner, 'USAGE')) AS owns_tables,
       bool_and(pg_has_role(relowner, 'USAGE')) FILTER (WHERE relname = %(partitioned)s) AS owns_partitions
FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relname = ANY(%(names)s)
"""
_DEFAULT_HAS_ROWS = f"SELECT EXISTS (SELECT FROM {DEFAULT_PARTITION}) AS has_rows"  # noqa: S608  (a constant)
_SCHEMA = "SELECT current_schema() AS name, current_setting('search_path') AS search_path"


async def read_schema_name(database: Database) -> tuple[str | None, str]:
    """The schema in which tables are looked for first, and the search path; None: this user may use none of it."""
    row = await ask_one(database, _SCHEMA)
    return row["name"], row["search_path"]


async def read_missing_rights(database: Database) -> dict[str, str]:
    """For each table what this user may not do, although the service does it."""
    names = [*Entity.metadata.tables, VERSION_TABLE]
    parameters = {"names": names, "append_only": _APPEND_ONLY, "version_table": VERSION_TABLE}
    return {row["table"]: row["missing"] for row in await ask(database, _RIGHTS, parameters)}


async def read_ownership(database: Database) -> tuple[bool, bool, bool]:
    """Whether this user may create tables, change ours, and make partitions of the audit trail."""
    names = [*Entity.metadata.tables]
    row = await ask_one(database, _OWNERSHIP, {"names": names, "partitioned": _APPEND_ONLY})
    return bool(row["may_create"]), bool(row["owns_tables"]), bool(row["owns_partitions"])


async def read_audit_months(database: Database) -> tuple[list[Month], bool]:
    """The months that have a partition, oldest first, and whether entries lie outside of them."""
    months = await AuditPartitions(database).months()
    return months, bool((await ask_one(database, _DEFAULT_HAS_ROWS))["has_rows"])
