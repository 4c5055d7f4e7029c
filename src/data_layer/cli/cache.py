"""``data-layer cache``."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer

from data_layer.cache.address import Topology
from data_layer.cache.statistics import CacheStatistics, ServerStatistics
from data_layer.cli.output import (
    AsJson,
    console,
    counted,
    notice,
    print_facts,
    print_json,
    print_table,
    read_settings,
    run,
    say,
    size,
)
from data_layer.config import Settings

commands = typer.Typer(help="Redis or Valkey.", no_args_is_help=True)


@commands.command()
def flush(*, as_json: AsJson = False) -> None:
    """Remove all keys of this application (REDIS_KEY_PREFIX), and no others."""
    settings = read_settings(as_json=as_json)
    removed = run(_flush(settings), as_json=as_json)
    if as_json:
        print_json({"removed": removed})
    else:
        say(f"Removed {counted(removed, 'key')} with the prefix {settings.redis.redis_key_prefix!r}.")


@commands.command()
def cleanup(*, as_json: AsJson = False) -> None:
    """Remove keys of this application that have no end or that this version cannot read."""
    settings = read_settings(as_json=as_json)
    removed = run(_cleanup(settings), as_json=as_json)
    if as_json:
        print_json({"removed": removed})
    else:
        say(f"Removed {counted(removed, 'useless key')} with the prefix {settings.redis.redis_key_prefix!r}.")


@commands.command()
def keys(
    pattern: Annotated[str, typer.Argument(help="A glob, in quotation marks.")] = "*",
    *,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="The largest number of keys.")] = 100,
    as_json: AsJson = False,
) -> None:
    """List keys of this application without their prefix, in no order. Looks through the whole server."""
    found, there_are_more = run(_keys(read_settings(as_json=as_json), pattern, limit), as_json=as_json)
    if as_json:
        print_json({"keys": found, "complete": not there_are_more})
        return
    for key in found:
        say(key)
    if there_are_more:
        notice(f"These are {counted(limit, 'key')} of more; for the others: --limit")


@commands.command()
def stats(*, as_json: AsJson = False) -> None:
    """Show memory, clients, hit rates and the number of our keys."""
    figures = run(_stats(read_settings(as_json=as_json)), as_json=as_json)
    if as_json:
        print_json(figures)
        return
    print_facts("Cache", facts_of_cache(figures))
    if figures.topology is not Topology.SINGLE:
        console.print()
        columns = ("Name", "Memory", "Clients", "Hit rate", "")
        print_table("Servers", columns, map(_row_of_server, figures.servers), right=columns[1:4])


def facts_of_cache(figures: CacheStatistics) -> dict[str, str]:
    """The servers' figures; those of this process say nothing, because it has only just begun."""
    return {
        "Server": figures.server,
        "Topology": figures.topology,
        "Running for": str(timedelta(seconds=figures.server_uptime_seconds)),
        "Memory": f"{size(figures.server_memory_used)} of {size(figures.server_memory_limit)}",
        "Clients": f"{figures.server_clients:,}",
        "Reads": f"{figures.server_hits:,} found, {figures.server_misses:,} missed",
        "Hit rate": _rate(figures.server_hit_rate),
        "Keys removed": f"{figures.server_expired_keys:,} expired, {figures.server_evicted_keys:,} for lack of memory",
        "Keys of ours": f"{figures.keys:,}" if figures.keys_complete else f"more than {figures.keys:,}",
    }


def _row_of_server(server: ServerStatistics) -> tuple[str, ...]:
    if server.error is not None:
        return server.name, "", "", "", server.error
    return (server.name, size(server.memory_used), f"{server.clients:,}", _rate(server.hit_rate), "")


def _rate(share: float | None) -> str:
    return "no reads yet" if share is None else f"{share:.1%}"


async def _flush(settings: Settings) -> int:
    from data_layer.layer import open_cache

    async with open_cache(settings) as cache:
        return await cache.flush()


async def _cleanup(settings: Settings) -> int:
    from data_layer.layer import open_cache

    async with open_cache(settings) as cache:
        return await cache.cleanup()


async def _keys(settings: Settings, pattern: str, limit: int) -> tuple[list[str], bool]:
    """Keys, sorted and each once, and whether there are more."""
    from data_layer.layer import open_cache

    found: set[str] = set()
    async with open_cache(settings) as cache:
        async for key in cache.keys(pattern):
            if key not in found and len(found) == limit:
                return sorted(found), True
            found.add(key)
    return sorted(found), False


async def _stats(settings: Settings) -> CacheStatistics:
    from data_layer.layer import open_cache

    async with open_cache(settings) as cache:
        return await cache.stats()
