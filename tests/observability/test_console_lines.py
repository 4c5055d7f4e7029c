from __future__ import annotations

import re
from typing import Any

import pytest
import structlog

from tests.observability.support import Terminal, events, log_to_memory

log = structlog.get_logger("data_layer.tests")
ANSI = re.compile(r"\x1b\[[0-9;]*m")
BEGINS_AN_EVENT = re.compile(r"\d{4}-\d\d-\d\dT\S+ \[(?:info|error)")


def console_lines(stream: Any) -> list[str]:
    return ANSI.sub("", stream.getvalue()).split("\n")[:-1]


def test_a_line_for_people() -> None:
    stream = log_to_memory(log_format="console")
    log.info("generation_saved", project="p 1", bytes=12)
    assert "\x1b" not in stream.getvalue()
    assert re.fullmatch(
        r"\S+Z \[info +\] generation_saved +\[data_layer.tests\] project='p 1' bytes=12\n", stream.getvalue()
    )


def test_a_terminal_gets_colours_unless_it_does_not_want_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    coloured = log_to_memory(Terminal())
    log.info("started")
    monkeypatch.setenv("NO_COLOR", "1")
    plain = log_to_memory(Terminal())
    log.info("started")
    assert "\x1b[" in coloured.getvalue()
    assert "\x1b" not in plain.getvalue()


def test_a_traceback_follows_indented_and_without_local_variables() -> None:
    stream = log_to_memory(log_format="console")
    inside = "local " + "variable"
    try:
        raise ValueError(str(len(inside)))  # noqa: TRY301
    except ValueError:
        log.exception("failed")
    first, *rest = console_lines(stream)
    assert BEGINS_AN_EVENT.match(first)
    assert rest[0] == "  | Traceback (most recent call last):"
    assert rest[-1] == "  | ValueError: 14"
    assert all(line.startswith("  | ") for line in rest)
    assert "local variable" not in stream.getvalue()


FORGED = "\n2026-01-01T00:00:00.000000Z [info     ] admin_logged_in"
ATTACKS = [
    f"x{FORGED}",
    f"x\r{FORGED}",
    f"x\r{FORGED[1:]}",
    f"x\x1b[2J\x1b[H{FORGED}",
    f"x\x9b2J{FORGED}",
    f"x\u2028{FORGED[1:]}",
    f"x\x85{FORGED[1:]}",
    "x\x00\x07\x08\x7f",
    "x\u202egnp.exe",
    "\x1b]0;title\x07",
    "x\x0b\x0c y",
]


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("place", ["value", "nested", "key", "event", "argument", "exception", "object", "bytes"])
def test_a_value_cannot_forge_a_line(attack: str, place: str) -> None:
    streams = [log_to_memory(log_format="console")]
    log_attack(attack, place)
    streams.append(log_to_memory(log_format="json"))
    log_attack(attack, place)
    console = streams[0].getvalue()
    assert len([line for line in console.splitlines() if not line.startswith("  | ")]) == 1
    assert all(character.isprintable() for character in console.replace("\n", ""))
    assert len(events(streams[1])) == 1


def log_attack(attack: str, place: str) -> None:
    class Hostile:
        def __repr__(self) -> str:
            return attack

    match place:
        case "value":
            log.info("seen", value=attack)
        case "nested":
            log.info("seen", value={"a": [attack, {attack: attack}]})
        case "key":
            log.info("seen", **{attack: 1})
        case "event":
            log.info(attack)
        case "argument":
            log.info("seen %s", attack)
        case "object":
            log.info("seen", value=Hostile())
        case "bytes":
            log.info("seen", value=attack.encode())
        case _:
            log.error("failed", exc_info=ValueError(attack))


def test_a_value_cannot_pretend_to_be_another_field() -> None:
    stream = log_to_memory(log_format="console")
    log.info("seen", name="ada admin=True", other="it's")
    assert "name='ada admin=True' other=\"it's\"\n" in stream.getvalue()
