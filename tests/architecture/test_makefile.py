"""The commands of the project."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from .source import PROJECT

MAKE = shutil.which("make") or "make"
MAKEFILE = PROJECT / "Makefile"

ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
"""As outside of `make test`, which tells the makes below it that they are."""

SERVICE = """\
#!/bin/sh
trap 'echo stopping; exit 0' INT TERM
echo "started $*"
while :; do sleep 0.1; done
"""


def make(*arguments: str, folder: Path = PROJECT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [MAKE, "--no-print-directory", *arguments],
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A project whose environment is complete, and whose service only waits for a signal."""
    shutil.copy(MAKEFILE, tmp_path)
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "requirements.lock").touch()
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    (programs / "python").touch()
    (programs / "data-layer").write_text(SERVICE)
    (programs / "data-layer").chmod(0o755)
    (tmp_path / ".venv" / "installed-to-run").touch()
    return tmp_path


def test_make_alone_lists_every_command() -> None:
    phony = " ".join(re.findall(r"^\.PHONY: (.+)$", MAKEFILE.read_text(), re.MULTILINE)).split()
    assert phony
    listed = re.findall(r"^  make ([a-z-]+) +\S", make().stdout, re.MULTILINE)
    assert sorted(listed) == sorted(phony)


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_the_service(installed: Path, stop: signal.Signals) -> None:
    process = subprocess.Popen(
        [MAKE, "run"], cwd=installed, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    with process:
        assert process.stdout
        assert process.stdout.readline() == "started dev\n"
        if stop is signal.SIGINT:
            os.killpg(process.pid, stop)  # As a terminal does on Ctrl-C.
        else:
            process.send_signal(stop)
        assert "stopping" in process.communicate(timeout=10)[0]


def test_an_old_python_is_refused_by_name(tmp_path: Path) -> None:
    old = tmp_path / "old-python"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.9.18"\nexit 1\n')
    old.chmod(0o755)
    shutil.copytree(PROJECT / "tools", tmp_path / "tools")
    shutil.copy(MAKEFILE, tmp_path)
    for name in ("pyproject.toml", "requirements.lock"):
        (tmp_path / name).touch()
    refused = make("run", f"PYTHON={old}", folder=tmp_path)
    assert refused.returncode != 0
    assert "Python 3.11 or later is needed; found: Python 3.9.18" in refused.stderr
    assert not (tmp_path / ".venv").exists()
