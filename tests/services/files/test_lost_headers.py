"""A storage that was copied, and has lost what stood beside the bytes: the rows know it, and decide."""

from __future__ import annotations

import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import httpx
import pytest

from data_layer import DataLayer, Settings, StorageKind, User
from data_layer.api.app import create_app
from data_layer.errors import DamagedFileError
from data_layer.schemas.actors import SYSTEM
from data_layer.schemas.files import FileView
from data_layer.services.files.check import Problem
from data_layer.testing.storage_servers import AzuriteServer
from tests.file_content import PAGE, picture
from tests.storage_servers import bucket_settings, settings_stored_in

from .conftest import keys, with_thumbnails

HOUR = timedelta(hours=1)
PICTURE = picture(size=(300, 300))
HEADERS = ("content_type", "content_encoding", "cache_control")


@pytest.fixture(params=["local", "s3_moto", "azure"])
def settings(request: pytest.FixtureRequest, settings: Settings) -> Settings:
    return settings_stored_in(request, settings)


@pytest.fixture(scope="module")
def trust() -> ssl.SSLContext:
    return httpx.create_ssl_context()


@asynccontextmanager
async def browser(data: DataLayer, trust: ssl.SSLContext) -> AsyncIterator[httpx.AsyncClient]:
    """Goes to the server that a signed URL leads to: that of the storage, or this service."""
    options: dict[str, Any] = {"verify": trust}
    if data.settings.storage.storage_backend == "local":
        options = {"transport": httpx.ASGITransport(create_app(data), raise_app_exceptions=False)}
    async with httpx.AsyncClient(base_url="http://service", **options) as client:
        yield client


async def lose_headers(data: DataLayer) -> None:
    """As a copy without attributes does; on the disk as ``rsync`` does, which keeps the times."""
    for key in await keys(data):
        if data.settings.storage.storage_backend == "local":
            path = data.settings.storage.local_storage_path / key
            kept = path.stat()
            content = path.read_bytes()
            path.unlink()
            path.write_bytes(content)
            os.utime(path, ns=(kept.st_atime_ns, kept.st_mtime_ns))
        else:
            await data.storage.upload(await data.storage.download(key), key, "application/octet-stream")


async def saved(data: DataLayer, owner: User) -> list[tuple[FileView, bytes]]:
    return [(await data.files.save(content, owner_id=owner.id, file_name="ä"), content) for content in (PAGE, PICTURE)]


async def test_what_is_read_is_what_was_saved(data: DataLayer, owner: User, trust: ssl.SSLContext) -> None:
    files = await saved(data, owner)
    await lose_headers(data)
    async with browser(data, trust) as client:
        for file, content in files:
            async with data.files.open(file.id, owner_id=owner.id) as opened:
                assert b"".join([chunk async for chunk in opened.chunks]) == content
                found = opened.information
                assert (found.content_type, found.content_encoding) == (file.content_type, None)
                assert (found.size, found.sha256) == (len(content), file.sha256)
            signed = await data.files.signed_url(file.id, owner_id=owner.id, expires_in=HOUR)
            answer = await client.get(signed.url)
            assert (answer.status_code, answer.content) == (200, content)
            assert answer.headers.get("content-encoding") == file.encoding
            assert answer.headers["content-type"].partition(";")[0] == file.content_type
            assert answer.headers["cache-control"].startswith("private, max-age=3")
            assert "filename*=UTF-8''%C3%A4" in answer.headers["content-disposition"]
            part = await client.get(signed.url, headers={"range": "bytes=0-19", "accept-encoding": "gzip"})
            assert part.status_code == 206
            assert part.headers["content-range"] == f"bytes 0-19/{file.stored_size}"


@pytest.mark.parametrize("settings", ["local"], indirect=True)
async def test_a_url_of_the_storage_itself_is_answered_by_the_row_too(
    data: DataLayer, owner: User, trust: ssl.SSLContext
) -> None:
    files = await saved(data, owner)
    await lose_headers(data)
    async with browser(data, trust) as client:
        for file, content in files:
            signed = await data.storage.signed_url(file.key, expires_in=HOUR)
            for accepted in ("gzip", "identity"):
                answer = await client.get(signed.url, headers={"accept-encoding": accepted})
                assert (answer.status_code, answer.content) == (200, content)
                assert answer.headers["content-type"].partition(";")[0] == file.content_type


async def test_check_finds_it_and_repairs_it(data: DataLayer, owner: User) -> None:
    files = await saved(data, owner)
    await with_thumbnails(data, files[1][0])
    before = {key: await data.storage.stat(key) for key in await keys(data)}
    assert len(before) == 3, "a page, a picture and its thumbnail"
    assert (await data.file_maintenance.check(SYSTEM)).findings == ()
    await lose_headers(data)
    for deep in (False, True):
        report = await data.file_maintenance.check(SYSTEM, deep=deep)
        assert {(finding.problem, finding.key) for finding in report.findings} == {
            (Problem.WRONG_HEADERS, key) for key in before
        }
        assert not report.is_clean
    repaired = await data.file_maintenance.check(SYSTEM, repair=True)
    assert [finding.is_repaired for finding in repaired.findings] == [True] * 3
    assert repaired.is_clean
    assert (await data.file_maintenance.check(SYSTEM, deep=True)).findings == ()
    for key, was in before.items():
        there = await data.storage.stat(key)
        for name in (*HEADERS, "size", "sha256", "metadata"):
            assert getattr(there, name) == getattr(was, name), (key, name)
    for file, content in files:
        assert await data.files.download(file.id, owner_id=owner.id) == content


async def test_what_was_decompressed_by_a_copy_is_refused_found_and_repaired(
    data: DataLayer, owner: User, trust: ssl.SSLContext
) -> None:
    file = await data.files.save(PAGE, owner_id=owner.id)
    await data.storage.upload(PAGE, file.key, "text/html", cache_control="private, max-age=3600")
    with pytest.raises(DamagedFileError, match="storage check"):
        await data.files.download(file.id, owner_id=owner.id)
    if data.settings.storage.storage_backend == "local":
        signed = await data.files.signed_url(file.id, owner_id=owner.id, expires_in=HOUR)
        async with browser(data, trust) as client:
            for headers in ({}, {"range": "bytes=0-9"}):
                answer = await client.get(signed.url, headers=headers)
                assert answer.status_code == 500
                assert PAGE[:9] not in answer.content
    [finding] = (await data.file_maintenance.check(SYSTEM)).findings
    assert (finding.problem, finding.is_repaired) == (Problem.WRONG_SIZE, False)
    assert (await data.file_maintenance.check(SYSTEM, repair=True)).is_clean
    assert (await data.file_maintenance.check(SYSTEM, deep=True)).findings == ()
    assert await data.files.download(file.id, owner_id=owner.id) == PAGE


async def test_what_cannot_be_repaired_stays_as_it_is(data: DataLayer, owner: User) -> None:
    page, image = [file for file, _ in await saved(data, owner)]
    damaged = {
        image.key: bytes(image.stored_size),
        page.key: bytes(page.stored_size),
    }
    for key, content in damaged.items():
        await data.storage.upload(content, key, "text/plain")
    for changed in (damaged, {image.key: b"short", page.key: PAGE[:-1] + b"!"}):
        for key, content in changed.items():
            await data.storage.upload(content, key, "text/plain")
        report = await data.file_maintenance.check(SYSTEM, repair=True)
        assert [finding.is_repaired for finding in report.findings] == [False, False]
        for key, content in changed.items():
            assert await data.storage.download(key) == content


@pytest.mark.parametrize("settings", ["local"], indirect=True)
async def test_a_migration_says_what_the_rows_say(
    data: DataLayer, owner: User, settings: Settings, azurite_server: AzuriteServer
) -> None:
    files = await saved(data, owner)
    damaged = await data.files.save(picture(color=(1, 2, 3), size=(100, 100)), owner_id=owner.id)
    before = {file.key: await data.storage.stat(file.key) for file, _ in files}
    await lose_headers(data)
    await data.storage.upload(b"short", damaged.key, "image/png")
    moved = settings.replaced(storage_second_backend="azure", **bucket_settings(azurite_server))
    async with DataLayer(moved) as both:
        report = await both.file_maintenance.migrate(StorageKind.AZURE)
        assert report.damaged == (damaged.key,)
    async with DataLayer(moved.replaced(storage_backend="azure")) as there:
        for key, was in before.items():
            stored = await there.storage.stat(key)
            assert [getattr(stored, name) for name in HEADERS] == [getattr(was, name) for name in HEADERS]
        for file, content in files:
            assert await there.files.download(file.id, owner_id=owner.id) == content
