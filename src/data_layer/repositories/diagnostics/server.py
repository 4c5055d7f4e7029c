"""What a PostgreSQL server is and how it is set up."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from data_layer.database.connection import driver_connection
from data_layer.repositories.diagnostics.question import ask, ask_one

if TYPE_CHECKING:
    from datetime import datetime

    from data_layer.database.engine import Database

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
       current_setting('autovacuum') = 'on' AS autovacuum,
       current_setting('default_transaction_read_only') = 'on' AS is_read_only,
       pg_encoding_to_char(encoding) AS encoding, datcollate AS collation,
       datconnlimit AS database_limit,
       pg_database_size(oid) AS size
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
# Since PostgreSQL 15 a newer library of the system may sort otherwise than the indexes do, and the server knows.
_COLLATION_VERSION = """
SELECT datcollversion AS recorded, pg_database_collation_actual_version(oid) AS actual
FROM pg_database WHERE datname = current_database()
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
    autovacuum: bool
    is_read_only: bool
    encoding: str
    collation: str
    database_limit: int
    size: int


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

    A pooler such as PgBouncer tells its clients a process number of its own, and so gives itself away.
    """
    async with driver_connection(database) as connection:
        told, is_encrypted = connection.info.backend_pid, connection.pgconn.ssl_in_use
        cursor = await connection.execute(_IDENTITY.encode(), prepare=False)
        row = await cursor.fetchone()
    process, started_at, name, is_standby = row  # type: ignore[misc]  # the statement always has a row
    return Identity(process, started_at, name, is_standby, process != told, is_encrypted)


async def read_timeouts(database: Database) -> dict[str, dict[str, Any]]:
    """The time limits of this session by name: in which unit, and where they come from."""
    return {row["name"]: row for row in await ask(database, _TIMEOUTS)}


async def read_extensions(database: Database, names: list[str]) -> dict[str, bool]:
    """Which of these extensions the server has, and whether they are installed in this database."""
    return {row["name"]: row["is_installed"] for row in await ask(database, _EXTENSIONS, {"names": names})}


async def read_collation_versions(database: Database) -> tuple[str | None, str | None]:
    """The version of the collation that indexes were made with, and the present one."""
    row = await ask_one(database, _COLLATION_VERSION)
    return row["recorded"], row["actual"]


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
