"""Exceptions that nobody catches: Python would print their tracebacks as they are."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

PROGRAM = """
import sys, threading
from data_layer.observability.configuration import configure_logging
from data_layer.settings.observability import LogSettings

configure_logging(LogSettings(), secrets=["correct horse"], production=False)

def fail():
    raise RuntimeError("postgresql://app:hunter2@db is away, and so is 'correct horse'")

class Hostile:
    def __del__(self):
        fail()

match sys.argv[1]:
    case "program":
        fail()
    case "thread":
        thread = threading.Thread(target=fail, name="worker-1")
        thread.start()
        thread.join()
    case "finalizer":
        Hostile()
"""


@pytest.mark.parametrize(
    ("where", "event", "code"),
    [("program", "program_crashed", 1), ("thread", "thread_crashed", 0), ("finalizer", "exception_ignored", 0)],
)
def test_it_is_one_masked_event(where: str, event: str, code: int) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM, where], capture_output=True, text=True, check=False)
    assert done.returncode == code
    line = json.loads(done.stderr)
    assert (line["event"], line["level"]) == (event, "error")
    assert line["exception"]["type"] == "RuntimeError"
    assert "in fail" in line["exception"]["traceback"]
    assert "hunter2" not in done.stderr
    assert "correct horse" not in done.stderr
