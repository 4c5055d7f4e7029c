"""Everything moves from one backend to another while files are saved, read and deleted."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

from data_layer import DataLayer, Settings, StorageKind
from data_layer.errors import ConfigurationError, StorageUnavailableError
from data_layer.schemas.actors import SYSTEM
from data_layer.services.files import migration
from data_layer.testing.storage_servers import AzuriteServer, RcloneServer
from tests.descriptors import opened_below
from tests.file_content import PAGE, picture
from tests.storage_servers import bucket_settings

from .conftest import add_user, keys, with_thumbnails

LOCAL, AZURE, S3 = StorageKind.LOCAL, StorageKind.AZURE, StorageKind.S3


def both(settings: Settings, first: StorageKind, second: StorageKind | None) -> Settings:
    return settings.replaced(storage_backend=first.value, storage_second_backend=second and second.value)


@pytest.fixture
def settings(settings: Settings, rclone_server: RcloneServer, azurite_server: AzuriteServer) -> Settings:
    return settings.replaced(**bucket_settings(rclone_server), **bucket_settings(azurite_server))


async def test_there_and_back_again(data: DataLayer, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migration, "_BATCH", 2)
    owner = await add_user(data)
    contents = [*(picture(color=(number, 0, 0), size=(300, 300)) for number in range(3)), PAGE]
    files = [await data.files.save(content, owner_id=owner.id, file_name="a") for content in contents]
    for image in files[:3]:
        await with_thumbnails(data, image)
    public = await data.files.publish(files[0].id, owner_id=owner.id)
    etag = (await data.public_files.find(public.name)).etag
    await data.storage.upload(b"by hand", "legacy/ü.txt", "text/plain", metadata={"a": "b"}, cache_control="no-store")
    before = await keys(data)
    stored = [await data.storage.stat(key) for key in before]
    route = [LOCAL, S3, AZURE, LOCAL]
    for source, target in pairwise(route):
        async with DataLayer(both(settings, source, target)) as moving:
            report = await moving.file_maintenance.migrate(target)
            assert (report.source, report.target) == (source.value, target.value)
            assert report.moved == len(before) - 1
            assert (report.missing, report.vanished, report.orphans) == ((), 0, 0)
            # The copies with which it began are still there at the end.
            done_before = len(before) if target is LOCAL else 0
            size = 0 if target is LOCAL else sum(each.size for each in stored)
            assert (report.copied, report.size, report.present) == (len(before) - done_before, size, done_before)
            for file, content in zip(files, contents, strict=True):
                assert await moving.files.download(file.id, owner_id=owner.id) == content
            done: list[int] = []
            again = await moving.file_maintenance.migrate(target, on_progress=done.append)
            assert (again.copied, again.present, again.moved) == (0, len(before), 0)
            assert done == [*range(2, len(before) + 1, 2), len(before)]
            assert (await moving.file_maintenance.check(SYSTEM)).is_clean
        async with DataLayer(both(settings, target, None)) as moved:
            assert await keys(moved) == before
            for information in stored:
                there = await moved.storage.stat(information.key)
                for name in ("size", "sha256", "content_type", "content_encoding", "cache_control", "metadata"):
                    assert getattr(there, name) == getattr(information, name), name
            for file, content in zip(files, contents, strict=True):
                view = await moved.files.stat(file.id, owner_id=owner.id)
                assert view.backend is target
                assert await moved.files.download(file.id, owner_id=owner.id) == content
            served = await moved.public_files.find(public.name)
            chunks = moved.public_files.read(served, start=0, end=served.size, decoded=False)
            assert (served.etag, b"".join([chunk async for chunk in chunks])) == (etag, contents[0])
            assert (await moved.file_maintenance.check(SYSTEM, deep=True)).is_clean


async def test_the_service_goes_on_meanwhile(data: DataLayer, settings: Settings) -> None:
    owner = await add_user(data)
    files = [await data.files.save(picture(color=(n, 99, 0), size=(90, 90)), owner_id=owner.id) for n in range(30)]
    async with DataLayer(both(settings, S3, LOCAL)) as service:
        migrating = asyncio.create_task(service.file_maintenance.migrate(S3))
        saved, deleted, rounds = [], files[::5], 0
        while not migrating.done() or rounds < len(deleted):
            if rounds < len(deleted):
                assert await service.files.delete(deleted[rounds].id, owner_id=owner.id)
            if rounds < 5:
                saved.append(await service.files.save(picture(color=(rounds, 0, 99)), owner_id=owner.id))
            await service.files.download(files[1].id, owner_id=owner.id)
            rounds += 1
        await migrating
        await service.file_maintenance.migrate(S3)
        for file in deleted:
            assert not await service.storage.exists(file.key)
    async with DataLayer(both(settings, S3, None)) as after:
        kept = {file.id for file in await after.files.list(owner_id=owner.id)}
        assert kept == {file.id for file in (*files, *saved)} - {file.id for file in deleted}
        for file_id in kept:
            assert await after.files.download(file_id, owner_id=owner.id)
        assert (await after.file_maintenance.check(SYSTEM, deep=True, young_for=timedelta(0))).is_clean


async def test_an_interrupted_migration_goes_on(
    data: DataLayer, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = await add_user(data)
    for number in range(12):
        await data.files.save(picture(color=(number, 0, 0), size=(90, 90)), owner_id=owner.id)
    monkeypatch.setattr("data_layer.services.files.migration._BATCH", 4)
    monkeypatch.setattr("data_layer.storage.local.adapter._LISTED_AT_ONCE", 1)
    folder = settings.storage.local_storage_path
    async with DataLayer(both(settings, LOCAL, S3)) as moving:
        before = opened_below(folder)
        storage = moving.file_maintenance._backends.of(S3)
        upload, uploads = type(storage).upload, 0

        async def fail_late(self: Any, *arguments: Any, **options: Any) -> str:
            nonlocal uploads
            uploads += 1
            if uploads > 6:
                raise StorageUnavailableError("the network is gone")
            return str(await upload(self, *arguments, **options))

        with monkeypatch.context() as patch:
            patch.setattr(type(storage), "upload", fail_late)
            with pytest.raises(StorageUnavailableError) as interrupted:
                await moving.file_maintenance.migrate(S3)
            assert opened_below(folder) == before, interrupted
        usage = {row.name: row.count for row in (await moving.file_maintenance.usage(SYSTEM)).by_backend}
        assert usage == {"local": 8, "s3": 4}
        report = await moving.file_maintenance.migrate(S3)
        assert report.present >= 4
        assert report.moved == 8
        assert (await moving.file_maintenance.check(SYSTEM, deep=True)).is_clean


async def test_what_was_deleted_after_it_had_moved_is_not_copied_again(data: DataLayer, settings: Settings) -> None:
    owner = await add_user(data)
    files = [await data.files.save(picture(color=(n, 0, 0), size=(90, 90)), owner_id=owner.id) for n in range(3)]
    async with DataLayer(both(settings, LOCAL, S3)) as moving:
        await moving.file_maintenance.migrate(S3)
        assert await moving.files.delete(files[0].id, owner_id=owner.id)
        report = await moving.file_maintenance.migrate(S3)
        assert (report.orphans, report.copied, report.present, report.moved) == (1, 0, 2, 0)
        assert not await moving.file_maintenance._backends.of(S3).exists(files[0].key)


@pytest.mark.parametrize("step", ["_copy", "_say_moved"])
async def test_what_is_deleted_while_it_is_copied_vanishes_from_both(
    data: DataLayer, settings: Settings, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    owner = await add_user(data)
    files = [await data.files.save(picture(color=(n, 0, 0), size=(90, 90)), owner_id=owner.id) for n in range(3)]
    go_on = getattr(migration.FileMigration, step)
    async with DataLayer(both(settings, LOCAL, S3)) as moving:

        async def delete_before(self: Any, first: Any, *others: Any) -> Any:
            if step == "_say_moved" or first.key == files[0].key:
                await moving.files.delete(files[0].id, owner_id=owner.id)
            return await go_on(self, first, *others)

        monkeypatch.setattr(migration.FileMigration, step, delete_before)
        report = await moving.file_maintenance.migrate(S3)
        assert (report.vanished, report.moved, report.missing) == (1, 2, ())
        assert report.copied == (2 if step == "_copy" else 3)
        for kind in (LOCAL, S3):
            assert not await moving.file_maintenance._backends.of(kind).exists(files[0].key)


async def test_a_file_that_is_missing_is_told(data: DataLayer, settings: Settings) -> None:
    owner = await add_user(data)
    lost = await data.files.save(picture(size=(90, 90)), owner_id=owner.id)
    await data.storage.delete(lost.key)
    async with DataLayer(both(settings, LOCAL, AZURE)) as moving:
        report = await moving.file_maintenance.migrate(AZURE)
    assert (report.missing, report.moved) == ((lost.key,), 0)


async def test_both_backends_must_be_configured(data: DataLayer, settings: Settings) -> None:
    with pytest.raises(ConfigurationError, match="STORAGE_SECOND_BACKEND"):
        await data.file_maintenance.migrate(S3)
    owner = await add_user(data)
    saved = await data.files.save(picture(), owner_id=owner.id)
    async with DataLayer(both(settings, S3, None)) as other:
        with pytest.raises(StorageUnavailableError, match="STORAGE_SECOND_BACKEND"):
            await other.files.download(saved.id, owner_id=owner.id)
