"""The list of projects: cards, search, filters, and what is done with a whole project."""

from __future__ import annotations

import asyncio
import re
from contextlib import aclosing
from html import unescape
from uuid import UUID

import httpx
import pytest
from fastapi import FastAPI

from data_layer import DataLayer
from data_layer.schemas.actors import SYSTEM
from data_layer.schemas.generations import FinishedVariant, GenerationRequest
from data_layer.schemas.projects import ProjectChanges, ProjectDraft
from data_layer.services.view_counts import ViewCounts
from tests.console.conftest import Visitor, visit
from tests.file_content import picture

PROJECTS = "/console/projects"
HOSTILE = "<img src=x onerror=alert(1)>\"'</title><script>alert(1)</script>{{ 7919*7919 }}\u202e"


def names(page: str) -> list[str]:
    return [
        unescape(name) for name in re.findall(r'<h2><a href="/console/projects/[0-9a-f-]{36}">(.*?)</a></h2>', page)
    ]


async def test_cards_show_the_screenshot_and_the_page(data: DataLayer, ann: Visitor) -> None:
    assert "No project yet" in await ann.look(PROJECTS)
    empty = await data.projects.create(ann.actor, ProjectDraft(name="Empty"))
    full = await data.projects.create(ann.actor, ProjectDraft(name="Full"), screenshot=picture("PNG"))
    await data.generations.record(SYSTEM, full.id, GenerationRequest(), [FinishedVariant(code="<h1>Hello</h1>")])
    page = await ann.look(PROJECTS)
    assert names(page) == ["Full", "Empty"]
    assert f'src="/v1/projects/{full.id}/thumbnail"' in page
    frame = re.search(rf'<iframe src="({PROJECTS}/{full.id}/page)" sandbox="allow-scripts"', page)
    assert frame
    assert f"{PROJECTS}/{empty.id}/page" not in page
    shown = await ann.client.get(frame[1])
    assert shown.text == "<h1>Hello</h1>"
    assert shown.headers["content-security-policy"].startswith("sandbox allow-scripts")
    assert "frame-ancestors 'self'" in shown.headers["content-security-policy"]
    assert (await ann.client.get(f"{PROJECTS}/{empty.id}/page")).text == ""
    image = await ann.client.get(f"/v1/projects/{full.id}/thumbnail", follow_redirects=True)
    assert image.headers["content-type"].startswith("image/")


async def test_a_project_from_its_card_to_the_trash_and_back(ann: Visitor) -> None:
    created = await ann.send(PROJECTS, name=" Shop ")
    path = created.partition("?")[0]
    project = path.rpartition("/")[2]
    assert created.endswith("done=project_created")
    back = f"{PROJECTS}?q=&view="
    assert await ann.send(f"{path}/favorite", is_favorite="yes", back=back) == back
    assert names(await ann.look(f"{PROJECTS}?view=favorites")) == ["Shop"]
    await ann.send(f"{path}/favorite", is_favorite="no")
    assert "No favourites yet" in await ann.look(f"{PROJECTS}?view=favorites")

    archived = await ann.send(f"{path}/archive")
    page = await ann.look(archived)
    assert "in the archive now" in page
    assert f'action="/console/projects/{project}/unarchive"' in page
    assert names(page) == []
    assert names(await ann.look(f"{PROJECTS}?view=archive")) == ["Shop"]
    await ann.send(f"{path}/unarchive")

    deleted = await ann.send(f"{path}/delete", back=f"{PROJECTS}?order=name")
    assert deleted == f"{PROJECTS}?order=name&done=project_deleted&id={project}"
    assert f'action="/console/projects/{project}/undelete"' in await ann.look(deleted)
    assert names(await ann.look(f"{PROJECTS}?view=trash")) == ["Shop"]
    await ann.send(f"{path}/undelete")
    assert names(await ann.look(PROJECTS)) == ["Shop"]
    copy = (await ann.send(f"{path}/clone")).partition("?")[0]
    assert copy not in {path, PROJECTS}
    assert len(names(await ann.look(PROJECTS))) == 2


async def test_a_name_that_cannot_be_is_asked_for_again(ann: Visitor) -> None:
    answer = await ann.client.post(PROJECTS, data={"name": "x" * 300})
    assert answer.status_code == 422
    assert 'role="alert"' in answer.text
    assert f'value="{"x" * 300}"' in answer.text


async def test_pages_of_the_list_hold_each_project_once(data: DataLayer, ann: Visitor) -> None:
    for number in range(30):
        await data.projects.create(ann.actor, ProjectDraft(name=f"Project {number:02}"))
    first = await ann.look(f"{PROJECTS}?order=name")
    more = re.search(r'<a class="button" href="([^"]+)" hx-get', first)
    assert more
    second = await ann.look(unescape(more[1]))
    assert names(first) + names(second) == [f"Project {number:02}" for number in range(30)]
    assert "Show more" not in second


async def test_a_search_marks_what_it_has_found(data: DataLayer, ann: Visitor) -> None:
    await data.projects.create(ann.actor, ProjectDraft(name="Larkspur", description="violet <b>flowers</b> & more"))
    await data.projects.create(ann.actor, ProjectDraft(name="Other"))
    page = await ann.look(f"{PROJECTS}?q=flowers")
    assert names(page) == ["Larkspur"]
    assert "violet &lt;b&gt;<mark>flowers</mark>&lt;/b&gt; &amp; more" in page
    assert "Nothing found" in await ann.look(f"{PROJECTS}?q=nowhere")


async def test_hostile_names_are_text(data: DataLayer, ann: Visitor) -> None:
    await data.projects.create(
        ann.actor, ProjectDraft(name=HOSTILE[:200], description=HOSTILE, tags=["<b>tag</b>", "'\"onload=x"])
    )
    for path in (PROJECTS, f"{PROJECTS}?q=alert", f"{PROJECTS}?q=%3Cscript%3E&order=%22%3E%3Cb%3E"):
        page = await ann.look(path)
        assert names(page) in ([HOSTILE[:200]], [])
        assert not re.search(r"<script(?!\ssrc=)|<img src=x|<b>|62710561", page.partition("<main")[2])


async def test_nobody_sees_or_changes_what_belongs_to_others(data: DataLayer, app: FastAPI, ann: Visitor) -> None:
    path = (await ann.send(PROJECTS, name="Mine")).partition("?")[0]
    project = UUID(path.rpartition("/")[2])
    await data.generations.record(SYSTEM, project, GenerationRequest(), [FinishedVariant(code="private")])
    ben = await visit(data, app, "ben")
    async with aclosing(ben.client):
        assert names(await ben.look(PROJECTS)) == []
        for action in ("favorite", "archive", "unarchive", "delete", "undelete", "clone"):
            assert (await ben.client.post(f"{path}/{action}")).status_code == 404
        shown = await ben.client.get(f"{path}/page")
        assert (shown.status_code, shown.text) == (200, "")
    assert names(await ann.look(PROJECTS)) == ["Mine"]


async def test_a_star_is_set_whatever_a_cache_says(
    data: DataLayer, ann: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = await data.projects.create(ann.actor, ProjectDraft(name="Shop"))
    stale = await data.projects.open(ann.actor, project.id)
    await data.projects.update(ann.actor, project.id, ProjectChanges(name="New"), expected=stale.revision)

    async def open_stale(*_: object, **__: object) -> object:
        return stale

    with monkeypatch.context() as patch:
        patch.setattr(type(data.projects), "open", open_stale)
        async with asyncio.timeout(20):
            await ann.send(f"{PROJECTS}/{project.id}/favorite", is_favorite="yes")
    now = await data.projects.open(ann.actor, project.id)
    assert (now.name, now.is_favorite) == ("New", True)


async def test_only_the_page_of_a_project_is_a_view(
    data: DataLayer, ann: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = await data.projects.create(ann.actor, ProjectDraft(name="Shop"))
    await data.generations.record(SYSTEM, project.id, GenerationRequest(), [FinishedVariant(code="<h1>Hello</h1>")])
    counted: list[str] = []

    def count(_: object, entity: type, __: UUID) -> None:
        counted.append(entity.__name__)

    monkeypatch.setattr(ViewCounts, "count", count)
    path = f"{PROJECTS}/{project.id}"
    await ann.look(PROJECTS)
    assert await ann.look(f"{path}/page") == "<h1>Hello</h1>"
    for tab in ("replay", "images", "shares", "settings"):
        await ann.look(f"{path}/{tab}")
    await ann.send(f"{path}/favorite", is_favorite="yes")
    assert counted == []
    await ann.look(path)
    assert counted == ["Project"]

    # Where pages have a host of their own, the frame of a card counts nothing there either.
    monkeypatch.setattr(data, "settings", data.settings.replaced(preview_origin="https://pages.example.net"))
    signed = await ann.client.get(f"{path}/page")
    assert signed.status_code == 307
    address = httpx.URL(signed.headers["location"])
    code_id, values = UUID(address.path.rpartition("/")[2]), address.params
    shown = await data.previews.open(code_id, int(values["expires"]), values["signature"])
    assert (shown, counted) == ("<h1>Hello</h1>", ["Project"])
    counting = httpx.URL((await data.previews.sign(ann.actor, code_id)).path).params
    await data.previews.open(code_id, int(counting["expires"]), counting["signature"])
    assert counted == ["Project", "GeneratedCode"]
