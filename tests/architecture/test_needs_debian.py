"""A missing server leaves its tests out on a laptop and fails the run in continuous integration."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .source import PROJECT

CONFTEST = """\
from tests import needs_debian
needs_debian.PROGRAMS = {{{program!r}: {program!r}}}
pytest_plugins = ["tests.needs_debian"]
"""
TESTS = """\
import pytest
def test_plain(): pass
@pytest.mark.needs_debian
def test_with_a_server(): pass
"""


def run_pytest(folder: Path, program: str, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    (folder / "conftest.py").write_text(CONFTEST.format(program=program))
    (folder / "test_two.py").write_text(TESTS)
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = needs_debian: …\n")
    # The other plugins take most of the time of such a start.
    plain = {"PATH": os.environ["PATH"], "PYTHONPATH": str(PROJECT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    environment = plain | variables
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "xdist.plugin", *options]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_what_is_installed_is_used(tmp_path: Path) -> None:
    finished = run_pytest(tmp_path, "sh", REQUIRE_ALL_SERVERS="1")
    assert finished.returncode == 0
    assert "2 passed" in finished.stdout
    assert "Left out" not in finished.stdout


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--numprocesses=2",), ("--quiet",)])
def test_what_is_missing_is_left_out_with_one_line(tmp_path: Path, options: tuple[str, ...]) -> None:
    finished = run_pytest(tmp_path, "no-such-server", *options)
    assert finished.returncode == 0
    assert "1 passed" in finished.stdout
    assert "skipped" not in finished.stdout
    (line,) = [line for line in finished.stdout.splitlines() if line.startswith("Left out: ")]
    assert "apt install no-such-server" in line


@pytest.mark.parametrize("options", [(), ("--numprocesses=2",)])
def test_what_is_missing_is_a_failure_where_all_are_required(tmp_path: Path, options: tuple[str, ...]) -> None:
    finished = run_pytest(tmp_path, "no-such-server", *options, REQUIRE_ALL_SERVERS="1")
    assert finished.returncode != 0
    assert "no-such-server" in finished.stderr
    assert "passed" not in finished.stdout
