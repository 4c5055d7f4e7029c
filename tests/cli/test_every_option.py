"""Every option and argument of every command with values that nobody passes on purpose, and narrow terminals.

The commands are found in the tree, so that a new one is tried as well. What becomes of closed, full and cut streams is
in tests/service/test_streams.py, which walks the same tree.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Any, Literal, get_origin
from uuid import UUID
from zlib import crc32

import pytest
import typer

from data_layer.cli.application import application
from data_layer.cli.output import console, print_facts, print_table

from .support import Commands

pytestmark = pytest.mark.slow

NOBODY = "00000000-0000-7000-8000-000000000000"
NEEDED: dict[str, list[str]] = {
    "app": ["no.such.module:app"],
    "usage budget": [NOBODY],
    "users create": ["someone@example.com"],
    "users keys create": [NOBODY, "--name", "key", "--scope", "read"],
    "users role": [NOBODY, "user"],
    "sessions revoke": [NOBODY],
    "codes diff": [NOBODY, "1"],
    "codes save": [NOBODY, "1", "file"],
    "images save": [NOBODY, "file"],
    "import": ["file", "--user", NOBODY],
}
"""What a command needs, in the order of its arguments, where it is more than the id of something."""

ON_A_PROJECT = {"codes diff", "codes save", "codes show", "images list", "projects export-html", "projects history"}
"""What is tried on something that exists, so that the value is used and not only read."""

MAY_FAIL_OTHERWISE = {"doctor"}
"""What reports a fault of the machine with exit code 1, too."""

_LONG = "x" * 100_000
_BROKEN = b"caf\xe9".decode(errors="surrogateescape")
TEXTS = ["", _BROKEN, "a\0b\x1b[2J\n", _LONG]
NUMBERS = ["", "1e400", "nan", "-1", "9" * 5000, str(2**63), "²", "1_0x", _BROKEN]
TIMES = ["", "9999-99-99", "1e400", "9" * 5000 + "d", "²d", "0001-01-01T00:00+23:00", "9999-12-31T23:59-23:00", _BROKEN]
IDS = ["", "nan", NOBODY[:-1], _BROKEN, _LONG]
PATHS = ["folder", "no/such/folder/file", "a\0b", "f" * 5000]


def commands(group: Any = None, words: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    group = group or typer.main.get_command(application)
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*words, name))
        elif not command.hidden:
            yield " ".join((*words, name)), command


def takes_value(parameter: Any) -> bool:
    return not getattr(parameter, "is_flag", False)


def values(annotation: Any) -> list[str]:
    if annotation in {int, float}:
        return NUMBERS
    if annotation is UUID:
        return IDS
    if annotation is datetime or getattr(annotation, "__name__", "") == "Place":
        return TIMES
    if annotation is Path:
        return PATHS
    return TEXTS


def must_be_refused(annotation: Any, value: str) -> bool:
    """Whether no command can have a use for the value."""
    if annotation in {int, float}:
        # A number of seconds or days has a largest value everywhere; a version may be as large as one likes.
        return value not in {"-1", str(2**63), "9" * 5000}
    is_choice = isinstance(annotation, type) and issubclass(annotation, Enum)
    return annotation is UUID or is_choice or get_origin(annotation) is Literal


def arguments_with(name: str, command: Any, parameter: Any, value: str) -> list[str]:
    """The arguments that the command needs, one of them or an option with the value."""
    needed = list(NEEDED.get(name, []))
    positional = [p for p in command.params if p.param_type_name == "argument"]
    if not needed:
        needed = [NOBODY for p in positional if p.required]
    if parameter not in positional:
        # With "=" an option takes what begins with "-", too.
        return [f"{parameter.opts[0]}={value}", *needed]
    place = positional.index(parameter)
    needed[place : place + 1] = [value]
    return ["--", *needed]


def names_parameter(message: str, parameter: Any) -> bool:
    names = {parameter.opts[0], parameter.name, (parameter.metavar or parameter.name).strip("[]")}
    shown = re.sub(r"[│\s]+", "", message).lower()
    if parameter.type_descriptor.annotation is Path and re.search("exists;|cannotbewritten:", shown):
        return True  # It names the path.
    return any(name.lower() in shown for name in names)


@pytest.mark.parametrize("name", [name for name, _ in commands()])
def test_no_value_brings_a_traceback(
    name: str, seeded: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    project = seeded("projects", "list", "--json").json[0]["id"] if name in ON_A_PROJECT else NOBODY
    command = dict(commands())[name]
    # What serves would do so until somebody ends it.
    environment = {"ENVIRONMENT": "production"} if name in {"dev", "start"} else {}
    for parameter in filter(takes_value, command.params):
        annotation = parameter.type_descriptor.annotation
        # Where one is looked at, all are: a third of the values each, chosen by its name.
        for value in values(annotation)[crc32(f"{name} {parameter.name}".encode()) % 3 :: 3]:
            given = [project if word == NOBODY else word for word in arguments_with(name, command, parameter, value)]
            where = f"{name} {parameter.name}={value[:40]!r}"
            as_json = ["--json"] if any("--json" in p.opts for p in command.params) else []
            done = seeded(*name.split(), *as_json, *given, code=None, **environment)
            where = f"{where}: {done.output[:1000]}{done.errors[:2000]}"
            assert done.code in ({2} if must_be_refused(annotation, value) else {0, 1, 2}), where
            if done.code == 2:
                assert names_parameter(done.errors, parameter), where
            elif done.code == 1 and as_json and "Aborted" not in done.errors:
                assert done.json.get("error", {}).get("code") or name in MAY_FAIL_OTHERWISE, where


@pytest.mark.parametrize("width", [20, 8, 3])
def test_a_narrow_terminal_drops_nothing(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each column keeps its name and each row its cells, in whatever lines."""
    monkeypatch.setattr(console, "_width", width)
    columns = [letter * 2 for letter in "ABCDEFGHIJKLM"]
    print_table("", columns, [[letter * 3 for letter in "nopqrstuvwxyz"]])
    print_facts("", {"Ö" * 15: "ä" * 30, "Ü": "ß" * 30})
    shown = capsys.readouterr().out
    assert {letter: shown.count(letter) for letter in "ABCDEFGHIJKLM"} == dict.fromkeys("ABCDEFGHIJKLM", 2)
    assert {letter: shown.count(letter) for letter in "nopqrstuvwxyz"} == dict.fromkeys("nopqrstuvwxyz", 3)
    assert {letter: shown.count(letter) for letter in "ÖäÜß"} == {"Ö": 15, "ä": 30, "Ü": 1, "ß": 30}


def test_the_doctor_says_all_in_a_narrow_terminal(seeded: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    findings = seeded("doctor", "--json", code=None).json["findings"]
    monkeypatch.setattr(console, "_width", 20)
    shown = "".join(seeded("doctor", code=None).output.split())
    advised = [finding for finding in findings if finding["advice"] is not None]
    assert advised
    for finding in advised:
        assert f"{finding['part']}.{finding['check']}:" in shown
        assert "".join(finding["advice"].split()) in shown


@pytest.mark.parametrize("name", [name for name, _ in commands()])
def test_help_says_what_each_value_is(name: str) -> None:
    shown = Commands()(*name.split(), "--help", COLUMNS="160").output
    for private in ("<bool>", "<annotation>", "FUNC", "function", "<parser", "parse_place", "_moment", "None]"):
        assert private.lower() not in shown.lower(), shown
    assert not re.search(r"(?<![\w-])_\w+", shown), shown
