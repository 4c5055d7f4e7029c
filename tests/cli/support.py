"""Commands run inside the test process, against the servers that all tests share."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any
from unittest.mock import patch

import typer.main
import typer.testing

from data_layer.cli.application import application


@cache
def command_tree() -> Any:
    """All commands. Typer would make them again for each call, which takes longer than most of them run."""
    return typer.main.get_command(application)


def invoke(arguments: Sequence[str], *, typed: str = "", env: Mapping[str, str]) -> typer.testing.Result:
    """Run a command inside this process."""
    with patch("typer.testing._get_command", lambda _: command_tree()):
        return typer.testing.CliRunner().invoke(application, arguments, input=typed, env=env)


@dataclass(frozen=True)
class Result:
    """How a command ended, and what it said where."""

    code: int
    output: str
    errors: str

    @property
    def json(self) -> Any:
        """The output, which must be one JSON value and nothing else."""
        return json.loads(self.output)


class Commands:
    """Runs commands with the same settings each time."""

    def __init__(self, **environment: str) -> None:
        self.environment = environment

    def __call__(self, *arguments: str, typed: str = "", code: int | None = 0, **environment: str) -> Result:
        """Run a command, which must end with the exit code ``code`` unless that is None."""
        # A terminal of ordinary width, as far as typer's own help is concerned. On a busy machine a statement may be
        # slow, and its warning would stand before the message of an error.
        merged = {"COLUMNS": "100", "DB_SLOW_STATEMENT": "0"} | self.environment | environment
        done = invoke(arguments, typed=typed, env=merged)
        result = Result(done.exit_code, done.stdout, done.stderr)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert code is None or done.exit_code == code, result
        assert "\x1b" not in done.output, "colours are for terminals"
        return result

    def error(self, *arguments: str, typed: str = "", **environment: str) -> str:
        """The message of a command that fails; as JSON it is the same, with nothing else on standard output."""
        plain = self(*arguments, typed=typed, code=1, **environment)
        assert plain.output == ""
        assert plain.errors.startswith("Error (")
        error = self(*arguments, "--json", typed=typed, code=1, **environment).json["error"]
        assert error.keys() == {"code", "message"}
        assert plain.errors.startswith(f"Error ({error['code']}): ")
        return plain.errors
