"""What a client sends straight to the storage is seen by nobody before it was verified."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import httpx
import pytest

from data_layer import DataLayer, Project, User
from data_layer.api.app import create_app
from data_layer.errors import (
    ContentMismatchError,
    CorruptFileError,
    FileNotFoundInStorageError,
    FileTooLargeError,
    FileTypeMismatchError,
    FileTypeNotAllowedError,
    InvalidValueError,
    NotFoundError,
)
from data_layer.schemas.actors import SYSTEM
from data_layer.schemas.files import Attachment, DirectUpload
from tests.file_content import PAGE, picture

from .conftest import keys, rows, with_thumbnails

PICTURE = picture(size=(600, 400))


@pytest.fixture
async def client(data: DataLayer) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(create_app(data), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        yield client


async def begin(data: DataLayer, owner: User, content: bytes = PICTURE, **options: Any) -> DirectUpload:
    announced: dict[str, Any] = {"content_type": "image/png", "size": len(content)} | options
    return await data.files.begin_upload(owner_id=owner.id, **announced)


async def send(client: httpx.AsyncClient, upload: DirectUpload, content: bytes = PICTURE) -> httpx.Response:
    return await client.request(upload.method, upload.url, content=content, headers=upload.headers)


def key_of(upload: DirectUpload) -> str:
    return upload.url.partition("?")[0].partition("/v1/files/")[2]


async def test_a_direct_upload(data: DataLayer, owner: User, project: Project, client: httpx.AsyncClient) -> None:
    upload = await begin(
        data, owner, sha256=hashlib.sha256(PICTURE).hexdigest(), file_name="a.png",
        attached_to=Attachment(project_id=project.id),
    )  # fmt: skip
    assert (await send(client, upload)).status_code == 201
    for look in (data.files.stat, data.files.download):
        with pytest.raises(NotFoundError):
            await look(upload.id, owner_id=owner.id)
    assert await data.files.list(owner_id=owner.id) == []

    file = await with_thumbnails(data, await data.files.complete_upload(upload.id, owner_id=owner.id))

    assert (file.id, file.file_name, file.project_id) == (upload.id, "a.png", project.id)
    assert (file.width, file.height, len(file.thumbnails), file.reference_count) == (600, 400, 1, 1)
    assert await data.files.download(file.id, owner_id=owner.id) == PICTURE
    assert await data.files.complete_upload(upload.id, owner_id=owner.id) == file
    assert await keys(data) == sorted([file.key, file.thumbnails[0].key]), "nothing is left where it waited"
    assert await rows(data) == (2, 1)
    await data.files.delete(file.id, owner_id=owner.id)
    assert await keys(data) == []


async def test_what_is_sent_after_completion_changes_nothing(
    data: DataLayer, owner: User, client: httpx.AsyncClient
) -> None:
    upload = await begin(data, owner)
    await send(client, upload)
    file = await data.files.complete_upload(upload.id, owner_id=owner.id)
    answer = await send(client, upload)
    assert (answer.status_code, answer.json()["code"]) == (403, "signature_invalid")
    assert not [key for key in await keys(data) if key.startswith("uploads/")]
    await data.storage.upload(PAGE, key_of(upload), "image/png")  # S3 and Azure take it until the URL expires.
    assert await data.files.download(file.id, owner_id=owner.id) == PICTURE
    report = await data.file_maintenance.cleanup(SYSTEM, apply=True, older_than=timedelta(seconds=-1))
    assert report.orphans == 1
    assert not [key for key in await keys(data) if key.startswith("uploads/")]


async def test_the_same_bytes_again_are_stored_once(data: DataLayer, owner: User, client: httpx.AsyncClient) -> None:
    saved = await with_thumbnails(data, await data.files.save(PICTURE, owner_id=owner.id))
    upload = await begin(data, owner)
    await send(client, upload)
    file = await data.files.complete_upload(upload.id, owner_id=owner.id)
    assert (file.key, file.reference_count) == (saved.key, 2)
    assert len(await keys(data)) == 2


async def test_completing_it_twice_at_once(data: DataLayer, owner: User, client: httpx.AsyncClient) -> None:
    upload = await begin(data, owner)
    await send(client, upload)
    files = await asyncio.gather(*(data.files.complete_upload(upload.id, owner_id=owner.id) for _ in range(3)))
    assert {file.id for file in files} == {upload.id}
    file = await with_thumbnails(data, await data.files.stat(upload.id, owner_id=owner.id))
    assert file.reference_count == 1
    assert await keys(data) == sorted([file.key, file.thumbnails[0].key])


@pytest.mark.parametrize(
    "case",
    [
        (PICTURE[:-1], {}, ContentMismatchError),
        (PICTURE + b"!", {}, FileTooLargeError),
        (bytes(len(PICTURE)), {}, FileTypeNotAllowedError),
        (PICTURE[:40] + bytes(len(PICTURE) - 40), {}, CorruptFileError),
        (PICTURE, {"sha256": "0" * 64}, ContentMismatchError),
        (PICTURE, {"content_type": "image/gif"}, FileTypeMismatchError),
        (PAGE, {"size": len(PAGE)}, FileTypeMismatchError),
    ],
)
async def test_what_does_not_fit_is_removed(
    data: DataLayer, owner: User, client: httpx.AsyncClient, case: tuple[bytes, dict[str, Any], type[Exception]]
) -> None:
    content, announced, error = case
    upload = await begin(data, owner, **announced)
    if len(content) == announced.get("size", len(PICTURE)):
        assert (await send(client, upload, content)).status_code == 201
    else:  # Here it is refused on arrival; a server like Azure's takes it.
        await data.storage.upload(content, key_of(upload), "image/png")
    with pytest.raises(error):
        await data.files.complete_upload(upload.id, owner_id=owner.id)
    assert await keys(data) == []
    assert await rows(data) == (0, 0)
    with pytest.raises(NotFoundError):
        await data.files.complete_upload(upload.id, owner_id=owner.id)


async def test_what_follows_the_end_of_an_image_is_cut_off(
    data: DataLayer, owner: User, client: httpx.AsyncClient
) -> None:
    upload = await begin(data, owner, size=len(PICTURE + PAGE))
    assert (await send(client, upload, PICTURE + PAGE)).status_code == 201
    file = await data.files.complete_upload(upload.id, owner_id=owner.id)
    assert file.size == len(PICTURE)
    assert await data.files.download(file.id, owner_id=owner.id) == PICTURE


async def test_what_is_announced_is_refused_at_once(data: DataLayer, owner: User) -> None:
    refused: list[tuple[dict[str, Any], type[Exception]]] = [
        ({"size": 0}, InvalidValueError),
        ({"size": 2_000_001}, FileTooLargeError),
        ({"content_type": "application/pdf"}, FileTypeNotAllowedError),
        ({"content_type": "nonsense"}, FileTypeNotAllowedError),
        ({"sha256": "nonsense"}, InvalidValueError),
        ({"file_name": 5}, InvalidValueError),
    ]
    for announced, error in refused:
        with pytest.raises(error):
            await begin(data, owner, **announced)
    assert await rows(data) == (0, 0)


async def test_completing_before_anything_has_arrived_may_be_repeated(
    data: DataLayer, owner: User, client: httpx.AsyncClient
) -> None:
    upload = await begin(data, owner)
    with pytest.raises(FileNotFoundInStorageError, match="nothing has arrived"):
        await data.files.complete_upload(upload.id, owner_id=owner.id)
    await send(client, upload)
    assert (await data.files.complete_upload(upload.id, owner_id=owner.id)).size == len(PICTURE)


async def test_abandoned_uploads_are_removed(data: DataLayer, owner: User, client: httpx.AsyncClient) -> None:
    sent, unsent = await begin(data, owner), await begin(data, owner)
    await send(client, sent)
    long_ago = timedelta(hours=-1)  # The URLs end within the hour: an hour before their end is now.
    assert (await data.file_maintenance.cleanup(SYSTEM, older_than=long_ago)).abandoned == 2
    assert (await data.file_maintenance.cleanup(SYSTEM, apply=True)).abandoned == 0, "too young"
    assert (await data.file_maintenance.cleanup(SYSTEM, apply=True, older_than=long_ago)).abandoned == 2
    assert await keys(data) == []
    assert await rows(data) == (0, 0)
    for upload in (sent, unsent):
        with pytest.raises(NotFoundError):
            await data.files.complete_upload(upload.id, owner_id=owner.id)


async def test_an_upload_can_be_given_up(data: DataLayer, owner: User, client: httpx.AsyncClient) -> None:
    upload = await begin(data, owner)
    await send(client, upload)
    assert await data.files.delete(upload.id, owner_id=owner.id) is True
    assert await keys(data) == []
    assert await rows(data) == (0, 0)


@pytest.mark.parametrize("change", ["method", "key", "content type", "signature", "expires", "another file"])
async def test_the_url_works_for_nothing_else(
    data: DataLayer, owner: User, client: httpx.AsyncClient, change: str
) -> None:
    upload = await begin(data, owner)
    saved = await data.files.save(PICTURE, owner_id=owner.id)
    url, method, headers = upload.url, "PUT", dict(upload.headers)
    key = url.partition("?")[0].rpartition("uploads/")[2]
    match change:
        case "method":
            method = "GET"
        case "key":
            url = url.replace(key, f"{key}0")
        case "content type":
            headers["content-type"] = "text/html"
        case "signature":
            url = url[:-2] + ("AA" if url[-2:] != "AA" else "BB")
        case "expires":
            url = url.replace("expires=1", "expires=2")
        case "another file":
            url = url.replace(f"uploads/{key}", saved.key)
    answer = await client.request(method, url, content=b"content", headers=headers)
    assert answer.status_code == 403
    assert answer.json()["code"] == "signature_invalid"
    assert await data.files.download(saved.id, owner_id=owner.id) == PICTURE


@pytest.mark.parametrize("is_chunked", [True, False])
@pytest.mark.parametrize(("size", "status"), [(-1, 422), (0, 201), (1, 413), (40_000_000, 413)])
async def test_exactly_the_announced_number_of_bytes_is_taken(
    data: DataLayer, owner: User, client: httpx.AsyncClient, size: int, status: int, *, is_chunked: bool
) -> None:
    upload = await begin(data, owner)
    assert upload.headers["content-length"] == str(len(PICTURE))
    content, taken = (PICTURE + bytes(max(size, 0)))[: len(PICTURE) + size], 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal taken
        for start in range(0, len(content), 100_000):
            taken = start
            yield content[start : start + 100_000]

    headers = {"content-type": "image/png"}
    answer = await client.put(upload.url, content=chunks() if is_chunked else content, headers=headers)
    assert answer.status_code == status
    assert taken < 10_000_000, "reading stops where there is too much"
    assert (key_of(upload) in await keys(data)) is (status == 201)
    if status == 201:
        assert (await data.files.complete_upload(upload.id, owner_id=owner.id)).size == len(PICTURE)


async def test_a_body_that_is_too_large_is_refused_while_it_arrives(
    data: DataLayer, owner: User, client: httpx.AsyncClient
) -> None:
    upload = await begin(data, owner)

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(30):
            yield bytes(100_000)

    answer = await client.put(upload.url, content=chunks(), headers={"content-type": "image/png"})
    announced = await client.put(upload.url, content=bytes(2_000_001), headers={"content-type": "image/png"})
    for refused in (answer, announced):
        assert (refused.status_code, refused.json()["code"]) == (413, "file_too_large")
    assert await keys(data) == []
