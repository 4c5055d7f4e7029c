"""The statements that took the most time, from the extension pg_stat_statements where it is there."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from sqlalchemy import text

from data_layer.database.statements import named
from data_layer.errors import NotFoundError
from data_layer.schemas.statistics import StatementStatistics

if TYPE_CHECKING:
    from data_layer.repositories.unit_of_work import UnitOfWork

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
