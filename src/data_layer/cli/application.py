"""All commands in one place."""

from __future__ import annotations

from typing import Annotated

import typer

from data_layer import __version__
from data_layer.cli import (
    audit,
    cache,
    configuration,
    database,
    doctor,
    logs,
    maintenance,
    projects,
    service,
    sessions,
    statistics,
    status,
    storage,
    users,
)

application = typer.Typer(
    name="data-layer",
    help="The data layer of Screenshot to Code: PostgreSQL, Redis and files.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
application.command()(service.dev)
application.command()(service.start)
application.command(hidden=True)(service.work)
application.command()(status.health)
application.command()(statistics.stats)
application.command()(doctor.doctor)
application.add_typer(database.commands, name="db")
application.add_typer(cache.commands, name="cache")
application.add_typer(storage.commands, name="storage")
application.add_typer(projects.commands, name="projects")
application.add_typer(sessions.commands, name="sessions")
application.add_typer(users.commands, name="users")
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
