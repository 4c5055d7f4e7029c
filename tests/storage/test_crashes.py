"""Writers killed with SIGKILL at random moments leave the old file or the new one, whole, with its own metadata."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

PROJECT = Path(__file__).parents[2]


@pytest.mark.parametrize("mode", [[], ["--sidecars"]], ids=["attributes", "sidecars"])
@pytest.mark.parametrize(("rounds", "writers"), [(100, 1), (25, 3)], ids=["one writer", "three writers"])
def test_killed_writers(tmp_path: Path, rounds: int, writers: int, mode: list[str]) -> None:
    writer = [sys.executable, "-m", "tests.storage.crashing_writer", str(tmp_path / "uploads"), str(rounds)]
    command = [*writer, "--writers", str(writers), *mode]
    result = subprocess.run(command, check=False, capture_output=True, text=True, timeout=100, cwd=PROJECT)
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["killed_while_writing"] > rounds / 4, "hardly anything was under way"
    assert set(report["versions"]) == {"a", "b/c", "b/d/e"}
