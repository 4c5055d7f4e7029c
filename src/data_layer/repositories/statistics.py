"""What PostgreSQL tells about itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text

from data_layer.database.statements import named
from data_layer.entities import Entity
from data_layer.schemas.statistics import DatabaseStatistics, PoolStatistics, TableStatistics

if TYPE_CHECKING:
    from data_layer.database.engine import Database
    from data_layer.repositories.unit_of_work import UnitOfWork

_SERVER = named(
    "statistics.server",
    text("""
SELECT current_database() AS name,
       'PostgreSQL ' || current_setting('server_version') AS server,
       pg_database_size(current_database()) AS size,
       (SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()) AS connections,
       current_setting('max_connections')::int AS connection_limit,
       pg_postmaster_start_time() AS started_at
"""),
)
_TABLES = named(
    "statistics.tables",
    text("""
SELECT c.relname AS name,
       sum(greatest(part.reltuples::bigint, s.n_live_tup))::bigint AS rows,
       sum(pg_table_size(part.oid))::bigint AS size,
       sum(pg_indexes_size(part.oid))::bigint AS index_size
FROM pg_class c
JOIN pg_class part ON part.oid IN (SELECT c.oid UNION ALL SELECT inhrelid FROM pg_inherits WHERE inhparent = c.oid)
    AND part.relkind = 'r'
JOIN pg_stat_user_tables s ON s.relid = part.oid
WHERE c.relname = ANY(:names) AND c.relnamespace = current_schema()::regnamespace
GROUP BY c.relname
ORDER BY c.relname
"""),
)


async def read_statistics(database: Database, tx: UnitOfWork) -> DatabaseStatistics:
    """Sizes of the database and its tables, and how many connections there are."""
    server = (await tx.execute(_SERVER)).mappings().one()
    tables = (await tx.execute(_TABLES.bindparams(names=list(Entity.metadata.tables)))).mappings()
    return DatabaseStatistics(
        **server,
        pool=PoolStatistics(**database.pool_figures()),
        tables=tuple(TableStatistics.model_validate(dict(table)) for table in tables),
    )
