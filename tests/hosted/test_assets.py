"""Images of people and of providers: kept once for each person, at addresses that anybody may read for ever."""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import httpx
import pytest

from data_layer import DataLayer
from data_layer.entities.enums import ImageKind, ImageProvider
from data_layer.schemas.actors import SYSTEM
from tests.file_content import TYPES, picture
from tests.services.accounts.support import actions

from .fakes import PUBLIC_URL, BackEnd, Page, data_url, page_code

EXTENSIONS = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp", "GIF": "gif"}


@asynccontextmanager
async def provider(*contents: bytes | int, pause: float = 0) -> AsyncIterator[str]:
    """A provider of images at an address of this machine: it answers with these, one after the other, or a status."""
    left = list(contents)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        content = left.pop(0) if len(left) > 1 else left[0]
        await asyncio.sleep(pause)
        status, body = (200, content) if isinstance(content, bytes) else (content, b"")
        writer.write(f"HTTP/1.1 {status} x\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n".encode() + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/image?signature=secret"


@pytest.fixture
def reach_local(data: DataLayer) -> None:
    """Let providers of the tests be fetched from."""
    fetcher: Any = data.files._fetcher
    fetcher._is_allowed = lambda _address: True
    fetcher._ports = range(1, 65536)


def image_body(back_end: BackEnd, content: str, **more: Any) -> dict[str, Any]:
    return {"data_url": content, "source_type": "user_upload", "user_id": back_end.user_id} | more


def url_body(back_end: BackEnd, url: str, **more: Any) -> dict[str, Any]:
    return {
        "source_url": url,
        "source_type": "generated",
        "source_provider": "replicate",
        "image_generation_model": "flux",
        "generation_group_id": "group-1",
        "user_id": back_end.user_id,
        "variant_index": 1,
        "prompt": "",
    } | more


async def test_the_same_upload_four_times_at_once(back_end: BackEnd, client: httpx.AsyncClient) -> None:
    body = image_body(back_end, data_url(7))
    answers = [
        answer.json()
        for answer in await asyncio.gather(*(back_end.post("/assets/store_image_data", body) for _ in range(4)))
    ]
    assert answers == [answers[0]] * 4
    assert set(answers[0]) == {"asset_id", "public_url"}
    assert UUID(answers[0]["asset_id"])
    url = answers[0]["public_url"]
    assert url.startswith(f"{PUBLIC_URL}/a/")
    assert "?" not in url, "unsigned"
    shown = await client.get(url)
    assert (shown.status_code, shown.headers["content-type"]) == (200, "image/png")
    assert shown.content == base64.b64decode(data_url(7).partition(",")[2])
    assert shown.headers["access-control-allow-origin"], "a page may read it"
    another = await back_end.post("/assets/store_image_data", body | {"user_id": None})
    assert another.json()["public_url"] != url, "the system's is not hers"


@pytest.mark.parametrize("kind", list(EXTENSIONS))
async def test_addresses_have_true_extensions(back_end: BackEnd, client: httpx.AsyncClient, kind: str) -> None:
    content = picture(kind, size=(40, 30))
    lie = "data:image/png;base64," + base64.b64encode(content).decode()
    answer = await back_end.post("/assets/store_image_data", image_body(back_end, lie, source_type="extracted"))
    url = answer.json()["public_url"]
    assert url.endswith(f".{EXTENSIONS[kind]}")
    assert (await client.get(url)).headers["content-type"] == TYPES[kind]


async def test_what_is_refused(back_end: BackEnd) -> None:
    wrong = [
        image_body(back_end, "https://example.com/a.png"),
        image_body(back_end, "data:image/png;base64,AA!!"),
        image_body(back_end, "data:text/html;base64," + base64.b64encode(b"<script>1</script>").decode()),
        image_body(back_end, data_url(1), source_type="stolen"),
        image_body(back_end, data_url(1), user_id=7),
        {"source_type": "user_upload", "user_id": None},
    ]
    for body in wrong:
        answer = await back_end.post("/assets/store_image_data", body)
        assert (answer.status_code, type(answer.json()["detail"])) == (422, str), body
    bodies: list[tuple[Any, int]] = [([], 400), (image_body(back_end, data_url(1), user_id="nobody"), 404)]
    for refused, status in bodies:
        answer = await back_end.post("/assets/store_image_data", refused)
        assert (answer.status_code, type(answer.json()["detail"])) == (status, str)


@pytest.mark.usefixtures("reach_local")
async def test_ten_images_of_a_provider_at_once(back_end: BackEnd, client: httpx.AsyncClient) -> None:
    content = picture("WEBP", size=(64, 64))
    async with provider(content, pause=0.05) as url:
        bodies = [url_body(back_end, url, variant_index=index) for index in range(1, 11)]
        answers = await asyncio.gather(*(back_end.post("/assets/store_image_url", body) for body in bodies))
    [public_url] = {answer.json()["public_url"] for answer in answers}
    assert all(set(answer.json()) == {"public_url"} for answer in answers)
    assert public_url.endswith(".webp")
    assert (await client.get(public_url)).content == content, "it lives on after its provider"


@pytest.mark.usefixtures("reach_local")
@pytest.mark.parametrize("most_known", [1000, 0])
async def test_an_image_of_a_provider_is_one_of_the_project(
    back_end: BackEnd, data: DataLayer, monkeypatch: pytest.MonkeyPatch, most_known: int
) -> None:
    """However many variants show it, and also where the process has forgotten it that heard of it."""
    monkeypatch.setattr("data_layer.hosted.made_images._MOST_KNOWN", most_known)
    async with provider(picture("PNG", size=(64, 32)), picture("PNG", size=(9, 9))) as url:
        said = {"source_provider": "openai", "image_generation_model": "gpt-image-2", "prompt": "a \0 cat"}
        bodies = [url_body(back_end, url, **said), url_body(back_end, url, source_type="background_removed")]
        first, second = [(await back_end.post("/assets/store_image_url", body)).json()["public_url"] for body in bodies]
    uploaded = (await back_end.post("/assets/store_image_data", image_body(back_end, data_url(9)))).json()["public_url"]
    page = page_code(f'<img src="{first}"><img src="{uploaded}"><img src="/a/{"x" * 22}.png">')
    codes = [page, page_code(f'<img src="{first}"><img src="{second}">'), page]
    [code, *_] = await back_end.create("group-1", [], "Make it", codes)
    variant = await data.generations.open_variant(SYSTEM, UUID(code))
    rows = (await data.images.list(SYSTEM, variant.project_id)).images
    images = {row.kind: await data.images.open(SYSTEM, row.id) for row in rows}
    assert len(rows) == 2, "each once, and what was uploaded is none"
    made, cut = images[ImageKind.GENERATED], images[ImageKind.BACKGROUND_REMOVED]
    assert (made.prompt, made.model, made.provider) == ("a \u2400 cat", "gpt-image-2", ImageProvider.OPENAI)
    assert (cut.prompt, cut.model, cut.provider) == ("", "flux", ImageProvider.REPLICATE)
    assert made.metadata == {"generation_group_id": "group-1", "variant_index": 0}
    assert (made.size, made.mime_type, str(made.image_url)) == ("64x32", "image/png", first.removeprefix(PUBLIC_URL))
    assert await data.images.download(SYSTEM, made.id) == picture("PNG", size=(64, 32))
    assert (await actions(data)).count("image_generate") == 2
    # An image that is gone meanwhile costs no page.
    public = next(
        file for file in await data.files.list(owner_id=UUID(back_end.user_id)) if str(file.public_name) in second
    )
    await data.files.delete(public.id, owner_id=UUID(back_end.user_id))
    assert await back_end.store("group-2", 1, [], codes[1])


@pytest.mark.usefixtures("reach_local")
async def test_a_provider_that_stumbles_is_asked_again(back_end: BackEnd) -> None:
    async with provider(500, 503, picture("PNG", size=(8, 8))) as url:
        answer = await back_end.post("/assets/store_image_url", url_body(back_end, url, source_type="edited"))
    assert answer.status_code == 200, answer.text
    async with provider(404) as url:
        answer = await back_end.post("/assets/store_image_url", url_body(back_end, url))
    assert (answer.status_code, type(answer.json()["detail"])) == (422, str)
    assert "secret" not in answer.text


async def test_nothing_inside_is_reached(back_end: BackEnd) -> None:
    async with provider(picture()) as url:
        for target in (
            url,
            "http://169.254.169.254/latest/meta-data",
            "http://localhost/a.png",
            "file:///etc/passwd",
            "x",
        ):
            answer = await back_end.post("/assets/store_image_url", url_body(back_end, target))
            assert (answer.status_code, type(answer.json()["detail"])) == (422, str), target


async def test_an_image_in_a_page_outlives_the_page(
    back_end: BackEnd, client: httpx.AsyncClient, data: DataLayer
) -> None:
    stored = await back_end.post("/assets/store_image_data", image_body(back_end, data_url(3)))
    url = stored.json()["public_url"]
    [code] = await back_end.create("one", [data_url(3)], "Make it", [page_code(f'<img src="{url}">')])
    variant = await data.generations.open_variant(SYSTEM, UUID(code))
    await data.projects.delete(SYSTEM, variant.project_id)
    assert (await client.get(url)).status_code == 200


async def test_pages_are_viewed_with_images_that_live(
    back_end: BackEnd, ann: Page, client: httpx.AsyncClient, data: DataLayer
) -> None:
    """What a code names by an address that ends is shown at a permanent one, and what is shown can be edited."""
    local, content = "/local-assets/logo-1a.png", picture("PNG", size=(30, 20))
    code = page_code(f'<img src="http://localhost:7001{local}"><img src="https://example.com/other.png">')
    [code_id, _] = await back_end.create("one", [], "Make it", [code, page_code("without")])
    variant = await data.generations.open_variant(SYSTEM, UUID(code_id))
    [before] = await ann.projects()
    assert [each["completion"] for each in before["generations"]] == [code, page_code("without")]
    assert await data.pages.keep(SYSTEM, variant.project_id, local, content)
    [shown] = await ann.projects()
    [page, without] = [each["completion"] for each in shown["generations"]]
    [address] = re.findall(r'src="([^"#]+)#', page)
    assert page == code.replace(f"http://localhost:7001{local}", f"{address}#{code_id}")
    assert without == page_code("without")
    assert address.startswith(f"{PUBLIC_URL}/")
    image = await client.get(address)
    assert (image.status_code, image.content) == (200, content)
    assert (await data.generations.open_variant(SYSTEM, UUID(code_id))).code == code, "to the byte"
    # It is opened in their page, and an edit of it comes back.
    file = f'<current_file path="index.html">\n{page.strip()}\n</current_file>'
    messages = [{"role": "user", "content": f"{file}\n<change_request>\nBlue\n</change_request>"}]
    update = {"generation_type": "update", "edit_base_variant_index": 0, "edit_base_generation_type": "code_create"}
    more: dict[str, Any] = {"other_info": update, "is_imported_from_code": True}
    edit_id = await back_end.store("two", 1, messages, page_code("edited"), **more)
    assert (await data.generations.open_variant(SYSTEM, UUID(edit_id))).parent_id == UUID(code_id)
