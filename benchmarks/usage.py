"""``make bench-usage``: sums of a month in a ledger of a million entries, as services return them.

Two ledgers: *spread* has a thousand people with ten projects each over a year, and hardly two entries of the same day
and kind, which is the worst case for sums by day; *one month* has all entries in one month of a hundred projects. For
comparison the same sum over the entries themselves, without the table of days.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

from rich.console import Console
from rich.table import Table
from sqlalchemy import text

from data_layer import DataLayer, Settings
from data_layer.schemas.actors import SYSTEM
from data_layer.schemas.usage import UsageGroup

FIRST_DAY, LAST_DAY = date(2026, 8, 1), date(2026, 8, 31)
PEOPLE = """
INSERT INTO users (id, email, first_name, last_name)
SELECT md5('person' || n)::uuid, n || '@example.com', 'A', 'B' FROM generate_series(0, 999) AS n
"""
FILL = """
INSERT INTO usage_entries (
    id, user_id, key, project_id, provider, model, code_stack, outcome, input_tokens, output_tokens, cost, at
)
SELECT gen_random_uuid(), md5('person' || n % :people)::uuid, n::text,
    md5('project' || n % (:people * 10))::uuid, 'openai', 'model ' || (random() * 4)::int,
    (ARRAY['html_tailwind', 'react_tailwind', 'svg'])[1 + (random() * 2)::int], 'completed',
    (random() * 9000)::int, (random() * 9000)::int, (random() * 0.1)::numeric(14, 8),
    timestamptz '2026-08-01' - :before * interval '1 day' + n::float8 / :count * :days * interval '1 day'
FROM generate_series(:first, :last) AS n
"""
DIRECT = """
SELECT model, sum(input_tokens), sum(output_tokens), sum(cost) FROM usage_entries
WHERE at >= '2026-08-01' AND at < '2026-09-01' GROUP BY model
"""
BATCH = 50_000
console = Console()
Query = Callable[[], Awaitable[Any]]


async def fill(data: DataLayer, count: int, *, people: int, before: int, days: float) -> float:
    """Insert the entries, in their order in time; how many a second."""
    async with data.transaction() as tx:
        await tx.execute(text(PEOPLE))
    started = time.perf_counter()
    for first in range(0, count, BATCH):
        async with data.transaction() as tx:
            values = {"people": people, "before": before, "days": days, "count": count}
            await tx.execute(text(FILL).bindparams(**values, first=first, last=min(first + BATCH, count) - 1))
    seconds = time.perf_counter() - started
    async with data.database.engine.connect() as connection:
        autocommit = await connection.execution_options(isolation_level="AUTOCOMMIT")
        await autocommit.execute(text("VACUUM ANALYZE usage_entries, usage_days"))
    return count / seconds


async def measure(query: Query, rounds: int) -> list[float]:
    """Milliseconds of each call, after one that nobody counts."""
    await query()
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        await query()
        times.append((time.perf_counter() - started) * 1000)
    return sorted(times)


def queries(data: DataLayer, person: UUID, project: UUID) -> dict[str, Query]:
    sums = partial(data.usage.sums, SYSTEM, first_day=FIRST_DAY, last_day=LAST_DAY)

    async def direct() -> None:
        async with data.transaction() as tx:
            (await tx.execute(text(DIRECT))).all()

    return {
        "a person's, by model": lambda: sums([UsageGroup.MODEL], user_id=person),
        "a person's, by day and project": lambda: sums([UsageGroup.DAY, UsageGroup.PROJECT], user_id=person),
        "a project's, by stack": lambda: sums([UsageGroup.STACK], everyone=True, project_id=project),
        "everybody's, by model": lambda: sums([UsageGroup.MODEL], everyone=True),
        "everybody's, by day": lambda: sums([UsageGroup.DAY], everyone=True),
        "everybody's, by person": lambda: sums([UsageGroup.PERSON], everyone=True),
        "(for comparison) everybody's entries": direct,
    }


async def run(folder: Path, options: argparse.Namespace) -> None:
    shapes = {
        "spread over a year": {"people": 1000, "before": 200, "days": 365},
        "one month": {"people": 10, "before": 0, "days": 31},
    }
    for name, shape in shapes.items():
        # Each in a database of its own: a ledger cannot be emptied.
        settings = Settings(data_folder=folder / name, local_storage_path=folder / "files")
        async with DataLayer(settings) as data:
            rate = await fill(data, options.entries, **shape)
            console.print(await measured(data, name, rate, options))


async def measured(data: DataLayer, name: str, rate: float, options: argparse.Namespace) -> Table:
    async with data.transaction() as tx:
        days = (await tx.execute(text("SELECT count(*) FROM usage_days"))).scalar_one()
        some = text("SELECT user_id, project_id FROM usage_days WHERE day >= :day LIMIT 1")
        row = (await tx.execute(some.bindparams(day=FIRST_DAY + timedelta(days=9)))).one()
    table = Table(
        title=f"{name}: {options.entries:,} entries, {days:,} rows of days, inserted {rate:,.0f}/s in batches"
    )
    for column in ("sum of a month", "groups", "median ms", "p99 ms"):
        table.add_column(column, justify="left" if column == "sum of a month" else "right")
    for title, query in queries(data, row.user_id, row.project_id).items():
        times = await measure(query, options.rounds)
        groups = len(await query() or ())
        slowest = times[min(len(times) - 1, int(len(times) * 0.99))]
        table.add_row(title, f"{groups or ''}", f"{statistics.median(times):.1f}", f"{slowest:.1f}")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--entries", type=int, default=1_000_000, help="entries of each ledger")
    parser.add_argument("--rounds", type=int, default=100, help="measured calls of each sum")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        asyncio.run(run(Path(folder), options))


if __name__ == "__main__":
    main()
