"""What commands print: text for people, JSON for programs, and errors as one clear message."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, NoReturn, TypeVar

import orjson
import typer
from pydantic import BaseModel
from rich.console import Console
from rich.table import Table
from rich.text import Text

from data_layer.config import Settings
from data_layer.context import new_correlation_id, request_context
from data_layer.errors import ConfigurationError, DataLayerError

if TYPE_CHECKING:
    from data_layer.layer import DataLayer

Result = TypeVar("Result")
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]

FAILED = 1

# A pipe or a file has no edge at which a line would have to break.
_WIDTH_WITHOUT_TERMINAL = 10_000
# Characters without a shape that belong into words of some languages, and into some emoji.
_JOINERS = "\u200c\u200d"
# What they report of their work is worth a line only to someone who looks for it.
_TALKATIVE = ("alembic", "uvicorn")


def _console(*, stderr: bool) -> Console:
    terminal = (sys.stderr if stderr else sys.stdout).isatty()
    width = None if terminal else _WIDTH_WITHOUT_TERMINAL
    return Console(stderr=stderr, width=width, highlight=False, markup=False, emoji=False)


console = _console(stderr=False)
_error_console = _console(stderr=True)


def run(work: Coroutine[Any, Any, Result], *, as_json: bool) -> Result:
    """Run the asynchronous part of a command; an error of ours ends it with its message and exit code 1.

    What it logs and records bears one correlation id, as if it were a request.
    """
    with readable_errors(as_json=as_json), request_context(correlation_id=new_correlation_id(), source="cli"):
        return asyncio.run(work)


def run_with_data(work: Callable[[DataLayer], Awaitable[Result]], *, as_json: bool) -> Result:
    """Run what a command does with the open data layer."""
    return run(_with_data(read_settings(as_json=as_json), work), as_json=as_json)


async def _with_data(settings: Settings, work: Callable[[DataLayer], Awaitable[Result]]) -> Result:
    from data_layer.layer import DataLayer

    async with DataLayer(settings) as data:
        return await work(data)


@contextmanager
def readable_errors(*, as_json: bool) -> Iterator[None]:
    """Turn an error of ours into a message for people, or for programs into JSON, and exit code 1."""
    try:
        yield
    except DataLayerError as error:
        fail(error, as_json=as_json)


def fail(error: DataLayerError, *, as_json: bool = False) -> NoReturn:
    """Print an error and end the command."""
    if as_json:
        print_json({"error": {"code": error.code, "message": str(error)}})
    else:
        message = Text.assemble(("Error", "bold red"), f" ({error.code}): {_message_of(error)}")
        _error_console.print(message, soft_wrap=True)
    raise typer.Exit(FAILED)


def say(text: str, *, style: str = "") -> None:
    """Print a line for people; the terminal breaks it where it must."""
    console.print(Text(plain(text), style=style), soft_wrap=True)


def say_emphasized(beginning: str, text: str, ranges: Iterable[tuple[int, int]]) -> None:
    """Print a line of which some places are emphasized, on a terminal."""
    line = Text(beginning + plain(text))
    for start, end in ranges:
        line.stylize("bold yellow", len(beginning) + start, len(beginning) + end)
    console.print(line, soft_wrap=True)


def notice(text: str, *, style: str = "") -> None:
    """Print a line of progress, or a warning, to standard error."""
    _error_console.print(Text(plain(text), style=style), soft_wrap=True)


def print_json(value: Any) -> None:
    """Print a value, or a model, as indented JSON."""
    options = orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_DATACLASS | orjson.OPT_NON_STR_KEYS
    sys.stdout.buffer.write(orjson.dumps(value, default=_to_plain, option=options) + b"\n")
    sys.stdout.buffer.flush()


def print_table(
    title: str, columns: Iterable[str], rows: Iterable[Iterable[object]], *, right: Collection[str] = ()
) -> None:
    """Print rows under a title and the names of the columns, of which some stand on the right.

    Where the names do not fit beside each other, each row is a paragraph: Rich would drop columns without a word.
    """
    columns = tuple(columns)
    if len(" ".join(columns)) > console.width:
        _print_paragraphs(title, [tuple(zip(columns, row, strict=True)) for row in rows])
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    _print(title, table, rows)


def print_facts(title: str, facts: Mapping[str, object]) -> None:
    """Print names and values under a title; the name may take half of the line, and otherwise one of its own."""
    if max(map(len, facts), default=0) > console.width // 2:
        _print_paragraphs(title, [facts.items()])
        return
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    _print(title, table, facts.items())


def _print(title: str, table: Table, rows: Iterable[Iterable[object]]) -> None:
    for row in rows:
        table.add_row(*(Text(plain(cell)) for cell in row))
    say(title, style="bold")
    with console.capture() as capture:
        console.print(table)
    # Rich fills the last column with blanks.
    console.file.write("\n".join(line.rstrip() for line in capture.get().split("\n")))


def _print_paragraphs(title: str, rows: Iterable[Iterable[tuple[str, object]]]) -> None:
    say(title, style="bold")
    for number, row in enumerate(rows):
        if number:
            console.print()
        for name, value in row:
            say(f"{name}: {value}" if name else str(value))


def plain(value: object) -> str:
    """Stored text is not ours: it must neither steer the terminal nor begin a line that looks like ours."""
    return "".join(map(_harmless, str(value)))


def _harmless(character: str) -> str:
    if character.isprintable() or character in _JOINERS:
        return character
    return " " if character.isspace() else "\N{REPLACEMENT CHARACTER}"


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


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun: 1 project, 12 projects; ``plural`` for what takes more than an s."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


@contextmanager
def new_file(path: Path, *, replaces: bool = False) -> Iterator[BinaryIO]:
    """A file to write, which nobody else may read; one that exists is only replaced if that was asked for."""
    try:
        with open(path, "wb" if replaces else "xb", opener=_private) as file:
            yield file
    except FileExistsError:
        raise typer.BadParameter(f"{plain(path)} exists; choose another name, or remove it") from None
    except (OSError, ValueError) as error:  # The latter with a NUL in the path.
        reason = error.strerror if isinstance(error, OSError) else error
        raise typer.BadParameter(f"{plain(path)} cannot be written: {reason}") from None


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def read_settings(*, as_json: bool = False, service: bool = False, **changes: Any) -> Settings:
    """The settings of the environment, with logging set up; commands that are no service only log warnings.

    Args:
        as_json: how an error is printed.
        service: log what the settings say.
        changes: go before the environment; None changes nothing.
    """
    from data_layer.config import Settings

    with readable_errors(as_json=as_json):
        settings = Settings(**{name: value for name, value in changes.items() if value is not None})
        quiet = not service and "log_level" not in settings.given
        log_to_terminal(settings, level="warn" if quiet else settings.log.log_level, to_file=service)
    if settings.log.log_level != "debug":
        for name in _TALKATIVE:
            logging.getLogger(name).setLevel(logging.WARNING)
    return settings


def log_to_terminal(settings: Settings, *, level: str, to_file: bool = False) -> None:
    """Log this process as the settings say, but from this level on."""
    from data_layer.observability.configuration import configure_logging
    from data_layer.observability.masking import secrets_of

    configure_logging(
        settings.log.replaced(log_level=level),
        secrets=secrets_of(settings.flat().values()),
        production=settings.is_production,
        to_file=to_file,
    )


def _message_of(error: DataLayerError) -> str:
    """The message; of a single problem with the configuration only the problem itself."""
    alone = isinstance(error, ConfigurationError) and len(error.problems) == 1
    message = error.problems[0] if isinstance(error, ConfigurationError) and alone else str(error)
    return "\n".join(map(plain, message.split("\n")))


def _to_plain(value: Any) -> Any:
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else str(value)
