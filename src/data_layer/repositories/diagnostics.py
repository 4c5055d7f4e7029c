"""Read-only questions to a PostgreSQL server and about our tables, for ``data-layer doctor``."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.rows import dict_row

from data_layer.database.engine import Database, driver_connection
from data_layer.database.migrations import VERSION_TABLE
from data_layer.database.replicas import parse_position
from data_layer.entities import AuditLog, Entity
from data_layer.entities.audit_log import DEFAULT_PARTITION
from data_layer.repositories.audit_partitions import AuditPartitions, Month

_SERVER = """
SELECT current_setting('server_version') AS version,
       current_setting('server_version_num')::int AS version_number,
       current_user AS "user",
       current_database() AS database,
       pg_is_in_recovery() AS is_standby,
       (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AS is_superuser,
       (SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user) AS role_limit,
       (SELECT rolvaliduntil::text FROM pg_roles WHERE rolname = current_user AND rolvaliduntil < now() + '14 days')
           AS password_ends,
       current_setting('max_connections')::int AS max_connections,
       current_setting('superuser_reserved_connections')::int AS reserved_connections,
       coalesce(current_setting('reserved_connections', true)::int, 0) AS further_reserved_connections,
       (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')::int AS connections,
       current_setting('fsync') = 'on' AS fsync,
       current_setting('full_page_writes') = 'on' AS full_page_writes,
       current_setting('synchronous_commit') AS synchronous_commit,
       current_setting('synchronous_standby_names') AS synchronous_standbys,
       (SELECT count(*) FROM pg_stat_replication)::int AS followers,
       current_setting('default_transaction_read_only') = 'on' AS is_read_only,
       pg_encoding_to_char(encoding) AS encoding, datcollate AS collation,
       datconnlimit AS database_limit
FROM pg_database WHERE datname = current_database()
"""
_IDENTITY = """
SELECT pg_backend_pid() AS process, pg_postmaster_start_time() AS started_at, current_database() AS database,
       pg_is_in_recovery() AS is_standby
"""
_TIMEOUTS = """
SELECT name, setting, coalesce(unit, '') AS unit, source
FROM pg_settings
WHERE name IN ('statement_timeout', 'idle_in_transaction_session_timeout', 'idle_session_timeout',
               'transaction_timeout')
ORDER BY name
"""
_EXTENSIONS = """
SELECT name, installed_version IS NOT NULL AS is_installed FROM pg_available_extensions WHERE name = ANY(%(names)s)
"""


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """One server, as its user sees it. Limits of connections are -1 where there is none; sizes are in bytes."""

    version: str
    version_number: int
    user: str
    database: str
    is_standby: bool
    is_superuser: bool
    role_limit: int
    password_ends: str | None
    max_connections: int
    reserved_connections: int
    further_reserved_connections: int
    connections: int
    fsync: bool
    full_page_writes: bool
    synchronous_commit: str
    synchronous_standbys: str
    followers: int
    is_read_only: bool
    encoding: str
    collation: str
    database_limit: int


@dataclass(frozen=True, slots=True)
class Identity:
    """Which server answers on a connection. ``is_pooled``: it is another process than the one that was logged in to."""

    process: int
    started_at: datetime
    database: str
    is_standby: bool
    is_pooled: bool
    is_encrypted: bool


async def read_server(database: Database) -> ServerFacts:
    """What the server is."""
    return ServerFacts(**await ask_one(database, _SERVER))


async def read_identity(database: Database) -> Identity:
    """Which server answers.

    A pooler such as PgBouncer gives its clients process numbers that it invents, and so gives itself away.
    """
    async with driver_connection(database) as connection:
        announced, is_encrypted = connection.info.backend_pid, connection.pgconn.ssl_in_use
        cursor = await connection.execute(_IDENTITY.encode(), prepare=False)
        row = await cursor.fetchone()
    process, started_at, name, is_standby = row  # type: ignore[misc]  # the statement always has a row
    return Identity(process, started_at, name, is_standby, process != announced, is_encrypted)


async def read_timeouts(database: Database) -> dict[str, dict[str, Any]]:
    """The time limits of this session by name: in which unit, and where they come from."""
    return {row["name"]: row for row in await ask(database, _TIMEOUTS)}


async def read_extensions(database: Database, names: list[str]) -> dict[str, bool]:
    """Which of these extensions the server has, and whether they are installed in this database."""
    return {row["name"]: row["is_installed"] for row in await ask(database, _EXTENSIONS, {"names": names})}


async def read_clock_difference(database: Database) -> tuple[float, float]:
    """Seconds that the server's clock is ahead of this machine's, and how far that may be off."""
    differences = []
    for _ in range(3):
        before = time.time()
        row = await ask_one(database, "SELECT extract(epoch FROM clock_timestamp())::float8 AS now")
        after = time.time()
        differences.append(((after - before) / 2, row["now"] - (before + after) / 2))
    uncertainty, difference = min(differences)
    return difference, uncertainty


async def ask(database: Database, question: str, parameters: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """The rows of the answer.

    Raises:
        DatabaseError: the server cannot be asked, or may not answer this user.
    """
    async with driver_connection(database) as connection, connection.cursor(row_factory=dict_row) as cursor:
        # Without a transaction there is nothing to end, and behind a pooler nothing may be prepared.
        await cursor.execute(question.encode(), parameters, prepare=False)
        return await cursor.fetchall()


async def ask_one(database: Database, question: str, parameters: dict[str, Any] | None = None) -> dict[str, Any]:
    """The only row of the answer."""
    return (await ask(database, question, parameters))[0]


# Rows of the trail are never changed, so no role needs the right to do it.
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


async def read_audit_partitions(database: Database) -> tuple[list[Month], bool]:
    """The months that have a partition, oldest first, and whether entries lie outside of them."""
    months = await AuditPartitions(database).months()
    return months, bool((await ask_one(database, _DEFAULT_HAS_ROWS))["has_rows"])


_POSITION = "SELECT pg_current_wal_flush_lsn()::text AS position"
_REPLAYED = "SELECT pg_is_in_recovery() AS is_standby, pg_last_wal_replay_lsn()::text AS position"
_PAUSE_SECONDS = 0.05


async def measure_lag(primary: Database, replica: Database, patience: float) -> float | None:
    """Seconds until a replica shows what the primary has now, by positions in its log; None: longer than ``patience``.

    Raises:
        DatabaseError: one of them cannot be asked, or the replica is none.
    """
    wanted = parse_position((await ask_one(primary, _POSITION))["position"])
    started = time.monotonic()
    while True:
        row = await ask_one(replica, _REPLAYED)
        if row["position"] is not None and parse_position(row["position"]) >= wanted:
            return time.monotonic() - started
        if time.monotonic() - started > patience:
            return None
        await asyncio.sleep(_PAUSE_SECONDS)
