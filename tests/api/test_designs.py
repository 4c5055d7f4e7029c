"""Design systems over HTTP, as their owner and as a stranger."""

from __future__ import annotations

from uuid import uuid4

import httpx
import pytest

from tests.api.test_projects import people, refused

__all__ = ["people"]

DESIGNS = "/v1/design-systems"


async def test_a_design_system_from_its_beginning_to_its_end(people: dict[str, httpx.AsyncClient]) -> None:
    owner, stranger = people["owner"], people["stranger"]
    created = await owner.post(DESIGNS, json={"name": " Corporate ", "content": "Buttons are round.\n" * 7000})
    assert created.status_code == 422  # More than 128 KiB.
    assert created.json()["fields"][0]["field"] == "content"
    created = await owner.post(DESIGNS, json={"name": " Corporate ", "content": "\x01" * 128 * 1024})
    assert (created.status_code, created.json()["name"]) == (201, "Corporate")
    path = created.headers["location"]
    shown = await owner.get(path)
    assert (shown.json(), shown.headers["etag"]) == (created.json(), created.headers["etag"])

    assert refused(await owner.patch(path, json={"name": "x"})) == (428, "precondition_required")
    for wrong in ('"r1"', "t1", '"t99999999999999999"', '"t\u0661"', "*", 'W/"t1"'):
        answer = await owner.patch(path, json={"name": "x"}, headers=[(b"if-match", wrong.encode())])
        assert answer.status_code == 412, wrong
    first = {"if-match": shown.headers["etag"]}
    changed = await owner.patch(path, json={"content": "Square."}, headers=first)
    assert (changed.json()["name"], changed.json()["content"]) == ("Corporate", "Square.")
    late = await owner.patch(path, json={"name": "x"}, headers=first)
    assert refused(late) == (412, "changed_meanwhile")
    assert late.json()["current"] == changed.json()
    assert refused(await owner.delete(path, headers=first)) == (412, "changed_meanwhile")

    for answer in (
        await stranger.get(path),
        await stranger.patch(path, json={"name": "x"}, headers={"if-match": changed.headers["etag"]}),
        await stranger.delete(path),
        await owner.get(f"{DESIGNS}/{uuid4()}"),
    ):
        assert refused(answer) == (404, "not_found")
    assert (await stranger.get(DESIGNS)).json() == {"design_systems": []}
    assert (await owner.get(DESIGNS)).json() == {"design_systems": [changed.json()]}
    assert (await owner.delete(path, headers={"if-match": changed.headers["etag"]})).status_code == 204
    assert refused(await owner.get(path)) == (404, "not_found")


@pytest.mark.parametrize(
    "body", [{"name": "x"}, {"name": "", "content": ""}, {"name": "\0", "content": ""}, {"name": 1, "content": "x"}]
)
async def test_what_is_no_design_system(people: dict[str, httpx.AsyncClient], body: dict[str, object]) -> None:
    assert (await people["owner"].post(DESIGNS, json=body)).status_code == 422
