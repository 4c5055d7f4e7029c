"""Thumbnails are made after an image was stored: in the background, in time for a reader, or by maintenance."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from data_layer import DataLayer, Settings, User
from data_layer.errors import CorruptFileError, ImageTimeoutError, StorageUnavailableError
from data_layer.schemas.actors import SYSTEM
from data_layer.schemas.files import FileView
from data_layer.services.files import thumbnails
from data_layer.services.files.thumbnails import ThumbnailMaker
from data_layer.storage.validation import InspectedFile, Inspector, Thumbnail
from tests.file_content import PAGE, picture

from .conftest import keys, originals, rows, with_thumbnails

HOUR = timedelta(hours=1)
LARGE = picture(size=(900, 600))


class Decoding:
    """Counts how often thumbnails are decoded, and holds it up while ``may_go_on`` is not set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        decode = Inspector.thumbnails
        self.count = 0
        self.begun = asyncio.Event()
        self.may_go_on = asyncio.Event()
        self.may_go_on.set()
        self.error: Exception | None = None

        async def thumbnails(inspector: Inspector, file: InspectedFile) -> Sequence[Thumbnail]:
            self.count += 1
            self.begun.set()
            await self.may_go_on.wait()
            if self.error is not None:
                raise self.error
            return await decode(inspector, file)

        monkeypatch.setattr(Inspector, "thumbnails", thumbnails)


@pytest.fixture
def decoding(monkeypatch: pytest.MonkeyPatch) -> Decoding:
    return Decoding(monkeypatch)


@asynccontextmanager
async def held_up(decoding: Decoding) -> AsyncIterator[None]:
    decoding.may_go_on.clear()
    try:
        yield
    finally:
        decoding.may_go_on.set()


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images are forgotten as soon as they are stored, as when the process dies then."""
    monkeypatch.setattr(ThumbnailMaker, "add", lambda *_: None)


async def until_made(data: DataLayer, file: FileView) -> FileView:
    async with asyncio.timeout(60):
        while True:
            now = await data.files.stat(file.id, owner_id=file.owner_id)
            if not now.thumbnails_pending:
                return now
            await asyncio.sleep(0.02)


async def grow_old(data: DataLayer) -> None:
    async with data.transaction() as tx:
        await tx.execute(text("UPDATE stored_files SET updated_at = now() - interval '1 h'"))


async def key_shown(data: DataLayer, file: FileView) -> str:
    signed = await data.files.signed_url(file.id, owner_id=file.owner_id, expires_in=HOUR, thumbnail=100)
    return signed.url.partition("?")[0].partition("/v1/files/")[2]


async def test_nobody_waits_for_them(data: DataLayer, owner: User, decoding: Decoding) -> None:
    async with held_up(decoding):
        saved = await data.files.save(LARGE, owner_id=owner.id)
        await decoding.begun.wait()
        assert (saved.thumbnails, saved.thumbnails_pending) == ((), True)
        assert await data.files.stat(saved.id, owner_id=owner.id) == saved
        assert await data.files.download(saved.id, owner_id=owner.id) == LARGE
        assert await keys(data) == [saved.key]
    made = await until_made(data, saved)
    assert [small.width for small in made.thumbnails] == [200, 800]
    assert await rows(data) == (3, 1)
    assert (await data.file_maintenance.check(SYSTEM, deep=True, young_for=-HOUR)).is_clean
    await data.files.delete(saved.id, owner_id=owner.id)
    assert await keys(data) == []


async def test_there_are_none_to_make_of_what_is_small_or_no_image(
    data: DataLayer, owner: User, decoding: Decoding
) -> None:
    for content in (picture(size=(200, 100)), PAGE):
        saved = await data.files.save(content, owner_id=owner.id)
        assert not saved.thumbnails_pending
        assert await data.files.thumbnails(saved.id, owner_id=owner.id) == ()
    assert decoding.count == 0


async def test_a_reader_has_them_made_in_time_and_once(data: DataLayer, owner: User, decoding: Decoding) -> None:
    saved = await data.files.save(LARGE, owner_id=owner.id)
    shown = await asyncio.gather(*(key_shown(data, saved) for _ in range(10)))
    file = await data.files.stat(saved.id, owner_id=owner.id)
    assert set(shown) == {file.thumbnails[0].key}
    assert decoding.count == 1


async def test_a_reader_gets_the_image_itself_when_it_takes_too_long(
    data: DataLayer, owner: User, decoding: Decoding, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thumbnails, "SECONDS_IN_TIME", 0.05)
    saved = await data.files.save(LARGE, owner_id=owner.id)
    async with held_up(decoding):
        assert await key_shown(data, saved) == saved.key
        assert await data.files.thumbnails(saved.id, owner_id=owner.id) == ()
    made = await until_made(data, saved)
    assert await key_shown(data, saved) == made.thumbnails[0].key


@pytest.mark.usefixtures("forgetful")
async def test_maintenance_makes_those_of_a_process_that_died(data: DataLayer, owner: User) -> None:
    files = [await data.files.save(picture(color=(n, 0, 0)), owner_id=owner.id) for n in range(3)]
    assert (await data.maintenance.run(SYSTEM)).images_given_thumbnails == 0, "it may still be about to make them"
    await grow_old(data)
    young = await data.files.save(LARGE, owner_id=owner.id)
    for dry_run in (True, False):
        assert (await data.maintenance.run(SYSTEM, dry_run=dry_run)).images_given_thumbnails == 3
    for file in files:
        assert len((await data.files.stat(file.id, owner_id=owner.id)).thumbnails) == 1
    assert (await data.files.stat(young.id, owner_id=owner.id)).thumbnails_pending
    await grow_old(data)
    assert (await data.maintenance.run(SYSTEM)).images_given_thumbnails == 1
    assert (await data.maintenance.run(SYSTEM)).images_given_thumbnails == 0


@pytest.mark.usefixtures("forgetful")
async def test_what_cannot_be_made_is_not_tried_for_ever(data: DataLayer, owner: User, decoding: Decoding) -> None:
    decoding.error = CorruptFileError("damaged where nobody has looked")
    saved = await data.files.save(LARGE, owner_id=owner.id)
    assert await data.files.thumbnails(saved.id, owner_id=owner.id) == ()
    assert await key_shown(data, saved) == saved.key
    await grow_old(data)
    assert (await data.maintenance.run(SYSTEM)).images_given_thumbnails == 0
    assert decoding.count == 1


@pytest.mark.usefixtures("forgetful")
async def test_what_fails_for_the_moment_is_tried_again(
    data: DataLayer, owner: User, decoding: Decoding, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = await data.files.save(LARGE, owner_id=owner.id)
    decoding.error = ImageTimeoutError("too many large images are being decoded; try again later")
    assert await data.files.thumbnails(saved.id, owner_id=owner.id) == ()
    decoding.error = None
    upload = type(data.storage).upload

    async def fail_after_storing(self: Any, content: Any, key: str, *arguments: Any, **options: Any) -> str:
        await upload(self, content, key, *arguments, **options)
        raise StorageUnavailableError("the disk is gone")

    with monkeypatch.context() as patch:
        patch.setattr(type(data.storage), "upload", fail_after_storing)
        assert await data.files.thumbnails(saved.id, owner_id=owner.id) == ()
    assert await keys(data) == [saved.key]
    await grow_old(data)
    with monkeypatch.context() as patch:
        patch.setattr(type(data.storage), "upload", fail_after_storing)
        patch.setattr(thumbnails, "_MOST_FAILURES", 1)
        report = await data.maintenance.run(SYSTEM)
        assert report.problems == ("thumbnails: the disk is gone",)
    assert (await data.maintenance.run(SYSTEM)).images_given_thumbnails == 1
    assert len((await data.files.stat(saved.id, owner_id=owner.id)).thumbnails) == 2


@pytest.mark.usefixtures("forgetful")
async def test_bytes_that_come_back_get_theirs(data: DataLayer, owner: User) -> None:
    saved = await data.files.save(LARGE, owner_id=owner.id)
    await data.storage.delete(saved.key)
    assert await data.files.thumbnails(saved.id, owner_id=owner.id) == ()
    assert not (await data.files.stat(saved.id, owner_id=owner.id)).thumbnails_pending
    again = await data.files.save(LARGE, owner_id=owner.id)
    assert again.key == saved.key
    assert len((await with_thumbnails(data, again)).thumbnails) == 2


@pytest.mark.parametrize("moment", ["decoding", "recording"])
async def test_a_file_that_is_deleted_meanwhile_leaves_nothing(
    data: DataLayer, owner: User, decoding: Decoding, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    record = ThumbnailMaker._record
    stored: list[str] = []

    async def delete_and_record(maker: ThumbnailMaker, *arguments: Any) -> bool:
        stored.extend(await keys(data))
        if moment == "recording":
            assert await data.files.delete(saved.id, owner_id=owner.id)
        return await record(maker, *arguments)

    monkeypatch.setattr(ThumbnailMaker, "_record", delete_and_record)
    async with held_up(decoding):
        saved = await data.files.save(LARGE, owner_id=owner.id)
        await decoding.begun.wait()
        if moment == "decoding":
            assert await data.files.delete(saved.id, owner_id=owner.id)
    async with asyncio.timeout(60):
        while await keys(data) or not stored:
            await asyncio.sleep(0.02)
    assert len([key for key in stored if "thumbnail" in key]) == 2
    assert await rows(data) == (0, 0)


async def test_more_images_than_may_wait_get_theirs(
    data: DataLayer, owner: User, decoding: Decoding, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thumbnails, "WAITING", 2)
    async with held_up(decoding):
        files = [await data.files.save(picture(color=(n, 9, 9)), owner_id=owner.id) for n in range(7)]
    for file in files:
        assert len((await until_made(data, file)).thumbnails) == 1


async def test_those_that_wait_are_made_before_the_process_ends(settings: Settings, data: DataLayer) -> None:
    async with DataLayer(settings) as another:
        files = [await another.files.save(picture(color=(n, 9, 9)), owner_id=None) for n in range(3)]
    for file in files:
        assert len((await data.files.stat(file.id, owner_id=None)).thumbnails) == 1


async def test_the_end_of_a_process_is_not_held_up(
    settings: Settings, data: DataLayer, decoding: Decoding, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thumbnails, "_FINISH_SECONDS", 0.1)
    async with held_up(decoding):
        another = await DataLayer(settings).open()
        saved = await another.files.save(LARGE, owner_id=None)
        began = time.monotonic()
        await another.close()
        assert time.monotonic() - began < 20
    assert (await data.files.stat(saved.id, owner_id=None)).thumbnails_pending
    assert await keys(data) == [saved.key]
    assert len((await with_thumbnails(data, saved)).thumbnails) == 2


@pytest.mark.usefixtures("forgetful")
async def test_two_processes_at_once_record_one_set(settings: Settings, data: DataLayer, decoding: Decoding) -> None:
    async with DataLayer(settings) as another:
        saved = await data.files.save(LARGE, owner_id=None)
        async with held_up(decoding):
            asking = [asyncio.create_task(each.files.thumbnails(saved.id, owner_id=None)) for each in (data, another)]
            async with asyncio.timeout(60):
                while decoding.count < 2:
                    await asyncio.sleep(0.01)
        first, second = await asyncio.gather(*asking)
        assert len(first) == 2
        assert first == second
    assert len(await keys(data)) == 3
    assert await originals(data) == [saved.key]
    assert (await data.file_maintenance.check(SYSTEM, young_for=-HOUR)).is_clean
