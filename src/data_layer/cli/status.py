"""``data-layer health`` and ``data-layer stats``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from data_layer.cli.cache import facts_of_cache
from data_layer.cli.output import (
    FAILED,
    AsJson,
    console,
    print_facts,
    print_json,
    print_table,
    read_settings,
    run,
    size,
    tell,
)

if TYPE_CHECKING:
    from data_layer.config import Settings
    from data_layer.schemas.health import Health
    from data_layer.schemas.statistics import DatabaseStatistics
    from data_layer.services.statistics import Statistics


def health(*, as_json: AsJson = False) -> None:
    """Probe database, cache and storage; exit code 1 when one of them fails, be it only the cache."""
    report = run(_health(read_settings(as_json=as_json)), as_json=as_json)
    if as_json:
        print_json(report)
    else:
        rows = [
            (name, "ok" if part.healthy else "FAILED", f"{part.latency_ms:.1f} ms", part.error or "")
            for name, part in report.parts.items()
        ]
        print_table(f"Health: {report.status}", ("Part", "State", "Latency", ""), rows, right=("Latency",))
    if not report.overall:
        raise typer.Exit(FAILED)


def stats(*, as_json: AsJson = False) -> None:
    """Show figures of database, cache and storage; exit code 1 when one of them cannot be asked."""
    figures = run(_stats(read_settings(as_json=as_json)), as_json=as_json)
    if as_json:
        print_json(figures)
    else:
        _print_statistics(figures)
    if figures.errors:
        raise typer.Exit(FAILED)


def _print_statistics(figures: Statistics) -> None:
    if figures.database is not None:
        _print_database(figures.database)
    if figures.cache is not None:
        print_facts("Cache", facts_of_cache(figures.cache))
        console.print()
    if (storage := figures.storage) is not None:
        facts = {
            "Backend": storage.backend,
            "Files": f"{storage.file_count:,}",
            "Size": size(storage.total_size),
            "Free": size(storage.free_size),
        }
        print_facts("Storage", facts)
    for name, reason in figures.errors.items():
        tell(f"{name}: {reason}", style="red")


def _print_database(database: DatabaseStatistics) -> None:
    pool = database.pool
    facts = {
        "Server": database.server,
        "Size": size(database.size),
        "Connections": f"{database.connections} of {database.connection_limit}",
        "Of this process": f"{pool.in_use} in use, {pool.idle} idle, {pool.maximum} at most",
    }
    print_facts(f"Database {database.name}", facts)
    console.print()
    rows = [(table.name, f"{table.rows:,}", size(table.size), size(table.index_size)) for table in database.tables]
    print_table("Tables", ("Name", "Rows", "Size", "Indexes"), rows, right=("Rows", "Size", "Indexes"))
    console.print()


async def _health(settings: Settings) -> Health:
    from data_layer.layer import probe

    return await probe(settings)


async def _stats(settings: Settings) -> Statistics:
    from data_layer.layer import DataLayer

    async with DataLayer(settings) as data:
        return await data.statistics()
