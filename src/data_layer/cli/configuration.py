"""``data-layer config``."""

from __future__ import annotations

import typer

from data_layer.cli.output import AsJson, print_json, print_table, read_settings

commands = typer.Typer(help="The settings in force.", no_args_is_help=True)


@commands.command()
def show(*, as_json: AsJson = False) -> None:
    """Show every setting and whether it was set; secrets are masked."""
    settings = read_settings(as_json=as_json)
    values = settings.masked()
    if as_json:
        print_json(values)
        return
    rows = [
        (name.upper(), _as_variable(value), "set" if name in settings.given else "default")
        for name, value in values.items()
    ]
    print_table("Settings", ("Variable", "Value", "From"), rows)


def _as_variable(value: object) -> str:
    """The value as one would write it into the environment."""
    if value is None:
        return ""
    if isinstance(value, list):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
