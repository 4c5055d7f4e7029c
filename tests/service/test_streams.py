"""Commands whose standard streams are closed, full or cut off: a message and an exit code, never a traceback."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from data_layer.cli.application import application

from .support import PATIENCE, PROGRAM, Service, clean_environment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SOMEBODY = "00000000-0000-7000-8000-000000000000"
# Arguments without which a command would only explain itself. Nothing of this exists.
ARGUMENTS = {
    "logs level": ["info"],
    "projects show": [SOMEBODY],
    "sessions revoke": ["--all"],
    "storage migrate": ["--from", "local"],
    "users create": ["someone@example.com"],
    "users delete": [SOMEBODY],
    "users role": [SOMEBODY, "user"],
    "users sessions": [SOMEBODY],
    "users show": [SOMEBODY],
    "users suspend": [SOMEBODY],
    "users unsuspend": [SOMEBODY],
    "users unlock": [SOMEBODY],
}
SERVICES = {"dev", "start", "work"}


def commands(group: Any = None, words: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    """Each command, with ``--json`` where it knows that."""
    group = group or typer.main.get_command(application)
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*words, name))
        elif name not in SERVICES:
            knows_json = any("--json" in parameter.opts for parameter in command.params)
            yield " ".join((*words, name)), "--json" if knows_json else ""


def run(command: str, place: Path, environment: dict[str, str], streams: str) -> subprocess.CompletedProcess[str]:
    arguments = " ".join(f"'{word}'" for word in ARGUMENTS.get(command, []))
    return subprocess.run(
        ["bash", "-c", f"'{PROGRAM}' {command} {arguments} {streams}"],  # noqa: S607
        env=clean_environment() | environment,
        cwd=place,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )


@pytest.mark.parametrize(("command", "json"), sorted(commands()))
def test_no_stream_brings_a_traceback(command: str, json: str, tmp_path: Path, prepared: dict[str, str]) -> None:
    for streams in (f"{json} <&- >/dev/full", f"{json} | head -c 1", "<&- 2>/dev/full"):
        done = run(command, tmp_path, prepared, streams)
        said = done.stdout + done.stderr
        assert "Traceback" not in said, f"{streams}: {said}"
        assert "Exception ignored" not in said, f"{streams}: {said}"
        assert done.returncode in {0, 1, 2}, f"{streams}: {said}"
        # There is nothing to export, so nothing is lost.
        if ">/dev/full" in streams and "2>" not in streams and command != "audit export":
            assert done.returncode, "output that is lost is no success"
            assert done.stderr.strip()


def test_help_that_cannot_be_written(tmp_path: Path) -> None:
    done = run("", tmp_path, {}, "--help >/dev/full")
    assert (done.returncode, done.stderr) == (1, "Error: the output cannot be written (No space left on device)\n")
    done = run("", tmp_path, {}, "--help >&-")
    assert (done.returncode, done.stderr) == (1, "Error: the output cannot be written (Bad file descriptor)\n")
    done = run("", tmp_path, {}, "--help | true; exit ${PIPESTATUS[0]}")
    assert done.stderr == ""


@pytest.mark.parametrize("streams", ["<&-", "</dev/null"])
def test_no_password_is_said(streams: str, tmp_path: Path, prepared: dict[str, str]) -> None:
    done = run("users create", tmp_path, prepared, streams)
    assert done.returncode == 1
    assert "Error (invalid_value): no password was given" in done.stderr
    assert "--without-password" in done.stderr
    done = run("users create", tmp_path, prepared, "< <(printf 'caf\\351 au lait\\n')")
    assert (done.returncode, "is not UTF-8" in done.stderr) == (1, True), done.stderr


def test_workers_without_a_place_for_their_folder(new_folder: Path, prepared: dict[str, Any]) -> None:
    (new_folder / "sitecustomize.py").write_text("import tempfile\ntempfile.tempdir = '/no/such/folder'\n")
    with Service(new_folder, "start --workers 2", **prepared, PYTHONPATH=str(new_folder)) as service:
        said = service.fail()
    assert "Error (configuration_invalid): the workers need a private folder" in said
    assert "set TMPDIR" in said
    assert "Traceback" not in said
