"""``data-layer stats --watch``: in place on a terminal, line by line for programs, and a clean end."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from tests.service.support import PATIENCE, PROGRAM, clean_environment

from .support import Commands

BEGIN, END = b"\x1b[?1049h", b"\x1b[?1049l"
"""The other screen of a terminal, and back."""


@contextmanager
def watching(command: Commands, *options: str, output: int) -> Iterator[subprocess.Popen[bytes]]:
    environment = clean_environment() | command.environment | {"TERM": "xterm", "COLUMNS": "80", "LINES": "24"}
    environment["DB_SLOW_STATEMENT"] = "0"  # On a busy machine a statement may be slow, which would be said.
    with subprocess.Popen(
        [PROGRAM, "stats", "--watch", "0.5", *options],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_on_a_terminal_it_refreshes_in_place_until_ctrl_c(command: Commands) -> None:
    ours, theirs = pty.openpty()
    with watching(command, output=theirs) as process:
        os.close(theirs)
        shown = b""
        while shown.count(b"Ctrl-C ends") < 3:
            shown += os.read(ours, 65_536)
        assert shown.startswith(BEGIN)
        assert b"Database" in shown
        assert b"/s" in shown, "what happens per second"
        assert END not in shown
        process.send_signal(signal.SIGINT)
        rest = read_to_the_end(ours)
        assert process.wait(PATIENCE) == 0
        assert END in rest, "the terminal is as it was"
        assert process.stderr
        assert process.stderr.read() == b""


def read_to_the_end(descriptor: int) -> bytes:
    read = b""
    try:
        while piece := os.read(descriptor, 65_536):
            read += piece
    except OSError:  # As Linux says that the other side has closed a terminal.
        pass
    os.close(descriptor)
    return read


def test_for_programs_each_look_is_one_line(command: Commands) -> None:
    with watching(command, "--json", output=subprocess.PIPE) as process:
        assert process.stdout
        first, second = (json.loads(process.stdout.readline()) for _ in range(2))
        assert first["taken_at"] < second["taken_at"]
        assert first.keys() == second.keys() == {"taken_at", "database", "cache", "storage", "errors"}
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=PATIENCE)
        assert (process.returncode, errors) == (0, b"")
        for line in output.splitlines():
            assert json.loads(line)["errors"] == {}


def test_a_reader_who_leaves_ends_it(command: Commands) -> None:
    with watching(command, "--json", output=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(PATIENCE) == 0
        assert process.stderr
        assert process.stderr.read() == b""
