"""``data-layer cache``."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import typer

from data_layer.cli.output import AsJson, counted, print_facts, print_json, read_settings, run, say, size

if TYPE_CHECKING:
    from data_layer.cache.statistics import CacheStatistics
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
        say(f"Removed {counted(removed, 'key')} with the prefix {settings.redis_key_prefix!r}.")


@commands.command()
def stats(*, as_json: AsJson = False) -> None:
    """Show memory, clients, hit rates and the number of our keys."""
    figures = run(_stats(read_settings(as_json=as_json)), as_json=as_json)
    if as_json:
        print_json(figures)
    else:
        print_facts("Cache", facts_of_cache(figures))


def facts_of_cache(figures: CacheStatistics) -> dict[str, str]:
    """The server's figures; those of this process say nothing, because it has only just begun."""
    rate = figures.server_hit_rate
    return {
        "Server": figures.server,
        "Running for": str(timedelta(seconds=figures.server_uptime_seconds)),
        "Memory": f"{size(figures.server_memory_used)} of {size(figures.server_memory_limit)}",
        "Clients": f"{figures.server_clients:,}",
        "Reads": f"{figures.server_hits:,} found, {figures.server_misses:,} missed",
        "Hit rate": "no reads yet" if rate is None else f"{rate:.1%}",
        "Keys removed": f"{figures.server_expired_keys:,} expired, {figures.server_evicted_keys:,} for lack of memory",
        "Keys of ours": f"{figures.keys:,}" if figures.keys_complete else f"more than {figures.keys:,}",
    }


async def _flush(settings: Settings) -> int:
    from data_layer.layer import open_cache

    async with open_cache(settings) as cache:
        return await cache.flush()


async def _stats(settings: Settings) -> CacheStatistics:
    from data_layer.layer import open_cache

    async with open_cache(settings) as cache:
        return await cache.stats()
