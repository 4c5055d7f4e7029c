"""``data-layer storage``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from data_layer.cli.output import AsJson, print_json, read_settings, run, say

if TYPE_CHECKING:
    from data_layer.config import Settings

commands = typer.Typer(help="Where files are kept.", no_args_is_help=True)


@commands.command()
def init(*, as_json: AsJson = False) -> None:
    """Make the storage ready and prove that it can be written. Harmless when it is ready."""
    settings = read_settings(as_json=as_json)
    run(_init(settings), as_json=as_json)
    place = settings.local_storage_path.absolute()
    if as_json:
        print_json({"backend": settings.storage_backend, "place": str(place)})
    else:
        say(f"The {settings.storage_backend} storage is ready: {place}")


async def _init(settings: Settings) -> None:
    from data_layer.layer import open_storage

    async with open_storage(settings) as storage:
        await storage.check()
