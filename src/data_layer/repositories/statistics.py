"""Figures about the tables, the stored files and the statements, read from PostgreSQL without slowing it down."""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy import text

from data_layer.database.statements import named
from data_layer.entities import Entity
from data_layer.errors import NotFoundError
from data_layer.repositories.unit_of_work import UnitOfWork
from data_layer.schemas.statistics import (
    FileUsage,
    ServerStatistics,
    SlotStatistics,
    StandbyStatistics,
    StatementStatistics,
    StoredStatistics,
    TableStatistics,
    UnusedIndex,
)

STATEMENT_SECONDS = 2.0
_LOCK_SECONDS = 0.5

_LIMITS = named(
    "statistics.limits",
    text("SELECT set_config('statement_timeout', :statement, true), set_config('lock_timeout', :lock, true)"),
)
_SERVER = named(
    "statistics.server",
    text("""
SELECT current_database() AS name,
       'PostgreSQL ' || current_setting('server_version') AS server,
       current_user::text AS role,
       pg_has_role(current_user, 'pg_read_all_stats', 'USAGE') AS sees_everything,
       pg_is_in_recovery() AS is_standby,
       pg_postmaster_start_time() AS started_at,
       activity.*,
       current_setting('max_connections')::int AS connection_limit,
       xact_commit AS commits,
       xact_rollback AS rollbacks,
       deadlocks,
       blks_hit::float / nullif(blks_hit + blks_read, 0) AS hit_rate,
       temp_bytes AS temporary_size,
       stats_reset AS counted_since
FROM pg_stat_database,
     (SELECT count(*) FILTER (WHERE datname = current_database()) AS connections,
             count(*) AS server_connections,
             count(*) FILTER (WHERE wait_event_type = 'Lock' AND datname = current_database()) AS waiting_for_locks,
             extract(epoch FROM max(now() - xact_start) FILTER
                 (WHERE datname = current_database() AND pid <> pg_backend_pid()))::float AS longest_transaction_seconds
      FROM pg_stat_activity
      WHERE datid IS NOT NULL AND coalesce(backend_type, 'client backend') = 'client backend') AS activity
WHERE datname = current_database()
"""),
)
_STATES = named(
    "statistics.states",
    text("""
SELECT coalesce(state, 'hidden') AS state, count(*) AS connections
FROM pg_stat_activity
WHERE datname = current_database() AND coalesce(backend_type, 'client backend') = 'client backend'
GROUP BY 1
ORDER BY 2 DESC, 1
"""),
)
_SIZE = named(
    "statistics.size",
    text("SELECT pg_database_size(current_database())"),
)
_TABLES = named(
    "statistics.tables",
    text("""
SELECT c.relname AS name,
       sum(greatest(part.reltuples::bigint, s.n_live_tup))::bigint AS rows,
       sum(s.n_dead_tup)::bigint AS dead_rows,
       sum(pg_table_size(part.oid))::bigint AS size,
       sum(pg_indexes_size(part.oid))::bigint AS index_size,
       max(greatest(s.last_vacuum, s.last_autovacuum)) AS vacuumed_at,
       max(greatest(s.last_analyze, s.last_autoanalyze)) AS analyzed_at
FROM pg_class c
JOIN pg_class part ON part.oid IN (SELECT c.oid UNION ALL SELECT inhrelid FROM pg_inherits WHERE inhparent = c.oid)
    AND part.relkind = 'r'
JOIN pg_stat_user_tables s ON s.relid = part.oid
WHERE c.relname = ANY(:names) AND c.relnamespace = current_schema()::regnamespace
GROUP BY c.relname
ORDER BY c.relname
"""),
)
# An index of a partitioned table counts as one, and is used when one of its parts is.
_UNUSED_INDEXES = named(
    "statistics.unused_indexes",
    text("""
SELECT whole.relname AS name, owner.relname AS table, sum(pg_relation_size(s.indexrelid))::bigint AS size
FROM pg_stat_user_indexes s
JOIN pg_index i ON i.indexrelid = s.indexrelid
LEFT JOIN pg_inherits h ON h.inhrelid = s.indexrelid
JOIN pg_class whole ON whole.oid = coalesce(h.inhparent, s.indexrelid)
JOIN pg_index whole_index ON whole_index.indexrelid = whole.oid
JOIN pg_class owner ON owner.oid = whole_index.indrelid
WHERE owner.relname = ANY(:names) AND owner.relnamespace = current_schema()::regnamespace
    AND NOT i.indisunique AND NOT i.indisexclusion
GROUP BY whole.oid, whole.relname, owner.relname
HAVING sum(s.idx_scan) = 0
ORDER BY size DESC, name
"""),
)
_STANDBYS = named(
    "statistics.standbys",
    text("""
SELECT application_name AS name, host(client_addr) AS address, state, sync_state AS synchronous,
       pg_wal_lsn_diff(here.position, replay_lsn)::bigint AS lag_size,
       extract(epoch FROM replay_lag)::float AS lag_seconds
FROM pg_stat_replication,
     (SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_receive_lsn() ELSE pg_current_wal_lsn() END AS position)
         AS here
ORDER BY application_name, client_addr
"""),
)
_SLOTS = named(
    "statistics.slots",
    text("""
SELECT slot_name::text AS name, active AS is_active,
       pg_wal_lsn_diff(here.position, restart_lsn)::bigint AS kept_size
FROM pg_replication_slots,
     (SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_receive_lsn() ELSE pg_current_wal_lsn() END AS position)
         AS here
WHERE NOT temporary
ORDER BY slot_name
"""),
)


async def limit_time(tx: UnitOfWork) -> None:
    """Whatever follows in this transaction ends soon: figures are never worth the work of the users."""
    limits = {"statement": STATEMENT_SECONDS, "lock": _LOCK_SECONDS}
    await tx.execute(_LIMITS.bindparams(**{name: f"{seconds * 1000:.0f}" for name, seconds in limits.items()}))


async def read_server(tx: UnitOfWork) -> ServerStatistics:
    """The server, its connections and its counters."""
    server = (await tx.execute(_SERVER)).mappings().one()
    states = (await tx.execute(_STATES)).all()
    return ServerStatistics(**server, connections_by_state={row.state: row.connections for row in states})


async def read_size(tx: UnitOfWork) -> int:
    """The size of the whole database."""
    return int((await tx.execute(_SIZE)).scalar_one())


async def read_tables(tx: UnitOfWork) -> tuple[TableStatistics, ...]:
    """Our tables, by name."""
    rows = (await tx.execute(_TABLES.bindparams(names=_our_tables()))).mappings()
    return tuple(TableStatistics.model_validate(dict(row)) for row in rows)


async def read_unused_indexes(tx: UnitOfWork) -> tuple[UnusedIndex, ...]:
    """Indexes of our tables that were not used, the largest first; unique ones keep a rule and are left out."""
    rows = (await tx.execute(_UNUSED_INDEXES.bindparams(names=_our_tables()))).mappings()
    return tuple(UnusedIndex.model_validate(dict(row)) for row in rows)


async def read_standbys(tx: UnitOfWork) -> tuple[StandbyStatistics, ...]:
    """The servers that follow this one."""
    return tuple(StandbyStatistics.model_validate(dict(row)) for row in (await tx.execute(_STANDBYS)).mappings())


async def read_slots(tx: UnitOfWork) -> tuple[SlotStatistics, ...]:
    """The replication slots."""
    return tuple(SlotStatistics.model_validate(dict(row)) for row in (await tx.execute(_SLOTS)).mappings())


def _our_tables() -> list[str]:
    return list(Entity.metadata.tables)


PAGES_READ = 5000
"""Of 8 KiB each; a table that has more is estimated from a random sample of about so many."""

_NAMED = 10
_EVERYTHING = 100.0
_PAGES = named(
    "statistics.stored_pages",
    text("SELECT pg_relation_size('stored_files') / current_setting('block_size')::int"),
)
_KINDS = """
SELECT state, content_type, count(*) AS count, sum(original_size)::bigint AS size, sum(size)::bigint AS stored_size
FROM stored_files {sample}
GROUP BY state, content_type
"""
_OWNERS = """
SELECT coalesce(owner_id::text, 'system') AS name, count(*) AS count,
       sum(original_size)::bigint AS size, sum(size)::bigint AS stored_size
FROM stored_files {sample}
GROUP BY 1
ORDER BY stored_size DESC
LIMIT {limit}
"""
_FIGURES = ("count", "size", "stored_size")


async def read_stored(tx: UnitOfWork, *, pages_read: int = PAGES_READ) -> StoredStatistics:
    """How many objects there are and what they take, by type, owner and state."""
    pages = int((await tx.execute(_PAGES)).scalar_one())
    percent = _EVERYTHING * min(1.0, pages_read / max(pages, 1))
    is_estimate = percent < _EVERYTHING
    sample = f"TABLESAMPLE SYSTEM ({percent:.6f})" if is_estimate else ""
    factor = _EVERYTHING / percent
    kinds = (await tx.execute(named("statistics.stored_kinds", text(_KINDS.format(sample=sample))))).mappings().all()
    owners = (
        (await tx.execute(named("statistics.stored_owners", text(_OWNERS.format(sample=sample, limit=_NAMED)))))
        .mappings()
        .all()
    )
    by_state = _summed(kinds, "state", factor)
    return StoredStatistics(
        is_estimate=is_estimate,
        file_count=sum(usage.count for usage in by_state),
        total_size=sum(usage.stored_size for usage in by_state),
        by_state=by_state,
        by_type=_summed(kinds, "content_type", factor)[:_NAMED],
        by_owner=tuple(_usage(row["name"], row, factor) for row in owners),
    )


def _summed(rows: Any, column: str, factor: float) -> tuple[FileUsage, ...]:
    """The rows by one column, what takes the most first."""
    sums: dict[str, dict[str, int]] = {}
    for row in rows:
        total = sums.setdefault(str(row[column]), dict.fromkeys(_FIGURES, 0))
        for figure in _FIGURES:
            total[figure] += row[figure]
    usages = (_usage(name, total, factor) for name, total in sums.items())
    return tuple(sorted(usages, key=lambda usage: (-usage.stored_size, usage.name)))


def _usage(name: str, figures: Any, factor: float) -> FileUsage:
    return FileUsage(name=name, **{figure: round(figures[figure] * factor) for figure in _FIGURES})


_HOW_MANY = 10
_LONGEST_TEXT = 1000
_OLDEST = (1, 8)  # Of PostgreSQL 13; before it the columns had other names.

_PLACE = named(
    "statistics.statements_place",
    text("""
SELECT quote_ident(n.nspname) AS schema, e.extversion AS version
FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
WHERE e.extname = 'pg_stat_statements'
"""),
)
# Only what has parameters is kept without their values: ALTER ROLE … PASSWORD is not. A comment may stand before it.
_STATEMENTS = r"""
SELECT left(query, 4000) AS statement, calls, total_exec_time AS total_ms, mean_exec_time AS mean_ms,
       max_exec_time AS maximum_ms, rows
FROM {schema}.pg_stat_statements
WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND query ~* '^(\s|/\*[^*]*\*/)*(select|insert|update|delete|merge|with)\M'
ORDER BY total_exec_time DESC
LIMIT {limit}
"""
_COMMENT = re.compile(r"/\*.*?(?:\*/|\Z)", re.DOTALL)
_LITERAL = re.compile(r"'(?:[^']|'')*(?:'|\Z)")
_BLANKS = re.compile(r"\s+")


async def read_statements(tx: UnitOfWork) -> tuple[StatementStatistics, ...]:
    """The statements of this database that took the most time in all.

    Raises:
        NotFoundError: the extension is not there, or too old.
        DatabaseError: it may not be read, or its library is not loaded.
    """
    found = (await tx.execute(_PLACE)).first()
    if found is None:
        raise NotFoundError(
            "pg_stat_statements is not there; preload it (shared_preload_libraries) and CREATE EXTENSION"
        )
    if tuple(map(int, found.version.split("."))) < _OLDEST:
        raise NotFoundError(
            f"pg_stat_statements is {found.version}; ALTER EXTENSION pg_stat_statements UPDATE brings it up"
        )
    statement = _STATEMENTS.format(schema=found.schema, limit=_HOW_MANY)
    rows = (await tx.execute(named("statistics.statements", text(statement)))).mappings()
    return tuple(
        StatementStatistics.model_validate({**row, "statement": without_values(row["statement"])}) for row in rows
    )


def without_values(statement: str) -> str:
    """A statement in one line, without comments and without what its author wrote into it as text."""
    plain = _LITERAL.sub("'…'", _COMMENT.sub(" ", statement))
    return _BLANKS.sub(" ", plain).strip()[:_LONGEST_TEXT]
