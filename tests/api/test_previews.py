"""Pages of variants as browsers get them, on the service's own host and on one of their own, and pictures."""

from __future__ import annotations

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
from tests.api.test_variants import PAGE, VARIANTS, Clients, Story, story, tell
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
    other = await tell(data, people["stranger"])
    assert refused(await owner.get(other.path(0, "thumbnail"))) == (404, "not_found")
