"""Variants over HTTP by their ids, and a project reopened with all of them."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import httpx
import pytest

from data_layer import DataLayer
from data_layer.schemas.actors import SYSTEM
from data_layer.schemas.generations import FinishedGeneration, FinishedVariant, GenerationRequest, TreeCode
from data_layer.services.generations import trees
from tests.api.test_projects import create, owner, people, refused
from tests.file_content import picture

__all__ = ["owner", "people"]

Clients = dict[str, httpx.AsyncClient]
VARIANTS = "/v1/variants"
LOCAL = "/local-assets/logo-1a.png"
PAGE = "<!doctype html>\n<script>steal()</script>\n<p>é 🙂</p>\n"


class Story(NamedTuple):
    """A project of two versions: the second one changes the first variant of the first one."""

    project: str
    variants: list[str]

    def path(self, place: int, *rest: str) -> str:
        return "/".join((VARIANTS, self.variants[place], *rest))


async def make_story(data: DataLayer, owner: httpx.AsyncClient) -> Story:
    project = (await create(owner))["id"]
    found: list[str] = []
    for codes in ((PAGE, "<b>other</b>"), (PAGE.replace("🙂", "🙃"),)):
        parent = UUID(found[0]) if found else None
        request = GenerationRequest(prompt="a shop", parent_id=parent, inputs={"images": ["a"]})
        variants = [FinishedVariant(code=code) for code in codes]
        recorded = await data.generations.record(SYSTEM, UUID(project), request, variants)
        found += map(str, recorded.variant_ids)
    return Story(project, found)


@pytest.fixture
async def story(data: DataLayer, owner: httpx.AsyncClient) -> Story:
    return await make_story(data, owner)


async def test_a_saved_page_names_living_images(data: DataLayer, people: Clients) -> None:
    """The code stays as it came; the file has permanent addresses, with the host, and shows its images anywhere."""
    owner, project = people["owner"], (await create(people["owner"]))["id"]
    code = f'<img src="http://localhost:7001{LOCAL}"><img src="https://example.com/other.png">☃'
    recorded = await data.generations.record(
        SYSTEM, UUID(project), GenerationRequest(), [FinishedVariant(code=code), FinishedVariant(code="<b>none</b>")]
    )
    path = f"{VARIANTS}/{recorded.variant_ids[0]}/code"
    before = await owner.get(path, params={"download": "true"})
    assert before.text == code, "nothing is kept yet"
    content = picture("JPEG")
    assert await data.pages.keep(SYSTEM, UUID(project), LOCAL, content)
    saved = await owner.get(path, params={"download": "true"})
    [address] = re.findall(r'src="([^"#]+)#', saved.text)
    assert saved.text == code.replace(f"http://localhost:7001{LOCAL}", f"{address}#{recorded.variant_ids[0]}")
    assert address.startswith("http")
    assert saved.headers["etag"] == f'"{hashlib.sha256(saved.content).hexdigest()}"' != before.headers["etag"]
    assert saved.headers["content-disposition"].startswith("attachment")
    image = await people["nobody"].get(address)
    assert (image.status_code, image.content, image.headers["content-type"]) == (200, content, "image/jpeg")

    plain = await owner.get(path)
    assert (plain.text, "content-disposition" in plain.headers) == (code, False)
    known = await owner.get(path, params={"download": "true"}, headers={"if-none-match": saved.headers["etag"]})
    assert (known.status_code, known.content) == (304, b"")
    assert (await owner.head(path, params={"download": "true"})).headers["etag"] == saved.headers["etag"]
    without = await owner.get(f"{VARIANTS}/{recorded.variant_ids[1]}/code", params={"download": "true"})
    assert without.text == "<b>none</b>"
    assert (await owner.get(path.removesuffix("/code"))).json()["download_count"] == 2

    assert refused(await people["stranger"].get(path, params={"download": "true"})) == (404, "not_found")
    for_a_reason = {"download": "true", "reason": "a report"}
    assert (await people["moderator"].get(path, params=for_a_reason)).text == saved.text
    # What is kept lives on in the saved page of a copy, whatever becomes of the original.
    copy = (await owner.post(f"/v1/projects/{project}/clone", json={})).json()["id"]
    [generation] = (await owner.get(f"/v1/projects/{copy}/tree")).json()["generations"]
    copied = await owner.get(f"{VARIANTS}/{generation['variants'][0]['id']}/code", params={"download": "true"})
    [other] = re.findall(r'src="([^"#]+)#', copied.text)
    assert other != address
    assert (await people["nobody"].get(other)).content == content


async def test_a_project_is_reopened_in_one_call(people: Clients, story: Story) -> None:
    owner, path = people["owner"], f"/v1/projects/{story.project}/tree"
    answer = await owner.get(path)
    tree = answer.json()
    assert tree["project"] == (await owner.get(f"/v1/projects/{story.project}")).json() | {
        name: tree["project"][name] for name in ("view_count", "last_viewed_at")
    }
    second, first = tree["generations"]
    assert [each["number"] for each in (second, first)] == [2, 1]
    assert (second["inputs"], second["status"], second["prompt"]) == ({"images": ["a"]}, "completed", "a shop")
    assert second["variants"][0]["parent_id"] == first["variants"][0]["id"] == story.variants[0]
    assert [each["code"] for each in first["variants"]] == [PAGE, None]
    everything = (await owner.get(path, params={"code": "all"})).json()
    assert [each["code"] for each in everything["generations"][1]["variants"]] == [PAGE, "<b>other</b>"]
    nothing = await owner.get(path, params={"code": "none"})
    assert PAGE not in nothing.text
    assert {each["code"] for one in nothing.json()["generations"] for each in one["variants"]} == {None}
    assert (await owner.head(path)).headers["etag"] == answer.headers["etag"] != nothing.headers["etag"]

    # What nobody has changed is not sent again; whatever changes brings another tag.
    tags = {answer.headers["etag"]}
    known = await owner.get(path, headers={"if-none-match": answer.headers["etag"]})
    assert (known.status_code, known.content) == (304, b"")
    generation = first["id"]
    assert (await owner.get(f"/v1/generations/{generation}")).json()["inputs"] == {"images": ["a"]}
    changes: list[tuple[str, str, Any]] = [
        ("PUT", f"/v1/generations/{generation}/selection", {"variant": 1}),
        ("PUT", story.path(1, "feedback"), {"stars": 3}),
        ("POST", story.path(1, "restore"), None),
        ("POST", f"/v1/projects/{story.project}/archive", None),
    ]
    for method, place, body in changes:
        assert (await owner.request(method, place, json=body)).is_success
        changed = await owner.get(path, headers={"if-none-match": answer.headers["etag"]})
        assert changed.status_code == 200
        tags.add(changed.headers["etag"])
    assert len(tags) == 5
    assert refused(await people["stranger"].get(path)) == (404, "not_found")
    assert refused(await people["moderator"].get(f"/v1/generations/{generation}")) == (404, "not_found")
    assert (await people["moderator"].get(path, params={"reason": "a report"})).status_code == 200
    assert refused(await owner.get(path, params={"code": "some"})) == (422, "request_invalid")


async def test_a_tree_is_read_in_bounded_pieces(
    data: DataLayer, people: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More generations than a page has, and more code than is read at once; the reader stops in the middle."""
    owner = people["owner"]
    project = (await create(owner))["id"]
    generations = [
        FinishedGeneration(
            request=GenerationRequest(), variants=(FinishedVariant(code=f"{number}" * 3000), FinishedVariant(code="b"))
        )
        for number in range(60)
    ]
    await data.generations.import_many(SYSTEM, UUID(project), generations)
    monkeypatch.setattr(trees, "_BATCH_BYTES", 20_000)
    answer = await owner.get(f"/v1/projects/{project}/tree", params={"code": "all"})
    found = answer.json()["generations"]
    assert [each["number"] for each in found] == list(range(60, 0, -1))
    assert [each["variants"][0]["code"] for each in found] == [f"{number}" * 3000 for number in range(59, -1, -1)]
    opened = await data.generations.tree(SYSTEM, UUID(project), code=TreeCode.ALL, reason="test")
    assert (await anext(opened.generations)).number == 60
    await owner.delete(f"/v1/projects/{project}")
    with pytest.raises(Exception, match="no project has the id"):
        [each async for each in opened.generations]


async def test_code_is_text_with_its_hash_as_the_tag(people: Clients, story: Story) -> None:
    owner, path = people["owner"], story.path(0, "code")
    answer = await owner.get(path, headers={"accept-encoding": "identity"})
    assert answer.content == PAGE.encode()
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["etag"] == f'"{hashlib.sha256(PAGE.encode()).hexdigest()}"'
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in answer.headers["content-security-policy"]
    assert "content-disposition" not in answer.headers
    for tag in (answer.headers["etag"], f'"a", W/{answer.headers["etag"]}', "*"):
        known = await owner.get(path, headers={"if-none-match": tag})
        assert (known.status_code, known.content) == (304, b""), tag
    assert (await owner.get(path, headers={"if-none-match": '"a"'})).status_code == 200
    head = await owner.head(path, params={"download": "true"}, headers={"accept-encoding": "identity"})
    assert (head.headers["content-length"], head.content) == (str(len(PAGE.encode())), b"")
    saved = await owner.get(path, params={"download": "1"})
    assert saved.headers["content-disposition"] == 'attachment; filename="version-1.0.html"'
    await owner.post(story.path(0, "copies"))
    shown = (await owner.get(story.path(0))).json()
    assert (shown["download_count"], shown["copy_count"]) == (1, 1)


async def test_a_change_names_what_was_read(people: Clients, story: Story) -> None:
    owner, path = people["owner"], story.path(0)
    shown = await owner.get(path)
    assert shown.json()["code"] == PAGE
    tag = {"if-match": shown.headers["etag"]}
    assert refused(await owner.patch(path, json={"name": "first"})) == (428, "precondition_required")
    answers = await asyncio.gather(*(owner.patch(path, json={"name": f"n{n}"}, headers=tag) for n in range(4)))
    assert sorted(each.status_code for each in answers) == [200, 412, 412, 412]
    [done] = [each for each in answers if each.status_code == 200]
    [problem, *_] = [each.json() for each in answers if each.status_code == 412]
    assert (problem["code"], problem["current"]["name"]) == ("changed_meanwhile", done.json()["name"])
    again = await owner.patch(path, json={"is_favorite": True}, headers={"if-match": done.headers["etag"]})
    assert (again.json()["is_favorite"], again.json()["name"]) == (True, done.json()["name"])
    for wrong in ('"r1"', "*", "a", 'W/"0123456789abcdef"', '"', ""):
        assert (await owner.patch(path, json={"name": "x"}, headers={"if-match": wrong})).status_code == 412, wrong
    bodies: list[Any] = [{"name": ""}, {"name": "x" * 256}, {"name": "\0"}, {"is_favorite": None}, {"code": "x"}, []]
    for body in bodies:
        tag = {"if-match": (await owner.get(path)).headers["etag"]}
        assert (await owner.patch(path, json=body, headers=tag)).status_code == 422, body


async def test_what_a_variant_changes_is_shown_as_json_and_as_text(people: Clients, story: Story) -> None:
    owner, path = people["owner"], story.path(2, "diff")
    found = (await owner.get(path)).json()
    assert (found["old_id"], found["new_id"]) == (story.variants[0], story.variants[2])
    assert (found["added_lines"], found["removed_lines"], len(found["hunks"])) == (1, 1, 1)
    for accept in ("text/x-diff", "text/*;q=0.5, application/json;q=0.1"):
        text = await owner.get(path, headers={"accept": accept})
        assert text.headers["content-type"] == "text/x-diff; charset=utf-8", accept
        assert text.text == found["unified"]
    for accept in ("*/*", "application/json, text/x-diff", "image/png", "text/x-diff;q=0", ";;q=,", ""):
        assert (await owner.get(path, headers={"accept": accept})).json() == found, accept
    other = (await owner.get(path, params={"against": story.variants[1]})).json()
    assert other["old_id"] == story.variants[1]
    rootless = await owner.get(story.path(0, "diff"))
    assert (*refused(rootless), rootless.json()["fields"][0]["field"]) == (422, "invalid_value", "against")
    assert refused(await owner.get(path, params={"against": str(uuid4())})) == (404, "not_found")


async def test_a_variant_is_restored_forked_and_rated(people: Clients, story: Story) -> None:
    owner = people["owner"]
    restored = await owner.post(story.path(1, "restore"))
    assert (restored.status_code, restored.json()["number"]) == (201, 3)
    assert restored.json()["variants"][0]["parent_id"] == story.variants[1]
    forked = await owner.post(story.path(1, "fork"), json={"name": "Mine"})
    assert (forked.status_code, forked.json()["name"]) == (201, "Mine")
    version = (await owner.get(f"{forked.headers['location']}/versions/1")).json()
    assert version["code"] == "<b>other</b>"

    path = story.path(1, "feedback")
    rated = await owner.put(path, json={"stars": 5, "words": "good"})
    assert (rated.json()["rating"], rated.json()["feedback"]) == (5, {"words": "good"})
    rated = await owner.put(path, json={"is_good": False})
    assert (rated.json()["rating"], rated.json()["feedback"]) == (None, {"thumb": "down"})
    for body in ({}, {"stars": 0}, {"stars": 6}, {"words": "x" * 2001}, {"stars": "five"}, {"words": "\0"}):
        assert (await owner.put(path, json=body)).status_code == 422, body
    assert (await owner.get(story.path(1))).json()["feedback"] == {"thumb": "down"}
    assert (await owner.delete(path)).status_code == 204
    assert (await owner.get(story.path(1))).json()["feedback"] == {}


async def test_nobody_else_reaches_a_variant(data: DataLayer, people: Clients, story: Story) -> None:
    owner, stranger, moderator = people["owner"], people["stranger"], people["moderator"]
    calls: list[tuple[str, str, Any]] = [
        ("GET", "", None),
        ("PATCH", "", {"name": "x"}),
        ("GET", "/code", None),
        ("GET", "/diff", None),
        ("POST", "/restore", None),
        ("POST", "/fork", {}),
        ("PUT", "/feedback", {"stars": 1}),
        ("DELETE", "/feedback", None),
        ("POST", "/copies", None),
    ]
    mine = await make_story(data, stranger)
    path, tag = story.path(2), {"if-match": (await owner.get(story.path(2))).headers["etag"]}
    for method, rest, body in calls:
        for client in (stranger, moderator):
            answer = await client.request(method, path + rest, json=body, headers=tag)
            assert refused(answer) == (404, "not_found"), (method, rest)
        missing = await owner.request(method, f"{VARIANTS}/{uuid4()}{rest}", json=body, headers=tag)
        assert refused(missing) == (404, "not_found"), (method, rest)
    for wrong in ("1", "%00", "../projects", "é", story.variants[0] + "x"):
        assert (await owner.get(f"{VARIANTS}/{wrong}/code")).status_code in {404, 422}, wrong
    # A variant of one's own is compared with one's own only.
    assert refused(await stranger.get(mine.path(2, "diff"), params={"against": story.variants[0]}))[0] == 404
    for rest in ("", "/code", "/diff"):
        answer = await moderator.get(path + rest, params={"reason": "a report"})
        assert answer.status_code == 200
        assert refused(await moderator.get(path + rest, params={"reason": " "})) == (422, "invalid_value")
    assert json.loads((await owner.get(path)).text)["name"] is None
    await owner.delete(f"/v1/projects/{story.project}")
    assert refused(await owner.get(path)) == (404, "not_found")
    assert re.fullmatch(r"[0-9a-f-]{36}", story.variants[0])
