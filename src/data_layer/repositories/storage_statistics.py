"""What the table ``stored_files`` says about the storage, without listing a bucket or reading a large table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from data_layer.database.statements import named
from data_layer.schemas.statistics import FileUsage, StoredStatistics

if TYPE_CHECKING:
    from data_layer.repositories.unit_of_work import UnitOfWork

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
