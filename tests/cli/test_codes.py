"""``data-layer codes``: code as text, as a difference and as a file, exactly."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path

import pytest

from data_layer import DataLayer, Project, Settings
from data_layer.entities.enums import GenerationStatus
from tests.cli.support import Commands
from tests.support import make_code, make_project, make_user

CODE = "<h1>Löffel\u2028</h1>\r\n\x1b[31m\tred\n"


def store(settings: Settings, *codes: str) -> Project:
    async def add() -> Project:
        async with DataLayer(settings) as data, data.transaction() as tx:
            user = make_user()
            project = make_project(user, name="Page")
            tx.add(user)
            tx.add(project)
            for code in codes:
                tx.add(make_code(project, code=code, status=GenerationStatus.COMPLETED))
        return project

    return asyncio.run(add())


def test_show(command: Commands, settings: Settings) -> None:
    project = store(settings, "first", CODE)
    shown = command("codes", "show", "Page").output
    assert shown.startswith("Version 2.0\n")
    assert shown.endswith("\n<h1>Löffel </h1> \n�[31m red\n\n")
    assert "first" in command("codes", "show", "Page", "1").output
    full = command("codes", "show", str(project.id), "2.0", "--json").json
    assert (full["code"], full["version"], full["variant_index"]) == (CODE, 2, 0)


def test_diff(command: Commands, settings: Settings) -> None:
    store(settings, "a\nb\nc\n", "a\nB\x1b\nc\n")
    lines = command("codes", "diff", "Page", "1").output.splitlines()
    assert lines[:3] == ["--- version 1.0", "+++ version 2.0", "@@ -1,4 +1,4 @@"]
    assert {"-b", "+B�"} <= set(lines)
    assert lines[-1] == "1 line added, 1 removed"
    other_way = command("codes", "diff", "Page", "2.0", "1.0", "--json").json
    assert (other_way["added_lines"], other_way["removed_lines"]) == (1, 1)
    assert "+b" in other_way["unified"].split("\n")
    assert command("codes", "diff", "Page", "1", "1.0").output == "They do not differ.\n"


def test_save_is_exact_and_replaces_nothing(command: Commands, settings: Settings, tmp_path: Path) -> None:
    store(settings, CODE, "second")
    file = tmp_path / "page.html"
    assert command("codes", "save", "Page", "1", str(file)).output == f"Wrote version 1.0 to {file}\n"
    assert file.read_bytes() == CODE.encode()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    refused = command("codes", "save", "Page", "2", str(file), code=2, COLUMNS="500")
    assert f"{file} exists" in refused.errors
    assert file.read_bytes() == CODE.encode()
    saved = command("codes", "save", "Page", "2.0", str(file), "--force", "--json").json
    assert saved == {"file": str(file), "version": 2, "variant_index": 0}
    assert file.read_bytes() == b"second"
    assert command("codes", "save", "Page", "2", "-").output == "second"
    refused = command("codes", "save", "Page", "1", str(tmp_path / "none" / "page.html"), code=2)
    assert "cannot be written: No such file or directory" in " ".join(refused.errors.replace("│", " ").split())


@pytest.mark.parametrize("place", ["", "x", "1.", ".1", "1.2.3", "-1", "1.x", "²", "9" * 5000, "1e3", "\x1b"])
def test_what_is_no_version(command: Commands, place: str) -> None:
    assert "is not a version" in command("codes", "show", "--", "Page", place, code=2).errors


@pytest.mark.parametrize("place", ["0", "2", "1.1", "4294967295.0", "1.4294967295"])
def test_a_version_that_is_not_there(command: Commands, settings: Settings, place: str) -> None:
    store(settings, CODE)
    assert f"the project has no version {place}" in command.error("codes", "show", "Page", place)


def test_a_project_without_code(command: Commands, settings: Settings) -> None:
    store(settings)
    assert "no version that is complete" in command.error("codes", "show", "Page")
    assert "no project has the name 'Other'" in command.error("codes", "show", "Other")
