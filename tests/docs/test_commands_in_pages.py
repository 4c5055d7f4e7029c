"""Command lines that a page shows are taken by the program: commands, options and values, as somebody copies them."""

from __future__ import annotations

import re
import shlex
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import typer

from tests.cli.support import command_tree

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "deploy/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
DASHES = re.compile("[\u2010-\u2015\u2212]")


def shown(page: Path) -> list[str]:
    """The command lines in blocks of code, which are whole."""
    blocks = re.findall(r"^ *```(?:bash|sh|shell|console)\n(.*?)^ *```", page.read_text(), re.DOTALL | re.MULTILINE)
    lines = [line.strip().removeprefix("$ ") for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line.startswith("data-layer ")]


def mentioned(page: Path) -> list[str]:
    """The command lines in sentences, which may lack arguments."""
    return re.findall(r"`(data-layer [a-z][^`]*)`", page.read_text())


def take(line: str) -> None:
    """Parse a command line as the program does, and execute nothing.

    Raises:
        ClickException: the program would refuse it.
    """
    words = shlex.split(re.split(r" (?:[|>&]|\d>)", line)[0], comments=True)[1:]
    command: Any = command_tree()
    context = None
    with suppress(typer.Exit):  # --version is answered while it is parsed.
        while hasattr(command, "resolve_command"):
            context = command.make_context(command.name or "data-layer", list(words), parent=context)
            _, command, words = command.resolve_command(context, [*context._protected_args, *context.args])
        command.make_context(command.name, list(words), parent=context)


LINES = [pytest.param(line, id=f"{page.relative_to(ROOT)}: {line}") for page in PAGES for line in shown(page)]
MENTIONS = [pytest.param(line, id=f"{page.relative_to(ROOT)}: {line}") for page in PAGES for line in mentioned(page)]


@pytest.mark.parametrize("line", LINES)
def test_a_command_that_a_page_shows_is_taken(line: str) -> None:
    take(line)


@pytest.mark.parametrize("line", MENTIONS)
def test_a_command_that_a_sentence_names_is_taken(line: str) -> None:
    try:
        take(line)
    except Exception as error:
        if type(error).__name__ != "MissingParameter":
            raise


def test_commands_are_found() -> None:
    assert len(LINES) > 30
    assert len(MENTIONS) > 30


@pytest.mark.parametrize(
    "line", ["data-layer storage cleanup \u2013apply", "data-layer storage clean", "data-layer storage check --deeper"]
)
def test_what_the_program_refuses_is_noticed(line: str) -> None:
    with pytest.raises(Exception, match=r"(?i)no such|unexpected"):
        take(line)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_option_begins_with_a_typographic_dash(page: Path) -> None:
    text = page.read_text()
    code = re.findall(r"```.*?```", text, re.DOTALL) + re.findall(r"`[^`\n]+`", text)
    assert [piece for piece in code if re.search(rf"(?:^|\s){DASHES.pattern}\w", piece)] == []
