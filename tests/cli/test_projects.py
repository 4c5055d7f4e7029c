"""``data-layer projects``: what is stored, also when it was written by somebody who means harm."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from data_layer import DataLayer, GeneratedImage, Project, Settings
from data_layer.cli import output
from data_layer.entities.enums import ImageProvider
from data_layer.services.seed_rows import catalog
from tests.support import make_code, make_project, make_user

from .support import Commands

HOSTILE = (
    "\x1b[31mred\x1b]0;title\x07 [bold]bold[/bold] \\[red]x [/] :bomb: "
    "line\nError (fake): paid\r\t\u202egnp.exe\u2028 \x9b1m"
)
SHOWN = "�[31mred�]0;title� [bold]bold[/bold] \\[red]x [/] :bomb: line Error (fake): paid  �gnp.exe  �1m"


def store(settings: Settings, *, codes: int = 0, images: int = 0, **values: Any) -> Project:
    async def add() -> Project:
        async with DataLayer(settings) as data, data.transaction() as tx:
            user = make_user()
            project = make_project(user, **values)
            tx.add(user)
            tx.add(project)
            for number in range(codes):
                tx.add(make_code(project, name=f"version {number}", variant_index=0))
            for number in range(images):
                image: dict[str, Any] = {
                    "prompt": "a picture",
                    "model": "model",
                    "size": "1024x1024",
                    "name": str(number),
                }
                tx.add(GeneratedImage(project_id=project.id, provider=ImageProvider.DALLE3, **image))
        return project

    return asyncio.run(add())


def test_nothing_is_stored_yet(command: Commands) -> None:
    assert (
        command("projects", "list").output == "There are no projects. Add the example data with: data-layer db seed\n"
    )
    assert command("projects", "list", "--json").json == []


def test_the_list(command: Commands) -> None:
    command("db", "seed")
    listed = command("projects", "list")
    lines = listed.output.splitlines()
    assert lines[0] == f"{len(catalog()['projects'])} projects"
    assert lines[1].split() == ["Name", "Type", "Status", "Versions", "Changed", "Owner", "Id"]
    assert all(line == line.rstrip() for line in lines)
    rows = command("projects", "list", "--json").json
    assert [row["updated_at"] for row in rows] == sorted((row["updated_at"] for row in rows), reverse=True)
    assert [line.split()[-1] for line in lines[2:]] == [row["id"] for row in rows]
    versions = {
        project["name"]: len({code["generation"] for code in project["codes"]}) for project in catalog()["projects"]
    }
    assert {row["name"]: row["generation_count"] for row in rows} == versions
    assert {row["owner"] for row in rows} == {user["email"] for user in catalog()["users"]}
    few = command("projects", "list", "--limit", "2")
    assert few.output.startswith("2 projects that changed last; for more: --limit\n")
    assert len(few.output.splitlines()) == 4
    assert command("projects", "list", "--json", "--limit", "2").json == rows[:2]


@pytest.mark.parametrize(("width", "last"), [(80, "Changed"), (120, "Owner"), (150, "Id")])
def test_the_list_fits_the_terminal(command: Commands, monkeypatch: pytest.MonkeyPatch, width: int, last: str) -> None:
    command("db", "seed")
    monkeypatch.setattr(output.console, "width", width)
    lines = command("projects", "list").output.splitlines()
    assert lines[1].split()[-1] == last
    assert len(lines) == len(catalog()["projects"]) + 2, "one line for each"
    assert max(map(len, lines)) <= width


@pytest.mark.parametrize("limit", ["0", "1001", "many"])
def test_a_limit_out_of_range(command: Commands, limit: str) -> None:
    assert "--limit" in command("projects", "list", "--limit", limit, code=2).errors


def test_one_project_by_its_name_and_by_its_id(command: Commands) -> None:
    command("db", "seed")
    wanted = next(project for project in catalog()["projects"] if project.get("images"))
    shown = command("projects", "show", wanted["name"])
    lines = shown.output.splitlines()
    assert lines[0] == wanted["name"]
    assert f"{len({code['generation'] for code in wanted['codes']})} versions" in lines
    assert any(line in lines for line in ("1 image", f"{len(wanted['images'])} images"))
    assert all(code["name"] in shown.output for code in wanted["codes"] if code.get("name"))
    details = command("projects", "show", wanted["name"], "--json").json
    assert details["project"]["description"] == wanted["description"]
    assert [version["version"] for version in details["versions"]] == [code["generation"] for code in wanted["codes"]]
    assert [version["code_stack"] for version in details["versions"]] == [wanted["code_stack"]] * len(wanted["codes"])
    assert "password_hash" not in str(details)
    for spelling in (details["project"]["id"], details["project"]["id"].upper()):
        assert command("projects", "show", spelling, "--json").json == details


@pytest.mark.parametrize(
    ("wanted", "part"),
    [
        ("no such project", "no project has the name 'no such project'"),
        ("019b76da-0000-7000-8000-000000000000", "has no row with the id 019b76da-0000-7000-8000-000000000000"),
        ("\x1b[31m", r"'\x1b[31m'"),
        ("", "no project has the name ''"),
    ],
)
def test_a_project_that_is_not_there(command: Commands, wanted: str, part: str) -> None:
    message = command.error("projects", "show", wanted)
    assert message.startswith("Error (not_found): ")
    assert part in message


def test_a_name_that_is_no_text(command: Commands) -> None:
    assert "invalid_text" in command.error("projects", "show", "\udcff")


def test_a_name_that_several_projects_have(command: Commands, settings: Settings) -> None:
    ids = [str(store(settings, name="Twice").id) for _ in range(2)]
    message = command.error("projects", "show", "Twice")
    assert "several projects have the name 'Twice'" in message
    assert all(project_id in message for project_id in ids)
    assert command("projects", "show", ids[0], "--json").json["project"]["id"] == ids[0]


def test_hostile_text_is_shown_as_text(command: Commands, settings: Settings) -> None:
    values: dict[str, Any] = {"description": HOSTILE, "instructions": HOSTILE, "tags": [HOSTILE]}
    project = store(settings, codes=1, name=HOSTILE, **values)
    listed = command("projects", "list").output
    assert listed.splitlines()[2].startswith(SHOWN)
    shown = command("projects", "show", str(project.id)).output
    assert shown.splitlines()[0] == SHOWN
    assert shown.count(SHOWN) == 4
    for printed in (listed, shown):
        assert not [character for character in printed if not character.isprintable() and character != "\n"]
        assert not [line for line in printed.splitlines() if line.startswith("Error")]
    assert command("projects", "show", str(project.id), "--json").json["project"]["name"] == HOSTILE


def test_words_that_need_invisible_characters_stay_whole(command: Commands, settings: Settings) -> None:
    name = "\u0646\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 👩\u200d💻 そらもよう"
    store(settings, name=name)
    assert name in command("projects", "list").output


def test_all_versions_and_images_are_shown(command: Commands, settings: Settings) -> None:
    project = store(settings, codes=101, images=101, name="Large")
    output = command("projects", "show", str(project.id)).output
    assert "101 versions" in output
    assert "101 images" in output
