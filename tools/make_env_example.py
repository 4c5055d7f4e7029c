"""Write .env.example: every setting with its description and its default, in the groups of ``Settings``."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from textwrap import wrap
from typing import Any

from pydantic import SecretStr

from data_layer.config import Settings

TARGET = Path(__file__).parents[1] / ".env.example"
FIELDS = Settings.fields()
HEADING = """\
# Every setting with its default. Copy this file to .env and change what you need; the environment wins over .env,
# and an empty value counts as not set. Written by `make env-example` from src/data_layer/settings.
"""


def groups() -> Iterator[tuple[str, list[str]]]:
    """Each heading in the source of the parts of ``Settings``, with the names of the settings below it."""
    heading, names = "", list[str]()
    for line in "".join(map(inspect.getsource, Settings.kinds().values())).splitlines():
        if comment := re.fullmatch(r" {4}# (.+)", line):
            if names:
                yield heading, names
            heading, names = comment[1], []
        elif (field := re.match(r" {4}(\w+): ", line)) and field[1] in FIELDS:
            names.append(field[1])
    yield heading, names


def write_value(value: Any) -> str:
    """One default as it is written in .env; secrets stay empty."""
    match value:
        case None | SecretStr():
            return ""
        case Enum():
            return str(value.value)
        case bool():
            return str(value).lower()
        case tuple():
            return ",".join(map(str, value))
        case _:
            return str(value)


def render() -> str:
    """The whole file."""
    lines = [HEADING]
    for heading, names in groups():
        lines.append(f"\n# --- {heading} ---\n")
        for name in names:
            field = FIELDS[name]
            lines += [f"# {line}" for line in wrap(field.description or "", 110)]
            lines.append(f"{name.upper()}={write_value(field.default)}\n")
    return "\n".join(lines)


if __name__ == "__main__":
    TARGET.write_text(render(), encoding="utf-8")
    print(f"Wrote {TARGET}")
