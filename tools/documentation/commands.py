"""The reference of commands, from the commands themselves.

typer keeps the classes of its commands and parameters to itself, so they have no type here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from data_layer.cli.application import application


def render() -> str:
    """A section for each command, groups in the order in which ``--help`` lists them."""
    root = get_command(application)
    return "\n".join(_sections(root, typer.Context(root, info_name="data-layer")))


def _sections(group: Any, context: typer.Context, depth: int = 2) -> Iterator[str]:
    for name, command in group.commands.items():
        if command.hidden:
            continue
        inner = typer.Context(command, info_name=name, parent=context)
        if isinstance(command, TyperGroup):
            yield from (f"{'#' * depth} data-layer {name}", "", command.help or "", "")
            yield from _sections(command, inner, depth + 1)
        else:
            yield from _section(command, inner, depth)


def _section(command: Any, context: typer.Context, depth: int) -> Iterator[str]:
    yield from (f"{'#' * depth} {context.command_path}", "")
    yield from ("```text", " ".join([context.command_path, *command.collect_usage_pieces(context)]), "```", "")
    yield from (command.help or "", "")
    rows = [row for parameter in command.get_params(context) if (row := _row(parameter, context))]
    if rows:
        yield from ("| argument or option | meaning |", "| --- | --- |", *rows, "")


def _row(parameter: Any, context: typer.Context) -> str | None:
    record = parameter.get_help_record(context)
    if record is None or "--help" in record[0]:
        return None
    cells = [" ".join(text.split()).replace("|", "\\|") for text in record]
    return f"| `{cells[0]}` | {cells[1]} |"
