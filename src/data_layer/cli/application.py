"""All commands in one place."""

from __future__ import annotations

from typing import Annotated

import typer
from typer.core import TyperOption

from data_layer import __version__
from data_layer.cli import (
    audit,
    cache,
    codes,
    configuration,
    database,
    doctor,
    images,
    logs,
    mails,
    maintenance,
    projects,
    recorder,
    service,
    sessions,
    statistics,
    storage,
    transfer,
    usage,
    users,
)

_display_type = getattr(TyperOption, "display_type_rich", None)


def _display_type_of_values(option: TyperOption, ctx: typer.Context) -> str | None:
    """Typer shows <bool> beside flags, which take no value."""
    return None if option.is_flag or _display_type is None else _display_type(option, ctx)


# For --help as well, which typer adds by itself to each command; older versions show the type of no flag.
setattr(TyperOption, "display_type_rich", _display_type_of_values)  # noqa: B010  (mypy takes it for a mistake otherwise)

application = typer.Typer(
    name="data-layer",
    help="The data layer of Screenshot to Code: PostgreSQL, Redis and files.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
application.command()(service.dev)
application.command()(service.start)
application.command()(recorder.app)
application.command(hidden=True)(service.work)
application.command()(doctor.health)
application.command()(statistics.stats)
application.command()(doctor.doctor)
application.command("import")(transfer.import_files)
application.add_typer(database.commands, name="db")
application.add_typer(cache.commands, name="cache")
application.add_typer(storage.commands, name="storage")
application.add_typer(projects.commands, name="projects")
application.add_typer(codes.commands, name="codes")
application.add_typer(images.commands, name="images")
application.add_typer(usage.commands, name="usage")
application.add_typer(sessions.commands, name="sessions")
application.add_typer(users.commands, name="users")
application.add_typer(mails.commands, name="mails")
application.add_typer(audit.commands, name="audit")
application.add_typer(maintenance.commands, name="maintenance")
application.add_typer(logs.commands, name="logs")
application.add_typer(configuration.commands, name="config")


def _print_version(wanted: bool) -> None:  # noqa: FBT001  (typer calls it so)
    if wanted:
        typer.echo(f"data-layer {__version__}")
        raise typer.Exit


@application.callback()
def options(
    *,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """The data layer of Screenshot to Code: PostgreSQL, Redis and files."""
