"""``data-layer projects``: what is stored, also when it was written by somebody who means harm."""

from __future__ import annotations

import asyncio
import tempfile
import webbrowser
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from typing_extensions import override

from data_layer import DataLayer, GeneratedImage, Project, Settings
from data_layer.cli import output
from data_layer.entities.enums import GenerationStatus, ImageProvider
from data_layer.services.seed_catalog import catalog, file_of
from tests.support import make_code, make_project, make_user

from .support import Commands

HOSTILE = (
    "\x1b[31mred\x1b]0;title\x07 [bold]bold[/bold] \\[red]x [/] :bomb: "
    "line\nError (fake): paid\r\t\u202egnp.exe\u2028 \x9b1m"
)
SHOWN = "�[31mred�]0;title� [bold]bold[/bold] \\[red]x [/] :bomb: line Error (fake): paid  �gnp.exe  �1m"


def store(
    settings: Settings, *, codes: int = 0, images: int = 0, code: str = "", prompt: str | None = None, **values: Any
) -> Project:
    async def add() -> Project:
        async with DataLayer(settings) as data, data.transaction() as tx:
            user = make_user()
            project = make_project(user, **values)
            tx.add(user)
            tx.add(project)
            for number in range(codes):
                status = GenerationStatus.COMPLETED if code else GenerationStatus.PENDING
                tx.add(make_code(project, name=f"version {number}", code=code, original_prompt=prompt, status=status))
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


def test_the_list(seeded: Commands) -> None:
    listed = seeded("projects", "list")
    lines = listed.output.splitlines()
    assert lines[0] == f"{len(catalog()['projects'])} projects"
    assert lines[1].split() == ["Name", "Type", "Status", "Versions", "Changed", "Owner", "Id"]
    assert all(line == line.rstrip() for line in lines)
    rows = seeded("projects", "list", "--json").json
    assert [row["updated_at"] for row in rows] == sorted((row["updated_at"] for row in rows), reverse=True)
    assert [line.split()[-1] for line in lines[2:]] == [row["id"] for row in rows]
    versions = {
        project["name"]: len({code["generation"] for code in project["codes"]}) for project in catalog()["projects"]
    }
    assert {row["name"]: row["generation_count"] for row in rows} == versions
    assert {row["owner"] for row in rows} == {user["email"] for user in catalog()["users"]}
    few = seeded("projects", "list", "--limit", "2")
    assert few.output.startswith("2 projects that changed last; for more: --limit\n")
    assert len(few.output.splitlines()) == 4
    assert seeded("projects", "list", "--json", "--limit", "2").json == rows[:2]


@pytest.mark.parametrize(("width", "last"), [(80, "Changed"), (120, "Owner"), (150, "Id")])
def test_the_list_fits_the_terminal(seeded: Commands, monkeypatch: pytest.MonkeyPatch, width: int, last: str) -> None:
    monkeypatch.setattr(output.console, "width", width)
    lines = seeded("projects", "list").output.splitlines()
    assert lines[1].split()[-1] == last
    assert len(lines) == len(catalog()["projects"]) + 2, "one line for each"
    assert max(map(len, lines)) <= width


@pytest.mark.parametrize("limit", ["0", "1001", "many"])
def test_a_limit_out_of_range(command: Commands, limit: str) -> None:
    assert "--limit" in command("projects", "list", "--limit", limit, code=2).errors


def test_one_project_by_its_name_and_by_its_id(seeded: Commands) -> None:
    wanted = next(project for project in catalog()["projects"] if project.get("images"))
    shown = seeded("projects", "show", wanted["name"])
    lines = shown.output.splitlines()
    assert lines[0] == wanted["name"]
    assert f"{len({code['generation'] for code in wanted['codes']})} versions" in lines
    assert any(line in lines for line in ("1 image", f"{len(wanted['images'])} images"))
    assert all(code["name"] in shown.output for code in wanted["codes"] if code.get("name"))
    details = seeded("projects", "show", wanted["name"], "--json").json
    assert details["project"]["description"] == wanted["description"]
    assert [version["version"] for version in details["versions"]] == [code["generation"] for code in wanted["codes"]]
    assert [version["code_stack"] for version in details["versions"]] == [wanted["code_stack"]] * len(wanted["codes"])
    assert "password_hash" not in str(details)
    for spelling in (details["project"]["id"], details["project"]["id"].upper()):
        assert seeded("projects", "show", spelling, "--json").json == details


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


def test_history_shows_the_tree(seeded: Commands) -> None:
    wanted = next(entry for entry in catalog()["projects"] if any(code["variant_index"] for code in entry["codes"]))
    numbers = len({code["generation"] for code in wanted["codes"]})
    shown = seeded("projects", "history", wanted["name"])
    lines = shown.output.splitlines()
    assert lines[0] == f"{numbers} versions"
    assert lines[1].split() == ["Version", "Made", "from", "Type", "Prompt", "Name", "Model", "Status", "Size"]
    assert len(lines) == len(wanted["codes"]) + 2
    assert sum(line.endswith("selected") for line in lines) == numbers
    all_of_it = seeded("projects", "history", wanted["name"], "--json").json
    assert [each["number"] for each in all_of_it] == list(range(numbers, 0, -1))
    page = seeded("projects", "history", wanted["name"], "--limit", "1")
    assert page.output.startswith(f"1 version; for more: --before {numbers}\n")
    rest = seeded("projects", "history", wanted["name"], "--before", str(numbers), "--json").json
    assert rest == all_of_it[1:]
    assert seeded("projects", "history", wanted["name"], "--before", "1").output == "There are no such versions.\n"


def test_history_shows_hostile_text_as_text(command: Commands, settings: Settings) -> None:
    project = store(settings, codes=1, name="x", prompt=HOSTILE)
    shown = command("projects", "history", str(project.id)).output
    assert SHOWN[:6] in shown
    assert len(shown.splitlines()) == 3
    assert not [character for character in shown if not character.isprintable() and character != "\n"]


def test_to_the_trash_and_back(command: Commands, settings: Settings) -> None:
    project = store(settings, name="Mine")
    assert "Move the project 'Mine' to the trash?" in command("projects", "delete", "Mine", typed="n\n", code=1).errors
    assert len(command("projects", "list", "--json").json) == 1
    done = command("projects", "delete", "Mine", "--yes").output
    assert done == f"Mine is in the trash. To undo: data-layer projects restore {project.id}\n"
    assert command("projects", "list", "--json").json == []
    assert [row["name"] for row in command("projects", "list", "--deleted", "--json").json] == ["Mine"]
    assert "no project has the name 'Mine'" in command.error("projects", "delete", "Mine", "--yes")
    assert "no project has the id" in command.error("projects", "delete", str(project.id), "--yes")
    assert command("projects", "show", str(project.id), "--json").json["project"]["status"] == "deleted"
    assert command("projects", "restore", "Mine").output == "Mine is draft again.\n"
    assert command("projects", "list", "--deleted").output == "The trash is empty.\n"
    assert "no project in the trash has the name 'Mine'" in command.error("projects", "restore", "Mine")
    assert command("projects", "delete", "Mine", "--yes", "--json").json == {"deleted": str(project.id)}
    assert command("projects", "restore", str(project.id), "--json").json["status"] == "draft"


def test_clone(command: Commands, settings: Settings) -> None:
    store(settings, codes=3, name="Shop", code="<p>")
    whole = command("projects", "clone", "Shop")
    assert whole.output == "Shop (copy) has 3 versions.\n"
    assert "data-layer projects show" in whole.errors
    copy = command("projects", "clone", "Shop", "--name", "Mine", "--version", "1", "--json").json
    assert (copy["name"], copy["generation_count"]) == ("Mine", 1)
    one = command("projects", "clone", "Shop", "--name", "One", "--no-history", "--json").json
    [version] = command("projects", "history", one["id"], "--json").json
    assert version["generation_type"] == "import"
    assert "no version 99" in command.error("projects", "clone", "Shop", "--version", "99")
    assert "no project has the name 'x'" in command.error("projects", "clone", "x")


def test_export_html(seeded: Commands, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    wanted = catalog()["projects"][0]
    last = wanted["codes"][-1]
    file = Path("larkspur-pricing-page-v3.html")
    assert seeded("projects", "export-html", wanted["name"]).output == f"Wrote version 3.0 to {file}\n"
    assert file.read_bytes() == file_of(last["file"]).read_bytes()
    assert "exists" in seeded("projects", "export-html", wanted["name"], code=2).errors
    assert seeded("projects", "export-html", wanted["name"], "3", "-o", "-").output.encode() == file.read_bytes()
    exported = seeded("projects", "export-html", wanted["name"], "1.1", "-o", str(file), "--force", "--json").json
    assert exported == {"file": str(file), "version": 1, "variant_index": 1}
    assert file.read_bytes() == file_of(wanted["codes"][1]["file"]).read_bytes()


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("../../etc/passwd", "etc-passwd-v1.html"),
        ("/root/x", "root-x-v1.html"),
        ("-o $(reboot) `x`", "o-reboot-x-v1.html"),
        ("\x1b[31m\u202e...", "31m-v1.html"),
        ("…", "page-v1.html"),
        ("そらもよう", "そらもよう-v1.html"),
    ],
)
def test_names_of_exported_files_lead_nowhere(
    command: Commands, settings: Settings, monkeypatch: pytest.MonkeyPatch, name: str, file: str
) -> None:
    project = store(settings, codes=1, name=name)
    with tempfile.TemporaryDirectory() as folder:
        monkeypatch.chdir(folder)
        command("projects", "export-html", str(project.id), "1")
        assert [each.name for each in Path(folder).iterdir()] == [file]
        monkeypatch.undo()


def test_a_page_is_opened_in_an_origin_without_rights(
    command: Commands, settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    opened: list[str] = []
    hostile = '"></iframe><script>document.title = "escaped"</script>&quot;&lt;'
    store(settings, codes=1, name="Mine", code=hostile)

    def open_page(url: str) -> bool:
        opened.append(url)
        return True

    monkeypatch.setattr(webbrowser, "open", open_page)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    shown = command("projects", "open", "Mine", "1", "--json").json
    file = Path(shown["file"])
    assert (opened, shown["opened"]) == ([file.as_uri()], True)
    frame = Frame(file.read_text(encoding="utf-8"))
    assert frame.tags == ["meta", "title", "style", "iframe"], "nothing of the page is outside of the frame"
    assert frame.sandbox == {"allow-scripts", "allow-forms", "allow-popups"}, "never allow-same-origin"
    assert frame.page == hostile
    command("projects", "open", "Mine", "1", "--no-browser")
    assert len(opened) == 1
    monkeypatch.setattr(webbrowser, "open", lambda _: False)
    assert command("projects", "open", "Mine", "1").output.startswith("Open this file in a browser: ")


class Frame(HTMLParser):
    """What a browser makes of the file around a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sandbox: set[str] = set()
        self.page = ""
        self.feed(text)

    @override
    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "iframe":
            given = {name: value or "" for name, value in attrs}
            self.sandbox, self.page = set(given["sandbox"].split()), given["srcdoc"]


def test_search(seeded: Commands) -> None:
    shown = seeded("projects", "search", "Löffel Zwetschgen").output
    assert shown.startswith("Löffelglück: Zwetschgenkuchen  ")
    assert "\n  page: " in shown
    german = ("projects", "search", "Löffeln Zwetschge", "--user", "bastian.federkiel@example.org")
    found = seeded(*german, "--json").json
    assert [hit["project"]["name"] for hit in found["hits"]] == ["Löffelglück: Zwetschgenkuchen"]
    owner = found["hits"][0]["project"]["user_id"]
    assert seeded("projects", "search", "zwetschgen", "--user", owner, "--json").json["hits"]
    others = seeded("projects", "search", "zwetschgen", "--user", "mio.kumonoha@example.net")
    assert others.output == "Nothing was found.\n"
    first = seeded("projects", "search", "page", "--limit", "1", "--json").json
    assert f"More: --after {first['next']}" in seeded("projects", "search", "page", "--limit", "1").output
    second = seeded("projects", "search", "page", "--limit", "1", "--after", first["next"], "--json").json
    assert second["hits"] != first["hits"]
    assert "after is not a cursor" in seeded.error("projects", "search", "page", "--after", "x")


def test_what_is_found_is_shown_as_text(command: Commands, settings: Settings) -> None:
    store(settings, codes=1, name="Mine", code=f"<p>kestrel {HOSTILE}", description=HOSTILE)
    for words in ("kestrel", "bold"):
        shown = command("projects", "search", words).output
        assert "Mine  " in shown
        assert not [character for character in shown if not character.isprintable() and character != "\n"]
        assert not [line for line in shown.splitlines() if line.startswith("Error")]
