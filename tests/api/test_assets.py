"""Assets over HTTP: sent in a form, in a data URL and straight to the storage; read, published and deleted."""

from __future__ import annotations

import base64
import io
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from PIL import Image

from data_layer import DataLayer
from tests.api.test_projects import create, people, refused
from tests.file_content import picture
from tests.services.fetching.site import Site, answer, make_fetcher

__all__ = ["people"]

ASSETS = "/v1/assets"
PICTURE = picture("png", (640, 480))
Clients = dict[str, httpx.AsyncClient]


def data_url(content: bytes = PICTURE) -> str:
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


async def test_an_asset_from_its_beginning_to_its_end(people: Clients) -> None:
    owner, stranger = people["owner"], people["stranger"]
    by_form = await owner.post(ASSETS, files={"file": ("Ö/shop.png", PICTURE, "image/png")})
    assert by_form.status_code == 201, by_form.text
    asset, path = by_form.json(), by_form.headers["location"]
    assert (asset["content_type"], asset["size"], asset["width"]) == ("image/png", len(PICTURE), 640)
    assert "/" not in asset["file_name"]
    by_url = await owner.post(ASSETS, json={"url": data_url(), "file_name": "again.png"})
    assert (by_url.status_code, by_url.json()["sha256"]) == (201, asset["sha256"])

    content = await owner.get(f"{path}/content")
    assert (content.status_code, content.headers["cache-control"]) == (307, "no-store")
    assert (await people["nobody"].get(content.headers["location"])).content == PICTURE
    small = await owner.get(f"{path}/content", params={"thumbnail": 100})
    shown = await people["nobody"].get(small.headers["location"])
    assert shown.headers["content-type"] == "image/webp"
    assert max(Image.open(io.BytesIO(shown.content)).size) < 640

    published = await owner.post(f"{path}/publish")
    assert (await owner.post(f"{path}/publish")).json() == published.json()
    assert (await people["nobody"].get(published.json()["url"])).content == PICTURE

    seen, url = [], f"{ASSETS}?limit=2"
    while url:
        page = await owner.get(url)
        seen += [each["id"] for each in page.json()["assets"]]
        url = page.links["next"]["url"] if "next" in page.links else ""
    assert seen == [asset["id"], by_url.json()["id"], published.json()["id"]]
    assert (await stranger.get(ASSETS)).json()["assets"] == []
    for other in (stranger.get(path), stranger.get(f"{path}/content"), stranger.post(f"{path}/publish")):
        assert refused(await other) == (404, "not_found")
    assert refused(await stranger.delete(path)) == (404, "not_found")
    assert (await owner.delete(path)).status_code == 204
    assert refused(await owner.delete(path)) == (404, "not_found")
    assert (await people["nobody"].get(published.json()["url"])).content == PICTURE


async def test_a_direct_upload(people: Clients) -> None:
    owner, stranger = people["owner"], people["stranger"]
    begun = await owner.post(f"{ASSETS}/uploads", json={"content_type": "image/png", "size": len(PICTURE)})
    assert begun.status_code == 201, begun.text
    upload = begun.json()
    complete = f"{ASSETS}/uploads/{upload['id']}/complete"
    assert refused(await owner.post(complete)) == (404, "file_not_found")
    sent = await people["nobody"].request(upload["method"], upload["url"], headers=upload["headers"], content=PICTURE)
    assert sent.status_code == 201, sent.text
    assert refused(await stranger.post(complete)) == (404, "not_found")
    completed = await owner.post(complete)
    assert (completed.status_code, completed.json()["id"]) == (200, upload["id"])
    assert (await owner.post(complete)).json() == completed.json()
    too_large = await owner.post(f"{ASSETS}/uploads", json={"content_type": "image/png", "size": 2**52})
    assert refused(too_large) == (413, "file_too_large")


REFUSED: list[tuple[dict[str, Any], int, str]] = [
    ({"json": {}}, 422, "invalid_value"),
    ({"json": {"url": "data:image/png,x"}}, 422, "invalid_value"),
    ({"json": {"url": "http://127.0.0.1:1/x.png"}}, 422, "url_invalid"),
    ({"json": {"url": "file:///etc/passwd"}}, 422, "url_invalid"),
    ({"json": {"url": data_url(), "owner_id": "x"}}, 422, "request_invalid"),
    ({"content": b"{", "headers": {"content-type": "application/json"}}, 422, "request_invalid"),
    ({"content": b"x", "headers": {"content-type": "text/plain"}}, 415, "unsupported_media_type"),
    ({"content": b"--x", "headers": {"content-type": "multipart/form-data"}}, 400, "bad_request"),
    ({"content": b"--", "headers": {"content-type": "multipart/form-data; boundary=x"}}, 422, "request_invalid"),
    ({"files": {"file": ("a.png", b"<svg onload=alert(1)>", "image/png")}}, 422, "file_type_mismatch"),
    ({"files": {"other": ("a.png", PICTURE, "image/png")}}, 422, "request_invalid"),
    ({"files": [("file", ("a.png", PICTURE)), ("file", ("b.png", PICTURE))]}, 400, "bad_request"),
    ({"files": {"file": ("a.png", PICTURE)}, "data": {"data": '{"url": "data:"}'}}, 422, "invalid_value"),
    ({"files": {"file": ("a.png", PICTURE)}, "data": {"data": "[]"}}, 422, "request_invalid"),
    ({"files": {"file": ("a.png", PICTURE)}, "data": {"file_name": "x"}}, 422, "request_invalid"),
    ({"data": {"file": "text"}, "files": {"data": ("a", b"{}")}}, 422, "request_invalid"),
]


async def test_what_is_no_asset(people: Clients) -> None:
    for request, status, code in REFUSED:
        answer = await people["owner"].post(ASSETS, **request)
        assert refused(answer) == (status, code), (request, answer.text)
    assert (await people["owner"].get(ASSETS)).json()["assets"] == []


async def test_a_form_is_read_no_further_than_allowed(data: DataLayer, people: Clients) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        yield b'--x\r\ncontent-disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
        while True:
            sent += 2**20
            yield bytes(2**20)

    answer = await people["owner"].post(
        ASSETS, content=endless(), headers={"content-type": "multipart/form-data; boundary=x"}
    )
    assert refused(answer) == (413, "content_too_large")
    assert sent <= data.settings.storage.max_file_size + 2**21
    assert (await people["owner"].get(ASSETS)).json()["assets"] == []


async def test_a_url_is_fetched_at_once(data: DataLayer, people: Clients, monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site()
    async with site.serving():
        site.answers["/x.png?sig=secret"] = answer(PICTURE)
        monkeypatch.setattr(data.files, "_fetcher", make_fetcher(site))
        url = f"http://images.test:{site.port}/x.png?sig=secret"
        kept = await people["owner"].post(ASSETS, json={"url": url})
        missing = await people["owner"].post(ASSETS, json={"url": url.replace("x.png", "y.png")})
    assert (kept.status_code, kept.json()["size"]) == (201, len(PICTURE))
    assert "secret" not in kept.text
    assert missing.status_code == 422


async def test_images_of_a_project(people: Clients) -> None:
    owner, stranger, moderator = people["owner"], people["stranger"], people["moderator"]
    images = f"/v1/projects/{(await create(owner))['id']}/images"
    facts = '{"prompt": "a shop", "model": "any", "kind": "extracted"}'
    made = await owner.post(images, files={"file": ("a.png", PICTURE, "image/png")}, data={"data": facts})
    assert made.status_code == 201, made.text
    image, path = made.json(), made.headers["location"]
    assert (image["prompt"], image["width"], image["kind"]) == ("a shop", 640, "extracted")
    other = await owner.post(images, json={"url": data_url(picture("png", (32, 32))), "provider": "other"})
    assert other.status_code == 201, other.text

    page = await owner.get(images, params={"limit": 1})
    assert [each["id"] for each in page.json()["images"]] == [other.json()["id"]]
    last = await owner.get(page.links["next"]["url"])
    assert ([each["id"] for each in last.json()["images"]], last.json()["next"]) == ([image["id"]], None)

    tag = (await owner.get(path)).headers["etag"]
    assert refused(await owner.patch(path, json={"name": "x"})) == (428, "precondition_required")
    changed = await owner.patch(path, json={"name": " Shop ", "is_favorite": True}, headers={"if-match": tag})
    assert (changed.json()["name"], changed.json()["is_favorite"]) == ("Shop", True)
    late = await owner.patch(path, json={"name": "x"}, headers={"if-match": tag})
    assert (*refused(late), late.json()["current"]["name"]) == (412, "changed_meanwhile", "Shop")
    unnamed = await owner.patch(path, json={"name": None}, headers={"if-match": changed.headers["etag"]})
    assert (unnamed.json()["name"], unnamed.json()["is_favorite"]) == (None, True)
    rated = await owner.put(f"{path}/rating", json={"stars": 4, "is_good": True})
    assert (rated.json()["rating"], rated.json()["feedback"]) == (4, {"thumb": "up"})
    assert (await owner.put(f"{path}/rating", json={"stars": 6})).status_code == 422
    favorites = await owner.get(images, params={"is_favorite": "true"})
    assert [each["id"] for each in favorites.json()["images"]] == [image["id"]]

    for kind, size in (("content", 640), ("thumbnail?size=100", None)):
        redirect = await owner.get(f"{path}/{kind}")
        shown = await people["nobody"].get(redirect.headers["location"])
        width = Image.open(io.BytesIO(shown.content)).width
        assert width == size if size else 100 <= width < 640
    assert (await moderator.get(path, params={"reason": "a report"})).status_code == 200
    published = (await owner.post(f"{path}/publish")).json()
    assert (await people["nobody"].get(published["url"])).content == PICTURE
    for each in (stranger.get(path), stranger.get(images), stranger.get(f"{path}/content"), stranger.delete(path)):
        assert refused(await each) == (404, "not_found")
    for each in (stranger.post(images, json={"url": data_url()}), stranger.put(f"{path}/rating", json={})):
        assert refused(await each) == (404, "not_found")
    assert (await owner.delete(path)).status_code == 204
    assert refused(await owner.get(path)) == (404, "not_found")


async def test_a_screenshot_comes_along_as_a_file(people: Clients) -> None:
    owner = people["owner"]
    made = await owner.post(
        "/v1/projects", files={"file": ("shop.png", PICTURE)}, data={"data": '{"name": "Shop", "tags": ["a"]}'}
    )
    assert made.status_code == 201, made.text
    project = made.json()
    assert (project["name"], project["tags"], project["original_image_filename"]) == ("Shop", ["a"], "shop.png")
    twice = await owner.post(
        "/v1/projects",
        files={"file": ("shop.png", PICTURE)},
        data={"data": f'{{"name": "x", "screenshot": "{data_url()}"}}'},
    )
    assert refused(twice) == (422, "invalid_value")
