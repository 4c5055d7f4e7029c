"""Commands whose standard streams are closed, full or cut off: a message and an exit code, never a traceback."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from data_layer.cli.application import application
from data_layer.services.seed_catalog import catalog

from .support import PATIENCE, PROGRAM, Service, clean_environment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SOMEBODY = "00000000-0000-7000-8000-000000000000"
PROJECT = catalog()["projects"][0]["name"]
USER = catalog()["users"][0]["email"]
# What a command needs, by its words. What only reads is asked for what exists, so that it prints something; what
# changes something is asked for what does not exist, or without the confirmation that it wants.
ARGUMENTS = {
    "codes diff": [PROJECT, "1", "1"],
    "codes save": ["--force", PROJECT, "1", "page.html"],
    "codes show": [PROJECT],
    "images delete": [SOMEBODY],
    "images list": [PROJECT],
    "images save": ["--force", SOMEBODY, "image.png"],
    "images show": [SOMEBODY],
    "import": ["--user", USER, "--dry-run", "."],
    "logs level": ["info"],
    "mails retry": [SOMEBODY],
    "mails show": [SOMEBODY],
    "projects clone": [SOMEBODY],
    "projects delete": [SOMEBODY],
    "projects export": ["--force", PROJECT],
    "projects export-html": ["--force", PROJECT],
    "projects history": [PROJECT],
    "projects open": [PROJECT],
    "projects restore": [SOMEBODY],
    "projects search": ["page"],
    "projects show": [PROJECT],
    "sessions revoke": ["--all"],
    "storage migrate": ["--to", "s3"],
    "usage budget": [USER],
    "usage entries": [USER],
    "users create": ["someone@example.com"],
    "users delete": [SOMEBODY],
    "users export": ["--force", USER],
    "users keys create": [SOMEBODY, "--name", "key", "--scope", "read"],
    "users keys list": [USER],
    "users keys revoke": [SOMEBODY],
    "users password": [SOMEBODY],
    "users reset-factors": [SOMEBODY],
    "users role": [SOMEBODY, "user"],
    "users sessions": [USER],
    "users show": [USER],
    "users suspend": [SOMEBODY],
    "users unlock": [SOMEBODY],
    "users unsuspend": [SOMEBODY],
    "users verify": [SOMEBODY],
}
SERVICES = {"app", "dev", "start", "work"}
SAY_NOTHING = {"cache keys"}
"""What has nothing to print here, so that nothing is lost."""


def commands(group: Any = None, words: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    """Each command, with ``--json`` where it knows that."""
    group = group or typer.main.get_command(application)
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*words, name))
        elif name not in SERVICES:
            knows_json = any("--json" in parameter.opts for parameter in command.params)
            yield " ".join((*words, name)), "--json" if knows_json else ""


@pytest.fixture(scope="module")
def seeded(prepared: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The same servers, with the example data."""
    folder = tmp_path_factory.mktemp("streams")
    environment = prepared | {"LOCAL_STORAGE_PATH": str(folder / "uploads"), "DATA_FOLDER": str(folder / "data")}
    run("db seed", folder, environment, "").check_returncode()
    return environment


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


@pytest.mark.parametrize(("number", "command", "json"), [(n, *each) for n, each in enumerate(sorted(commands()))])
def test_no_stream_brings_a_traceback(
    number: int, command: str, json: str, tmp_path: Path, seeded: dict[str, str]
) -> None:
    # One of them for each command, because each starts a process; every second command loses its output.
    lost = f"{json} <&- >/dev/full"
    streams = (lost, ">&-", lost, f"{json} | head -c 1", lost, "<&- 2>/dev/full")[number % 6]
    done = run(command, tmp_path, seeded, streams)
    said = done.stdout + done.stderr
    assert "Traceback" not in said, f"{streams}: {said}"
    assert "Exception ignored" not in said, f"{streams}: {said}"
    assert done.returncode in {0, 1}, f"{streams}: {said}"
    if streams in {lost, ">&-"} and command not in SAY_NOTHING:
        assert done.returncode == 1, f"{streams}: output that is lost is no success"
        # What happens is told before; a message, though, is one line and the last one.
        errors = [line.startswith("Error") for line in done.stderr.splitlines()]
        assert (errors.count(True), errors[-1:]) == (1, [True]), f"{streams}: {said}"


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
