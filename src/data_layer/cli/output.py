"""What commands print: text for people, JSON for programs, and errors as one clear message."""

from __future__ import annotations

import asyncio
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import orjson
import typer
from pydantic import BaseModel
from rich.console import Console
from rich.table import Table

from data_layer.errors import DataLayerError

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable, Iterator

    from data_layer.config import Settings

Result = TypeVar("Result")
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]

FAILED = 1

# In a pipe or a file there is no edge at which a line would have to break.
_WIDTH_WITHOUT_TERMINAL = 250

console = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH_WITHOUT_TERMINAL)
error_console = Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else _WIDTH_WITHOUT_TERMINAL)


def run(work: Coroutine[Any, Any, Result], *, as_json: bool) -> Result:
    """Run the asynchronous part of a command; an error of ours ends it with its message and exit code 1."""
    with readable_errors(as_json=as_json):
        return asyncio.run(work)


@contextmanager
def readable_errors(*, as_json: bool) -> Iterator[None]:
    """Turn an error of ours into a message for people, or for programs into JSON, and exit code 1."""
    try:
        yield
    except DataLayerError as error:
        fail(error, as_json=as_json)


def fail(error: DataLayerError, *, as_json: bool) -> NoReturn:
    """Print an error and end the command."""
    if as_json:
        print_json({"error": {"code": error.code, "message": str(error)}})
    else:
        error_console.print(f"[bold red]Error[/] ({error.code}): ", end="")
        error_console.print(str(error), markup=False)
    raise typer.Exit(FAILED)


def print_json(value: Any) -> None:
    """Print a value, or a model, as indented JSON."""
    options = orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_DATACLASS | orjson.OPT_NON_STR_KEYS
    sys.stdout.buffer.write(orjson.dumps(value, default=_to_plain, option=options) + b"\n")
    sys.stdout.buffer.flush()


def _to_plain(value: Any) -> Any:
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else str(value)


def print_table(title: str, columns: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Print rows under a title; numbers stand on the right."""
    cells = [list(row) for row in rows]
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for number, column in enumerate(columns):
        numeric = bool(cells) and all(isinstance(row[number], int | float) for row in cells)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in cells:
        table.add_row(*(_plain_text(cell) for cell in row))
    console.print(table)


def _plain_text(cell: object) -> str:
    """Stored text is not ours: it must not format, nor steer the terminal."""
    text = f"{cell:,}" if isinstance(cell, int) and not isinstance(cell, bool) else str(cell)
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text).replace(
        "[", r"\["
    )


def size(count: int | None) -> str:
    """A number of bytes, for people."""
    if count is None:
        return "unlimited"
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def read_settings(*, as_json: bool, service: bool = False) -> Settings:
    """The settings of the environment, with logging set up; commands that are no service only log warnings."""
    from data_layer.config import Settings
    from data_layer.observability import configure_logging

    with readable_errors(as_json=as_json):
        settings = Settings()
    quiet = not service and "log_level" not in settings.model_fields_set
    configure_logging(settings.model_copy(update={"log_level": "warn"}) if quiet else settings)
    return settings
