"""What the documents say is true: links lead somewhere, commands exist, examples run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.support import command_tree

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\((?!https://)([^)#]+)\)", document.read_text())
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_each_decision_has_a_number_of_its_own() -> None:
    names = sorted(path.name for path in (ROOT / "docs" / "decisions").glob("[0-9]*.md"))
    assert [name[:5] for name in names] == [f"{number:04}-" for number in range(1, len(names) + 1)]


def test_the_changelog_keeps_to_its_format() -> None:
    """That of "Keep a Changelog": the newest first, dated, with what changed below six kinds of headings."""
    text = (ROOT / "CHANGELOG.md").read_text()
    first, *versions = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert first == "[Unreleased]"
    dated = [re.fullmatch(r"\[(\d+)\.(\d+)\.(\d+)\] - \d{4}-\d\d-\d\d", version) for version in versions]
    numbers = [tuple(int(number) for number in match.groups()) for match in dated if match]
    assert len(numbers) == len(versions)
    assert numbers == sorted(numbers, reverse=True)
    kinds = re.findall(r"^### (.+)$", text, re.MULTILINE)
    assert kinds
    assert set(kinds) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_every_command_in_the_readme_exists_and_none_is_missing() -> None:
    table = re.findall(r"^\| `data-layer ([^|]+)\|", (ROOT / "README.md").read_text(), re.MULTILINE)
    documented = set()
    for row in table:
        # The words of commands, without what stands for their arguments.
        names = [
            " ".join(re.findall(r"(?<!\S)[a-z][a-z-]*(?!\S)", name))
            for name in re.sub(r"data-layer ", "", row).replace("`", "").split(",")
        ]
        group = " ".join(names[0].split()[:-1]) or None
        for name in names:
            words = name.split()
            documented.add(" ".join(words if len(words) > 1 or group is None else [group, *words]))
    assert documented == set(_commands())


def _commands(group: Any = None) -> list[str]:
    """Those that people call; what the service calls itself is hidden."""
    found = []
    commands: dict[str, Any] = (group or command_tree()).commands
    for name, command in commands.items():
        if command.hidden:
            continue
        found += [f"{name} {below}" for below in _commands(command)] if hasattr(command, "commands") else [name]
    return found


def test_make_targets_in_the_documents_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for document in DOCUMENTS:
        mentioned = re.findall(r"`make ([a-z-]+)", document.read_text())
        assert set(mentioned) <= targets


def test_the_tree_of_the_architecture_is_the_tree() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    shown = set(re.findall(r"^  ([a-z_]+(?:/|\.py)) ", text, re.MULTILINE))
    package = ROOT / "src" / "data_layer"
    real = {f"{path.name}/" for path in package.iterdir() if path.is_dir() and path.name != "__pycache__"}
    real |= {path.name for path in package.glob("*.py")}
    assert shown == real


def _run(arguments: list[str], folder: Path, **environment: str) -> str:
    result = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_the_example_of_the_readme_runs(short_folder: Path) -> None:
    [example] = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len([line for line in example.splitlines() if line.strip()]) <= 20
    script = short_folder / "example.py"
    script.write_text(example)
    output = _run([str(script)], short_folder)
    assert "<User " in output
    assert "{'name': 'Ada'}" in output
    assert (short_folder / "uploads" / "notes" / "hello.txt").read_bytes() == b"any bytes"


def test_the_quick_start_stores_and_reads_back(short_folder: Path) -> None:
    output = _run([str(ROOT / "examples" / "quickstart.py"), str(short_folder)], short_folder)
    assert "read back               3 versions and the screenshot, byte for byte the same" in output
    assert len(re.findall(r"stored version [123]  ", output)) == 3
