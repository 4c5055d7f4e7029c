"""What ``make bench-growth`` measures beside calls: the size of each table, and how long its upkeep takes."""

from __future__ import annotations

import asyncio
import re
import subprocess
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from growth_rows import Size, console, execute
from rich.table import Table

from data_layer import DataLayer
from data_layer.database.migrator import Migrator
from data_layer.embedded.binaries import postgresql_binary
from data_layer.schemas.actors import SYSTEM

if TYPE_CHECKING:
    from collections.abc import Iterator

LEAST_SHOWN = 1_000_000
MIGRATIONS = 6
INDEXED, INDEX = "generated_codes (project_id, created_at)", "ix_of_the_benchmark"
_MONTH = re.compile(r"_(\d{4}_\d{2}|default)$")


async def upkeep(datas: Mapping[Size, DataLayer]) -> None:
    """Measure and print it. The data layers are open, and nothing else uses their servers."""
    table = Table(title="size on disk: rows, then indexes, in MB")
    table.add_column("table")
    sizes = {size: await table_sizes(data) for size, data in datas.items()}
    for size in datas:
        table.add_column(f"{size.generations:,}", justify="right")
    largest = sizes[max(datas, key=lambda size: size.generations)]
    shown = [name for name, (rows, indexes) in largest.items() if rows + indexes >= LEAST_SHOWN]
    for name in sorted(shown, key=lambda name: -sum(largest[name])):
        table.add_row(name, *(_megabytes(*sizes[size].get(name, (0, 0))) for size in datas))
    table.add_row("database", *[f"{(await database_size(data)) / 1e6:,.0f}" for data in datas.values()])
    console.print(table)

    table = Table(title="seconds of upkeep")
    table.add_column("work")
    taken = []
    for size, data in datas.items():
        table.add_column(f"{size.generations:,}", justify="right")
        taken.append(await times_of(data))
    for work in taken[0]:
        table.add_row(work, *(each[work] for each in taken))
    console.print(table)


def _megabytes(rows: int, indexes: int) -> str:
    return f"{rows / 1e6:,.1f} + {indexes / 1e6:,.1f}"


async def table_sizes(data: DataLayer) -> Mapping[str, tuple[int, int]]:
    """Bytes of the rows and of the indexes of each table; the months of the audit trail count together."""
    rows, indexes = Counter[str](), Counter[str]()
    for name, size, of_indexes in await execute(
        data,
        """
        SELECT relname, pg_table_size(oid), pg_indexes_size(oid) FROM pg_class
        WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace
        """,
    ):
        rows[_MONTH.sub("", name)] += size
        indexes[_MONTH.sub("", name)] += of_indexes
    return {name: (size, indexes[name]) for name, size in rows.items()}


async def database_size(data: DataLayer) -> int:
    """Bytes of the whole database."""
    [(size,)] = await execute(data, "SELECT pg_database_size(current_database())")
    return int(size)


async def times_of(data: DataLayer) -> Mapping[str, str]:
    """How long each work takes."""
    taken = {}

    @contextmanager
    def timed(work: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        taken[work] = f"{time.perf_counter() - started:.1f}"

    with timed("maintenance, after the calls"):
        await data.maintenance.run(SYSTEM)
    with timed("maintenance, nothing to do"):
        await data.maintenance.run(SYSTEM)
    migrator = Migrator(data.database.address)
    with timed(f"undo the last {MIGRATIONS} migrations"):
        await asyncio.to_thread(migrator.rollback, MIGRATIONS)
    with timed(f"the last {MIGRATIONS} migrations"):
        await asyncio.to_thread(migrator.migrate)
    with timed(f"an index on {INDEXED}, CONCURRENTLY"):
        await execute(data, f"CREATE INDEX CONCURRENTLY {INDEX} ON {INDEXED}")
    await execute(data, f"DROP INDEX CONCURRENTLY {INDEX}")
    with timed("VACUUM ANALYZE"):
        await execute(data, "VACUUM ANALYZE")
    copy = data.settings.general.data_folder / "backup.dump"
    with timed("pg_dump --format=custom"):
        await asyncio.to_thread(_dump, data, copy)
    taken["size of the dump, MB"] = f"{copy.stat().st_size / 1e6:,.1f}"
    copy.unlink()
    return taken


def _dump(data: DataLayer, copy: Path) -> None:
    url = data.database.address.url.set(drivername="postgresql").render_as_string(hide_password=False)
    program = str(postgresql_binary("pg_dump"))
    subprocess.run([program, url, "--format=custom", "--no-owner", f"--file={copy}"], check=True)
