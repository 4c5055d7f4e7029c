"""``data-layer cache``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from data_layer.cli.output import AsJson, console, print_json, print_table, read_settings, run

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
        console.print(f"Removed {removed:,} keys with the prefix {settings.redis_key_prefix!r}.")


@commands.command()
def stats(*, as_json: AsJson = False) -> None:
    """Show memory, clients, hit rates and the number of our keys."""
    figures = run(_stats(read_settings(as_json=as_json)), as_json=as_json)
    if as_json:
        print_json(figures)
    else:
        print_table("Cache", ("Figure", "Value"), figures.model_dump().items())


async def _flush(settings: Settings) -> int:
    from data_layer.layer import open_cache

    async with open_cache(settings) as cache:
        return await cache.flush()


async def _stats(settings: Settings) -> CacheStatistics:
    from data_layer.layer import open_cache

    async with open_cache(settings) as cache:
        return await cache.stats()
