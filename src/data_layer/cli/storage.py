"""``data-layer storage``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from data_layer.cli.output import AsJson, print_json, read_settings, run, say

if TYPE_CHECKING:
    from data_layer.config import Settings

commands = typer.Typer(help="Where files are kept.", no_args_is_help=True)


AllowPublic = Annotated[bool, typer.Option("--allow-public", help="Accept that everybody can read all files.")]


@commands.command()
def init(*, allow_public: AllowPublic = False, as_json: AsJson = False) -> None:
    """Make the folder, bucket or container, private, and prove that files can be written. Harmless when it is there."""
    settings = read_settings(as_json=as_json)
    run(_init(settings, allow_public=allow_public), as_json=as_json)
    place = _place(settings)
    if as_json:
        print_json({"backend": settings.storage_backend, "place": place})
    else:
        say(f"The {settings.storage_backend} storage is ready: {place}")


def _place(settings: Settings) -> str:
    match settings.storage_backend:
        case "s3":
            return f"bucket {settings.aws_s3_bucket}"
        case "azure":
            return f"container {settings.azure_storage_container_name}"
        case _:
            return str(settings.local_storage_path.absolute())


async def _init(settings: Settings, *, allow_public: bool) -> None:
    from data_layer.layer import open_storage

    async with open_storage(settings, create=True, allow_public=allow_public) as storage:
        await storage.check()
