"""``data-layer health`` and ``data-layer stats``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from data_layer.cli.output import (
    FAILED,
    AsJson,
    console,
    error_console,
    print_json,
    print_table,
    read_settings,
    run,
    size,
)

if TYPE_CHECKING:
    from data_layer.config import Settings
    from data_layer.schemas.health import Health
    from data_layer.services.statistics import Statistics


def health(*, as_json: AsJson = False) -> None:
    """Probe database, cache and storage; exit code 1 when one of them fails."""
    report = run(_health(read_settings(as_json=as_json)), as_json=as_json)
    if as_json:
        print_json(report)
    else:
        rows = [
            (name, "ok" if part.healthy else "FAILED", f"{part.latency_ms:.1f} ms", part.error or "")
            for name, part in report.parts.items()
        ]
        print_table("Health", ("Part", "State", "Latency", ""), rows)
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
    if (database := figures.database) is not None:
        pool = database.pool
        facts = {
            "Server": database.server,
            "Size": size(database.size),
            "Connections": f"{database.connections} of {database.connection_limit}",
            "Pool of this process": f"{pool.in_use} in use, {pool.idle} idle, {pool.maximum} at most",
        }
        print_table(f"Database {database.name}", ("", ""), facts.items())
        console.print()
        rows = [(table.name, table.rows, size(table.size), size(table.index_size)) for table in database.tables]
        print_table("Tables", ("Name", "Rows", "Size", "Indexes"), rows)
    if (cache := figures.cache) is not None:
        facts = {
            "Server": cache.server,
            "Memory": f"{size(cache.server_memory_used)} of {size(cache.server_memory_limit)}",
            "Clients": str(cache.server_clients),
            "Keys of ours": f"{cache.keys:,}" if cache.keys_complete else f"more than {cache.keys:,}",
            "Hit rate of the server": "none yet" if cache.server_hit_rate is None else f"{cache.server_hit_rate:.1%}",
        }
        console.print()
        print_table("Cache", ("", ""), facts.items())
    if (storage := figures.storage) is not None:
        facts = {
            "Backend": storage.backend,
            "Files": f"{storage.file_count:,}",
            "Size": size(storage.total_size),
            "Free": size(storage.free_size),
        }
        console.print()
        print_table("Storage", ("", ""), facts.items())
    for name, reason in figures.errors.items():
        error_console.print(f"{name}: {reason}", style="red", markup=False)


async def _health(settings: Settings) -> Health:
    from data_layer.layer import probe

    return await probe(settings)


async def _stats(settings: Settings) -> Statistics:
    from data_layer.layer import DataLayer

    async with DataLayer(settings) as data:
        return await data.statistics()
