"""Bytes go with the last file that refers to them, and with the row that they belong to."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from data_layer import DataLayer, Project, User
from data_layer.entities import GeneratedImage
from data_layer.entities.enums import GenerationStatus, ImageProvider
from data_layer.errors import MissingReferenceError, NotFoundError, StorageUnavailableError
from data_layer.repositories.stored_objects import StoredFileRepository
from data_layer.schemas.actors import SYSTEM
from data_layer.schemas.files import Attachment, FileView
from data_layer.services.files import cleanup
from data_layer.services.schedule import scheduled
from tests.file_content import PAGE, picture
from tests.support import make_code, make_project

from .conftest import keys, originals, rows, with_thumbnails

HOUR = timedelta(hours=1)


async def test_the_last_one_takes_the_bytes_along(data: DataLayer, owner: User) -> None:
    first = await data.files.save(picture(size=(500, 500)), owner_id=owner.id)
    second = await data.files.save(picture(size=(500, 500)), owner_id=owner.id)
    assert await data.files.delete(first.id, owner_id=owner.id) is True
    assert await data.files.delete(first.id, owner_id=owner.id) is False, "it takes the other one not along"
    with pytest.raises(NotFoundError):
        await data.files.download(first.id, owner_id=owner.id)
    assert (await data.files.stat(second.id, owner_id=owner.id)).reference_count == 1
    assert await data.files.download(second.id, owner_id=owner.id) == picture(size=(500, 500))
    assert await data.files.delete(second.id, owner_id=owner.id) is True
    async with asyncio.timeout(60):
        while await keys(data):  # A thumbnail that was being made goes when it is done.
            await asyncio.sleep(0.02)
    assert await rows(data) == (0, 0)


async def test_attaching_keeps_the_bytes_and_detaching_lets_them_go(
    data: DataLayer, owner: User, project: Project
) -> None:
    to = Attachment(project_id=project.id)
    saved = await data.files.save(PAGE, owner_id=owner.id, file_name="page.html")
    attached = await data.files.attach(saved.id, to, owner_id=owner.id)
    assert (attached.project_id, attached.file_name, attached.reference_count) == (project.id, "page.html", 2)
    assert (await data.files.attach(saved.id, to, owner_id=owner.id)).id == attached.id, "once is enough"
    await data.files.delete(saved.id, owner_id=owner.id)
    assert await data.files.download(attached.id, owner_id=owner.id) == PAGE
    assert await data.files.detach(attached.id, to, owner_id=owner.id) is True
    assert await keys(data) == []
    other = await data.files.save(PAGE, owner_id=owner.id)
    assert await data.files.detach(other.id, to, owner_id=owner.id) is False
    with pytest.raises(MissingReferenceError):
        await data.files.attach(other.id, Attachment(image_id=other.id), owner_id=owner.id)


async def test_a_removed_project_takes_along_what_nobody_else_needs(
    data: DataLayer, owner: User, project: Project
) -> None:
    other = make_project(owner)
    code = make_code(project)
    image = GeneratedImage(
        project_id=project.id, prompt="p", provider=ImageProvider.DALLE3, model="m", size="1024x1024",
        status=GenerationStatus.COMPLETED,
    )  # fmt: skip
    async with data.transaction() as tx:
        for row in (other, code, image):
            tx.add(row)
    contents = [picture(color=(number, 0, 0)) for number in range(5)]
    attachments = [
        *(Attachment(project_id=project.id), Attachment(code_id=code.id), Attachment(image_id=image.id)),
        *(Attachment(project_id=project.id), None),
    ]
    saved = [
        await data.files.save(content, owner_id=owner.id, attached_to=to)
        for content, to in zip(contents, attachments, strict=True)
    ]
    shared = await data.files.save(contents[3], owner_id=owner.id, attached_to=Attachment(project_id=other.id))
    async with data.transaction() as tx:
        await tx.projects.delete(await tx.projects.get(project.id))
    assert await originals(data) == sorted([shared.key, saved[4].key])
    assert {file.id for file in await data.files.list(owner_id=owner.id)} == {shared.id, saved[4].id}
    assert (await data.files.stat(shared.id, owner_id=owner.id)).reference_count == 1


async def test_a_removed_image_or_code_takes_its_files_along(data: DataLayer, project: Project, owner: User) -> None:
    code = make_code(project)
    async with data.transaction() as tx:
        tx.add(code)
    await with_thumbnails(
        data, await data.files.save(picture(), owner_id=owner.id, attached_to=Attachment(code_id=code.id))
    )
    async with data.transaction() as tx:
        await tx.codes.delete(await tx.codes.get(code.id))
    assert await keys(data) == []


async def test_a_deleted_account_leaves_no_file(data: DataLayer, owner: User, project: Project) -> None:
    await with_thumbnails(data, await data.files.save(picture(), owner_id=owner.id))
    await data.files.save(PAGE, owner_id=owner.id, attached_to=Attachment(project_id=project.id))
    async with data.transaction() as tx:
        await tx.users.delete(await tx.users.get(owner.id))
    assert await keys(data) == []
    assert await rows(data) == (0, 0)


async def test_files_stay_when_the_removal_is_rolled_back(data: DataLayer, owner: User, project: Project) -> None:
    saved = await data.files.save(PAGE, owner_id=owner.id, attached_to=Attachment(project_id=project.id))
    with pytest.raises(KeyError):
        async with data.transaction() as tx:
            await tx.projects.delete(await tx.projects.get(project.id))
            raise KeyError
    assert await data.files.download(saved.id, owner_id=owner.id) == PAGE


async def test_a_key_in_a_row_of_the_owner_keeps_the_bytes(data: DataLayer, owner: User, project: Project) -> None:
    saved = await with_thumbnails(data, await data.files.save(picture(), owner_id=owner.id))
    async with data.transaction() as tx:
        (await tx.projects.get(project.id)).original_image = saved.key
    await data.files.delete(saved.id, owner_id=owner.id)
    assert await data.storage.download(saved.key) == picture()
    report = await data.file_maintenance.cleanup(SYSTEM, apply=True, older_than=timedelta(0))
    assert (report.unreferenced, report.orphans) == (0, 0)
    assert await data.storage.exists(saved.key)
    async with data.transaction() as tx:
        await tx.projects.delete(await tx.projects.get(project.id))
    assert await keys(data) == []


async def test_an_interrupted_removal_is_finished_later(
    data: DataLayer, owner: User, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    saved = await with_thumbnails(data, await data.files.save(picture(), owner_id=owner.id))

    async def fail(*_: object) -> None:
        raise StorageUnavailableError("the disk is gone")

    with monkeypatch.context() as patch:
        patch.setattr(data.storage, "delete_many", fail)
        assert await data.files.delete(saved.id, owner_id=owner.id)
    assert [record.msg for record in caplog.records] == ["file_removal_failed"]
    with pytest.raises(NotFoundError):
        await data.files.stat(saved.id, owner_id=owner.id)
    again = await data.files.save(picture(), owner_id=owner.id)
    assert again.key != saved.key, "nobody gets bytes that are about to go"
    monkeypatch.setattr(cleanup, "_BATCH", 1)
    assert (await data.file_maintenance.cleanup(SYSTEM, older_than=timedelta(0))).half_deleted == 2
    told: list[tuple[str, int]] = []
    report = await data.file_maintenance.cleanup(
        SYSTEM, apply=True, older_than=timedelta(0), on_progress=lambda what, count: told.append((what, count))
    )
    assert (report.half_deleted, report.orphans) == (2, 0), "the image and its thumbnail"
    assert [count for what, count in told if what == "half_deleted"] == [1, 2], "a batch at a time"
    assert await originals(data) == [again.key]


async def test_the_service_removes_expired_files_by_itself(data: DataLayer, owner: User) -> None:
    kept = await data.files.save(PAGE, owner_id=owner.id)
    gone = await with_thumbnails(
        data, await data.files.save(picture(size=(900, 900)), owner_id=owner.id, expires_in=HOUR)
    )
    shared = await data.files.save(PAGE, owner_id=owner.id, expires_in=HOUR)
    upload = await data.files.begin_upload(owner_id=owner.id, content_type="image/png", size=10)
    await data.storage.upload(b"late", "uploads/late", "image/png")
    await data.storage.upload(b"orphan", "files/00/orphan", "image/png")
    async with data.transaction() as tx:
        await tx.execute(
            text("UPDATE file_references SET expires_at = now() - interval '1 s' WHERE expires_at > now()")
        )
    async with scheduled(data.maintenance, data.cache, 0.02):
        await until_gone(data, [gone.key, *(small.key for small in gone.thumbnails)])
    assert sorted(await keys(data)) == sorted([kept.key, "files/00/orphan", "uploads/late"]), "the others are too young"
    assert shared.key == kept.key
    async with data.transaction() as tx:
        long_ago = text("UPDATE stored_files SET expires_at = now() - interval '25 h' WHERE state = 'pending'")
        await tx.execute(long_ago)
    planned = await data.maintenance.run(SYSTEM, dry_run=True)
    done = await data.maintenance.run(SYSTEM)
    for report in (planned, done):
        assert (report.files_expired, report.uploads_abandoned, report.objects_removed) == (0, 1, 0)
    with pytest.raises(NotFoundError):
        await data.files.complete_upload(upload.id, owner_id=owner.id)
    assert await data.files.download(kept.id, owner_id=owner.id) == PAGE


async def until_gone(data: DataLayer, gone: list[str]) -> None:
    async with asyncio.timeout(30):
        while set(gone) & set(await keys(data)):
            await asyncio.sleep(0.02)


async def test_a_storage_that_is_away_does_not_keep_other_maintenance_from_being_done(
    data: DataLayer, owner: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    await with_thumbnails(data, await data.files.save(picture(), owner_id=owner.id, expires_in=HOUR))
    async with data.transaction() as tx:
        await tx.execute(text("UPDATE file_references SET expires_at = now() - interval '1 s'"))

    async def fail(*_: object) -> None:
        raise StorageUnavailableError("the disk is gone")

    monkeypatch.setattr(data.storage, "delete_many", fail)
    report = await data.maintenance.run(SYSTEM)
    assert not report.is_complete
    assert [problem.partition(":")[0] for problem in report.problems] == ["files"]


async def test_a_signed_url_ends_with_its_file(data: DataLayer, owner: User) -> None:
    file = await with_thumbnails(data, await data.files.save(picture(), owner_id=owner.id, expires_in=HOUR))
    assert file.expires_at is not None
    signed = await data.files.signed_url(file.id, owner_id=owner.id, expires_in=2 * HOUR)
    assert abs(signed.expires_at - file.expires_at) <= timedelta(seconds=2)


@pytest.mark.parametrize("way", ["delete", "cleanup", "a row that went"])
async def test_bytes_that_are_referred_to_again_at_the_last_moment_stay(
    data: DataLayer, owner: User, project: Project, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Between looking for what nobody refers to and marking it as deleted, somebody saves the same bytes."""
    saved = await data.files.save(PAGE, owner_id=owner.id, attached_to=Attachment(project_id=project.id))
    removable = StoredFileRepository.removable
    again: list[FileView] = []

    async def look_and_be_overtaken(self: StoredFileRepository, **which: Any) -> Any:
        found = await removable(self, **which)
        assert [record.key for record in found] == [saved.key]
        again.append(await asyncio.create_task(data.files.save(PAGE, owner_id=owner.id)))
        return found

    monkeypatch.setattr(StoredFileRepository, "removable", look_and_be_overtaken)
    if way == "delete":
        await data.files.delete(saved.id, owner_id=owner.id)
    elif way == "cleanup":
        async with data.transaction() as tx:
            await tx.execute(text("DELETE FROM file_references"))
        await data.file_maintenance.cleanup(SYSTEM, apply=True, older_than=timedelta(seconds=-1))
    else:
        async with data.transaction() as tx:
            await tx.projects.delete(await tx.projects.get(project.id))
    assert again[0].key == saved.key
    assert await data.files.download(again[0].id, owner_id=owner.id) == PAGE
    assert (await data.file_maintenance.check(SYSTEM, deep=True)).findings == ()


async def test_a_file_with_an_expiry_goes_by_itself(data: DataLayer, owner: User) -> None:
    saved = await data.files.save(picture(), owner_id=owner.id, expires_in=timedelta(seconds=2))
    kept = await data.files.save(PAGE, owner_id=owner.id, expires_in=HOUR)
    assert saved.expires_at is not None
    while True:
        try:
            await data.files.stat(saved.id, owner_id=owner.id)
        except NotFoundError:
            break
        await asyncio.sleep(0.05)
    assert [file.id for file in await data.files.list(owner_id=owner.id)] == [kept.id]
    assert (await data.file_maintenance.cleanup(SYSTEM)).expired == 1
    assert len(await originals(data)) == 2, "without apply nothing is removed"
    assert (await data.file_maintenance.cleanup(SYSTEM, apply=True)).expired == 1
    assert await keys(data) == [kept.key]
