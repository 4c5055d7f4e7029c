"""``data-layer logs``."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

import typer

from data_layer.cli.output import AsJson, print_json, print_table, read_settings, readable_errors, say
from data_layer.config import Settings
from data_layer.observability.levels import OURS, LevelChange, LevelFile, require_logger

commands = typer.Typer(help="What the running service logs.", no_args_is_help=True)


@commands.command()
def level(
    new: Annotated[
        Literal["error", "warn", "info", "debug"] | None, typer.Argument(metavar="LEVEL", help="The new level.")
    ] = None,
    *,
    logger: Annotated[
        str, typer.Option(help="Only for this module and those below it, such as data_layer.cache.")
    ] = OURS,
    minutes: Annotated[int, typer.Option(min=0, max=10_080, help="How long; 0: until logs reset.")] = 60,
    as_json: AsJson = False,
) -> None:
    """Change what the running service logs, without a restart; without a level show what is changed.

    All processes of the service with the same DATA_FOLDER take it over within two seconds, and say so in the log with
    the event log_level_changed. Run it as the account of the service, or as root.
    """
    settings = read_settings(as_json=as_json)
    file = LevelFile(settings.general.data_folder)
    with readable_errors(as_json=as_json):
        changes = file.read()
        if new is not None:
            require_logger(logger)
            until = datetime.now(UTC).replace(microsecond=0) + timedelta(minutes=minutes) if minutes else None
            changes = [change for change in changes if change.logger != logger]
            changes.append(LevelChange(logger, new, until))
            file.write(changes)
    _show(changes, settings, as_json=as_json)


@commands.command()
def reset(*, as_json: AsJson = False) -> None:
    """Undo all changes of levels, so that LOG_LEVEL counts again."""
    settings = read_settings(as_json=as_json)
    with readable_errors(as_json=as_json):
        LevelFile(settings.general.data_folder).remove()
    _show([], settings, as_json=as_json)


def _show(changes: list[LevelChange], settings: Settings, *, as_json: bool) -> None:
    if as_json:
        print_json({"log_level": settings.log.log_level, "changes": changes})
    elif changes:
        rows = [
            (change.logger, change.level, f"{change.until:%Y-%m-%d %H:%M} UTC" if change.until else "logs reset")
            for change in changes
        ]
        print_table("Changed levels", ("Logger", "Level", "Until"), rows)
    else:
        say(f"No level is changed: LOG_LEVEL={settings.log.log_level} counts.")
