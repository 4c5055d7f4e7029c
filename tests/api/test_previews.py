"""Pages of variants as browsers get them, on the service's own host and on one of their own, and pictures."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from data_layer import DataLayer, Settings
from data_layer.api.app import create_app
from data_layer.errors import ConfigurationError
from data_layer.schemas.files import Attachment
from data_layer.services import previews
from tests.api.test_projects import PROJECTS, client_of, owner, people, refused
from tests.api.test_variants import PAGE, VARIANTS, Clients, Story, make_story, story
from tests.file_content import picture

__all__ = ["owner", "people", "story"]

PAGES = "https://pages.example.net"


def shown_alone(answer: httpx.Response) -> None:
    policy = dict(each.partition(" ")[::2] for each in answer.headers["content-security-policy"].split("; "))
    assert "allow-scripts" in policy["sandbox"].split()
    assert not {"allow-same-origin", "allow-popups", "allow-top-navigation"} & set(policy["sandbox"].split())
    assert (policy["form-action"], policy["base-uri"]) == ("'none'", "'none'")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert answer.headers["cache-control"] == "no-store"
    assert "set-cookie" not in answer.headers


async def test_a_page_is_shown_where_the_service_is(people: Clients, story: Story) -> None:
    path = story.path(0, "preview")
    answer = await people["owner"].get(path)
    assert answer.text == PAGE
    shown_alone(answer)
    assert "frame-ancestors 'self'" in answer.headers["content-security-policy"]
    assert refused(await people["nobody"].get(path)) == (401, "session_invalid")
    for name in ("stranger", "moderator"):
        assert refused(await people[name].get(path)) == (404, "not_found")
    assert (await people["moderator"].get(path, params={"reason": "a report"})).text == PAGE
    signed: dict[str, Any] = {"expires": 2**33, "signature": "0" * 64}
    assert refused(await people["owner"].get(f"/p/{story.variants[0]}", params=signed)) == (404, "not_found")


async def test_a_page_is_shown_on_a_host_of_its_own(
    data: DataLayer, people: Clients, story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "settings", data.settings.replaced(preview_origin=PAGES))
    app, path = create_app(data), story.path(0, "preview")
    authorization = {"authorization": people["owner"].headers["authorization"]}
    stranger = {"authorization": people["stranger"].headers["authorization"]}
    async with client_of(app, {}) as client:
        assert refused(await client.get(path, headers=stranger)) == (404, "not_found")
        answer = await client.get(path, headers=authorization)
        assert (answer.status_code, answer.headers["cache-control"]) == (307, "no-store")
        url = answer.headers["location"]
        assert url.startswith(f"{PAGES}/p/{story.variants[0]}?expires=")
        page = await client.get(url)
        assert page.text == PAGE
        shown_alone(page)
        assert (await client.head(url)).headers["content-security-policy"] == page.headers["content-security-policy"]
        assert (await client.get(url, headers={"host": "PAGES.example.net:443"})).text == PAGE

        # Not on the service's own host; and nothing else is there on this one, not even with a login.
        elsewhere = url.removeprefix(PAGES)
        assert refused(await client.get(elsewhere)) == (404, "not_found")
        for other in (path, "/", "/docs", "/v1/accounts/me", "/livez", "/a/x.png", "/p", "/v1/sessions"):
            assert refused(await client.get(f"{PAGES}{other}", headers=authorization)) == (404, "not_found"), other
        assert (await client.get("/v1/accounts/me", headers=authorization)).status_code == 200

        expires, signature = httpx.URL(url).params["expires"], httpx.URL(url).params["signature"]
        for code_id, values in (
            (story.variants[1], {"expires": expires, "signature": signature}),
            (story.variants[0], {"expires": str(int(expires) + 1), "signature": signature}),
            (story.variants[0], {"expires": expires, "signature": "0" * 64}),
            (str(uuid4()), {"expires": expires, "signature": signature}),
            (story.variants[0], {"expires": expires, "signature": "é"}),
        ):
            forged = await client.get(f"{PAGES}/p/{code_id}", params=values)
            assert refused(forged) == (403, "signature_invalid"), values
        for missing in ({}, {"expires": expires}, {"expires": "-1", "signature": signature}, {"expires": "x"}):
            assert (await client.get(f"{PAGES}/p/{story.variants[0]}", params=missing)).status_code == 422
        monkeypatch.setattr(previews, "LIFETIME", timedelta(seconds=-1))
        ended = (await client.get(path, headers=authorization)).headers["location"]
        assert refused(await client.get(ended)) == (403, "signature_invalid")
        await people["owner"].delete(f"{PROJECTS}/{story.project}")
        assert refused(await client.get(url)) == (404, "not_found")


async def test_a_page_is_shown_as_it_was(
    data: DataLayer, people: Clients, story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = people["owner"]
    variant = await written(owner, story.project)
    replay = (await owner.get(f"{VARIANTS}/{variant}/replay")).json()
    assert (replay["code_id"], replay["status"], replay["is_known"]) == (variant, "completed", True)
    assert replay["steps"][0] == {"at": replay["steps"][0]["at"]} | {
        "start": 0,
        "end": 0,
        "text": "é<p>",
        "length": 4,
        "is_gap": False,
    }
    assert replay["steps"][-1] == {"at": replay["steps"][-1]["at"]} | {
        "start": 2,
        "end": 1,
        "text": "b",
        "length": 4,
        "is_gap": False,
    }
    assert [(each["sequence"], each["kind"], each["payload"]) for each in replay["events"]] == [
        (2, "thinking", {"a": 1})
    ]
    first, last = replay["steps"][0]["at"], replay["steps"][-1]["at"]
    path = f"{VARIANTS}/{variant}/preview"
    for at, page in ((first, "é<p>"), (last - 1, "é<p>"), (last, "é<b>"), (2**50, "é<b>")):
        answer = await owner.get(path, params={"at": at})
        assert answer.text == page
        shown_alone(answer)
    assert refused(await people["stranger"].get(path, params={"at": first})) == (404, "not_found")
    assert refused(await people["stranger"].get(f"{VARIANTS}/{variant}/replay")) == (404, "not_found")
    assert (await owner.get(path, params={"at": -1})).status_code == 422
    unknown = await owner.get(story.path(0, "preview"), params={"at": 0})
    assert refused(unknown) == (404, "growth_unknown")
    assert (await owner.get(story.path(0, "replay"))).json()["is_known"] is False
    assert (await owner.get(f"{VARIANTS}/{variant}")).json()["view_count"] == 0

    monkeypatch.setattr(data, "settings", data.settings.replaced(preview_origin=PAGES))
    authorization = {"authorization": owner.headers["authorization"]}
    async with client_of(create_app(data), {}) as client:
        url = (await client.get(path, params={"at": first}, headers=authorization)).headers["location"]
        assert (await client.get(url)).text == "é<p>"
        # What was signed is this moment, and no other one.
        for forged in (url.replace(f"&at={first}", f"&at={last}"), url.replace(f"&at={first}", "")):
            assert refused(await client.get(forged)) == (403, "signature_invalid")
        now = (await client.get(path, headers=authorization)).headers["location"]
        assert refused(await client.get(f"{now}&at={first}")) == (403, "signature_invalid")


async def written(owner: httpx.AsyncClient, project: str) -> str:
    """A variant that was streamed over HTTP, in batches."""
    started = (await owner.post("/v1/generations", json={"project_id": project})).json()
    path, writer = f"/v1/generations/{started['id']}", {"writer-token": started["writer_token"]}
    pieces = [{"type": "text", "text": "é<p>"}, {"type": "event", "kind": "thinking", "payload": {"a": 1}}]
    for number, batch in enumerate((pieces, [{"type": "code", "code": "é<b>"}])):
        body = {"variant": 0, "sequence": 1 + 2 * number, "pieces": batch}
        assert (await owner.post(f"{path}/events", json=body, headers=writer)).is_success
        await asyncio.sleep(0.01)
    assert (await owner.put(f"{path}/variants/0", json={"status": "completed"}, headers=writer)).is_success
    return str(started["variant_ids"][0])


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("https://Pages.Example.net:443/", "https://pages.example.net"),
        ("http://[::1]:81", "http://[::1]:81"),
        ("https://pages.example.net/x", None),
        ("https://a:b@pages.example.net", None),
        ("pages.example.net", None),
        ("https://pages.example.net?x", None),
        ("ftp://pages.example.net", None),
        ("https://app.example.com:444", None),
    ],
)
def test_the_origin_of_pages(given: str, kept: str | None, tmp_path: Path) -> None:
    values: dict[str, Any] = {"preview_origin": given, "public_url": "https://app.example.com", "data_folder": tmp_path}
    if kept is not None:
        assert Settings(**values).service.preview_origin == kept
        return
    with pytest.raises(ConfigurationError, match="PREVIEW_ORIGIN"):
        Settings(**values)


async def test_pictures_are_where_the_answer_says(data: DataLayer, people: Clients, story: Story) -> None:
    owner = people["owner"]
    for path in (f"{PROJECTS}/{story.project}/thumbnail", story.path(0, "thumbnail")):
        assert refused(await owner.get(path)) == (404, "picture_missing")
        assert refused(await people["stranger"].get(path)) == (404, "not_found")
    owner_id = UUID((await owner.get("/v1/accounts/me")).json()["id"])
    image = picture("png", (64, 48))
    attached_to = Attachment(code_id=UUID(story.variants[0]))
    await data.files.save(image, owner_id=owner_id, attached_to=attached_to)
    found = await owner.get(story.path(0, "thumbnail"))
    assert found.status_code == 307
    assert (await people["nobody"].get(found.headers["location"])).content == image
    assert refused(await owner.get(f"{VARIANTS}/{uuid4()}/thumbnail")) == (404, "not_found")
    other = await make_story(data, people["stranger"])
    assert refused(await owner.get(other.path(0, "thumbnail"))) == (404, "not_found")
