"""The pages of one project: versions, page, code, differences, requests, shares, and what is done with them."""

from __future__ import annotations

import asyncio
import io
import json
import re
import zipfile
from contextlib import aclosing
from dataclasses import dataclass
from decimal import Decimal
from html import unescape
from pathlib import Path
from uuid import UUID

import pytest
from fastapi import FastAPI

from data_layer import DataLayer
from data_layer.console.differences import LONGEST_SHOWN, blocks_of
from data_layer.console.version_tree import picture_of
from data_layer.console.views import project as project_views
from data_layer.entities.enums import CodeStack, GenerationProvider
from data_layer.errors import DatabaseError
from data_layer.schemas.actors import SYSTEM
from data_layer.schemas.files import Attachment
from data_layer.schemas.generations import (
    CodePiece,
    FinishedVariant,
    GenerationRequest,
    Piece,
    VariantEvent,
    VariantModel,
)
from data_layer.schemas.projects import ProjectDraft
from data_layer.schemas.usage import NewUsage
from data_layer.services.transfer.archives import read_archive
from tests.console.conftest import Visitor, visit
from tests.file_content import picture

HOSTILE = "</pre><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7919*7919 }}"
OLD = "<main>\n  <h1>Old title</h1>\n  <p>same</p>\n</main>\n"
NEW = "<main>\n  <h1>New title</h1>\n  <p>same</p>\n  <p>more & more</p>\n</main>\n"


@dataclass(frozen=True, slots=True)
class Made:
    """A project with two versions, of which the second one has two variants."""

    path: str
    id: UUID
    first: UUID
    second: UUID
    other: UUID


@pytest.fixture
async def made(data: DataLayer, ann: Visitor) -> Made:
    project = await data.projects.create(ann.actor, ProjectDraft(name="Shop", description=HOSTILE))
    generations, model = data.generations, VariantModel(provider=GenerationProvider.CLAUDE, name="model-1")
    first = await generations.record(
        ann.actor, project.id, GenerationRequest(prompt=HOSTILE), [FinishedVariant(code=OLD, model=model)]
    )
    request = GenerationRequest(prompt="Make it new", full_prompt="All of it", parent_id=first.variant_ids[0])
    second = await generations.record(
        ann.actor, project.id, request, [FinishedVariant(code=NEW), FinishedVariant(code=HOSTILE)]
    )
    return Made(f"/console/projects/{project.id}", project.id, *first.variant_ids, *second.variant_ids)


def shown(page: str) -> str:
    """What a page holds of its own, without the frame around it."""
    return page.partition("<main")[2].partition("</main>")[0]


def is_clean(page: str) -> bool:
    return not re.search(r"<script(?!\ssrc=)|<img src=x|62710561", page.partition("<body")[2])


async def test_a_project_shows_its_versions_and_the_page_of_the_selected_one(made: Made, ann: Visitor) -> None:
    page = await ann.look(made.path)
    assert f'<iframe class="live" src="/v1/variants/{made.second}/preview" sandbox="allow-scripts' in page
    assert "allow-same-origin" not in page
    assert page.count("<circle") == 3
    assert len(re.findall(r'<path class="edge', page)) == 2
    assert "Make it new" in page
    assert "All of it" in page
    assert "Restore this version" not in page
    first = await ann.look(f"{made.path}?v=1")
    assert f"/v1/variants/{made.first}/preview" in first
    assert "model-1" in first
    assert "Restore this version" in first
    assert is_clean(first)
    assert unescape(re.findall(r'<blockquote class="prompt">(.*?)</blockquote>', first)[0]) == HOSTILE
    assert f"/v1/variants/{made.other}/preview" in await ann.look(f"{made.path}?v=2&i=1")
    for wrong in ("?v=3", "?v=2&i=2", "/code?v=9"):
        await ann.look(f"{made.path}{wrong}", 404)
    await ann.look(f"{made.path}?v=x", 422)


async def test_code_is_text_with_marks(made: Made, ann: Visitor) -> None:
    page = await ann.look(f"{made.path}/code?v=2&i=0")
    assert '<span class="c-nt">main</span>' in page
    assert "style=" not in page
    hostile = await ann.look(f"{made.path}/code?v=2&i=1")
    assert is_clean(hostile)
    (lines,) = re.findall(r'<div class="code".*?</div>', hostile, re.DOTALL)
    assert unescape(re.sub(r"<[^>]*>", "", lines)).strip() == HOSTILE


async def test_of_a_long_code_the_beginning_is_shown(data: DataLayer, made: Made, ann: Visitor) -> None:
    code = "<p>x</p>\n" * 580_000
    await data.generations.record(ann.actor, made.id, GenerationRequest(), [FinishedVariant(code=code)])
    page = await ann.look(f"{made.path}/code")
    assert "This is the beginning" in page
    assert len(page) < 12 * LONGEST_SHOWN


@pytest.mark.parametrize("view", ["split", "inline"])
async def test_two_versions_are_compared_line_by_line(made: Made, ann: Visitor, view: str) -> None:
    page = await ann.look(f"{made.path}/compare?v=2&i=0&view={view}")
    assert f'value="{made.first}" selected' in page
    assert '<span class="badge good">+2</span><span class="badge bad">\u22121</span>' in page
    removed = re.findall(r'class="removed"><code>(.*?)</code>', page)
    added = re.findall(r'class="added"><code>(.*?)</code>', page)
    assert len(removed) == 1
    assert "<mark>Old</mark> title" in removed[0]
    assert "<mark>New</mark> title" in added[0]
    assert "more &amp; more" in added[1]
    hostile = await ann.look(f"{made.path}/compare?v=2&i=1&against={made.second}&view={view}")
    assert is_clean(hostile)


async def test_two_pages_stand_beside_each_other(made: Made, ann: Visitor) -> None:
    page = await ann.look(f"{made.path}/compare?v=2&i=0&view=pages")
    frames = re.findall(r'<iframe src="/v1/variants/([0-9a-f-]+)/preview" sandbox="allow-scripts"', page)
    assert frames == [str(made.first), str(made.second)]


async def test_what_was_kept_of_a_generation_is_shown_in_its_order(data: DataLayer, made: Made, ann: Visitor) -> None:
    started = await data.generations.start(ann.actor, made.id, GenerationRequest(prompt="Again"), [VariantModel()])
    token = started.writer_token
    pieces: list[Piece] = [VariantEvent("thinking", {"text": HOSTILE}), CodePiece("<p>")]
    edited = {"name": "edit_file", "input": {"new_text": HOSTILE, "old_text": "", "lines": [1, {"a": None}]}}
    pieces.append(VariantEvent("toolStart", {"data": edited, "eventId": "call-7"}))
    await data.generations.append(ann.actor, token, 0, 1, *pieces)
    live = await ann.look(f"{made.path}/replay")
    assert f'data-events="/v1/generations/{started.id}/events"' in live
    assert "This version is being made" in await ann.look(made.path)
    cancel = f"{made.path}/generations/{started.id}/cancel"
    assert "What there is of it is kept." in (await ann.client.post(cancel)).text
    assert (await ann.send(cancel, confirmed="yes")).endswith("done=generation_cancelled")
    page = await ann.look(f"{made.path}/replay?v=3")
    assert re.findall(r"<strong>([\w ]+)</strong>", shown(page)) == ["Thoughts", "Tool started"]
    assert is_clean(page)
    named = re.findall(r'<pre class="prompt"><span class="muted">([\w ]+):</span> (.*?)</pre>', page, re.DOTALL)
    assert [name for name, _ in named] == ["text", "name", "input lines", "input new_text"]
    assert [unescape(text) for _, text in named] == [HOSTILE, "edit_file", '[1, {"a": null}]', HOSTILE]
    assert "call-7" not in page
    # Its page as it was, at each step: as a time line with scripts, as a list of links without.
    assert f'data-replay="/v1/variants/{started.variant_ids[0]}/replay"' in page
    steps = re.findall(rf'href="(/v1/variants/{started.variant_ids[0]}/preview\?at=\d+)"', page)
    assert [(await ann.client.get(step)).text for step in steps] == ["<p>"]
    assert "not kept" not in re.sub(r'data-\w+="[^"]*"', "", page)
    # Of what was recorded as a whole nothing is known.
    whole = shown(await ann.look(f"{made.path}/replay?v=2&i=1"))
    assert "How the page grew was not kept" in whole
    assert "data-replay" not in whole
    assert f'<a href="{made.path}/replay?v=2&amp;i=1" aria-current="true">' in whole
    await ann.look(f"{made.path}/replay?v=2&i=7", 404)


async def test_a_version_is_restored_forked_named_and_rated(data: DataLayer, made: Made, ann: Visitor) -> None:
    variant = f"{made.path}/variants/{made.first}"
    back = f"{made.path}?v=1&i=0"
    assert await ann.send(f"{variant}/rename", name=" Light ", back=back) == f"{back}&done=saved"
    await ann.send(f"{variant}/rate", stars="4")
    page = await ann.look(back)
    assert "Version 1 · Light" in page
    assert page.count('aria-pressed="true"') == 4
    await ann.send(f"{variant}/rate", stars="nonsense")
    assert (await data.generations.open_variant(ann.actor, made.first)).rating is None
    generation = (await data.generations.history(ann.actor, made.id))[0].id
    assert f'action="{made.path}/generations/{generation}/select"' in await ann.look(f"{made.path}?v=2&i=1")
    await ann.send(f"{made.path}/generations/{generation}/select", variant="1")
    for wrong in ("", "x", "7", "99999"):
        refused = await ann.client.post(f"{made.path}/generations/{generation}/select", data={"variant": wrong})
        assert refused.status_code == 422
    assert f"/v1/variants/{made.other}/preview" in await ann.look(f"{made.path}?v=2")
    assert (await ann.send(f"{variant}/restore")).endswith("done=variant_restored")
    assert (await data.generations.latest(ann.actor, made.id)).code == OLD
    fork = await ann.send(f"{variant}/fork")
    assert made.path not in fork
    assert (await data.generations.latest(ann.actor, UUID(fork.split("/")[3].partition("?")[0]))).code == OLD


async def test_a_share_is_shown_once_and_ends_when_it_is_revoked(data: DataLayer, made: Made, ann: Visitor) -> None:
    fields = {"version": "1", "expires": "7"}
    answer = await ann.client.post(f"{made.path}/shares", data=fields, headers={"host": "evil.example.net"})
    assert answer.status_code == 201
    assert "evil.example.net" not in answer.text
    (link,) = re.findall(rf'id="link" readonly value="{re.escape(data.settings.base_url)}(/s/[^"]+)"', answer.text)
    assert (await ann.client.get(link)).text == OLD
    page = await ann.look(f"{made.path}/shares")
    assert link not in page
    (revoke,) = re.findall(rf'action="({made.path}/shares/[0-9a-f-]+/revoke)"', page)
    asked = await ann.client.post(revoke)
    assert "End this link for good?" in asked.text
    await ann.send(revoke, confirmed="yes")
    assert (await ann.client.get(link)).status_code == 404


async def test_a_change_of_somebody_else_is_not_lost(made: Made, ann: Visitor) -> None:
    form = await ann.look(f"{made.path}/settings")
    (revision,) = re.findall(r'name="revision" value="(\d+)"', form)
    fields = {"name": "First", "description": "", "instructions": "", "tags": "a, b,,", "revision": revision}
    assert (await ann.send(f"{made.path}/settings", **fields)).endswith("done=saved")
    outdated = await ann.client.post(f"{made.path}/settings", data=fields | {"name": "Second"})
    assert outdated.status_code == 412
    assert "it is called “First” now" in outdated.text
    assert 'value="Second"' in outdated.text
    (newer,) = re.findall(r'name="revision" value="(\d+)"', outdated.text)
    await ann.send(f"{made.path}/settings", **fields | {"name": "Second", "revision": newer})
    assert (await ann.client.post(f"{made.path}/settings", data=fields | {"name": ""})).status_code == 412
    (newest,) = re.findall(r'name="revision" value="(\d+)"', await ann.look(f"{made.path}/settings"))
    empty = await ann.client.post(f"{made.path}/settings", data=fields | {"name": "", "revision": newest})
    assert (empty.status_code, 'role="alert"' in empty.text) == (422, True)


async def test_what_a_project_has_cost_is_added_up(
    data: DataLayer, made: Made, ann: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        usage = NewUsage(
            key=str(number), provider="p", model="m", cost=Decimal(2), project_id=made.id, code_id=made.second
        )
        await data.usage.record(ann.actor, usage)
    # The costs of variants are those of the last entries, but the sum is that of all.
    monkeypatch.setattr(project_views, "_MOST_ENTRIES", 2)
    page = await ann.look(made.path)
    assert "<dt>Cost in all</dt>" in page
    assert re.findall(r"\$\d+\.\d\d", page) == ["$4.00", "$6.00"]

    async def fail(*_: object, **__: object) -> None:
        raise DatabaseError("down")

    monkeypatch.setattr(type(data.usage), "entries", fail)
    assert (await ann.client.get(made.path)).status_code >= 500


async def test_all_versions_come_as_an_archive(data: DataLayer, made: Made, ann: Visitor, tmp_path: Path) -> None:
    await data.files.save(picture("PNG"), owner_id=ann.id, attached_to=Attachment(project_id=made.id))
    answer = await ann.client.get(f"{made.path}/download")
    assert answer.headers["content-disposition"] == 'attachment; filename="Shop.zip"'
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        assert archive.read("codes/0001-0.html").decode() == OLD
        assert archive.read("codes/0002-1.html").decode() == HOSTILE
        described = json.loads(archive.read("project.json"))
        assert archive.read(described["files"][0]["path"]) == picture("PNG")
    assert [each["prompt"] for each in described["generations"]] == [HOSTILE, "Make it new"]
    file = tmp_path / "shop.zip"
    await asyncio.to_thread(file.write_bytes, answer.content)
    content, part = await asyncio.to_thread(read_archive, file)
    content.close()
    assert part["project"]["id"] == str(made.id)


async def test_to_others_a_project_is_like_a_missing_one(data: DataLayer, app: FastAPI, made: Made) -> None:
    ben = await visit(data, app, "ben")
    async with aclosing(ben.client):
        for part in ("", "/code", "/compare", "/replay", "/images", "/shares", "/settings", "/download"):
            page = await ben.look(f"{made.path}{part}", 404)
            assert "Shop" not in page
        own = (await ben.send("/console/projects", name="Own")).partition("?")[0]
        generation = (await data.generations.history(SYSTEM, made.id))[0].id
        chosen = await ben.client.post(f"{own}/generations/{generation}/select", data={"variant": "1"})
        assert chosen.status_code == 404
        for action in ("restore", "fork", "rename", "rate"):
            answer = await ben.client.post(f"{own}/variants/{made.first}/{action}", data={"stars": "1", "name": "x"})
            assert answer.status_code == 404
        assert (await ben.client.post(f"{made.path}/shares")).status_code == 404


async def test_differences_keep_every_line(data: DataLayer, made: Made, ann: Visitor) -> None:
    before = "\n".join(f"line {number}" for number in range(60))
    after = before.replace("line 3\n", "").replace("line 30\n", "line thirty\nline more\n") + "\nlast"
    project = made.id
    one = await data.generations.record(ann.actor, project, GenerationRequest(), [FinishedVariant(code=before)])
    two = await data.generations.record(ann.actor, project, GenerationRequest(), [FinishedVariant(code=after)])
    diff = await data.generations.compare(ann.actor, two.variant_ids[0], one.variant_ids[0])
    blocks, is_whole = await asyncio.to_thread(blocks_of, diff)
    assert is_whole
    lines = {"old": before.split("\n"), "new": after.split("\n")}
    for block in blocks:
        for row in block.rows:
            for name, side in (("old", row.old), ("new", row.new)):
                if side is not None:
                    assert "".join(span.text for span in side.spans) == lines[name][side.number - 1]
        kinds = [side.kind for side in block.in_line()]
        assert kinds.count("added") + kinds.count("removed") > 0
    changed = [side for block in blocks for side in block.in_line() if side.kind != "same"]
    assert len(changed) == diff.added_lines + diff.removed_lines


async def test_the_picture_joins_each_variant_with_what_it_was_made_from(
    data: DataLayer, made: Made, ann: Visitor
) -> None:
    generations = await data.generations.history(ann.actor, made.id)
    picture = picture_of(generations, made.other)
    assert {(node.version, node.variant) for node in picture.nodes} == {(1, 0), (2, 0), (2, 1)}
    assert [is_ancestor for _, is_ancestor in picture.edges] == [False, True]
    assert all(0 < node.x < picture.width and 0 < node.y < picture.height for node in picture.nodes)
    assert generations[0].variants[0].code_stack is CodeStack.HTML_TAILWIND
