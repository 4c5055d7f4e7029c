"""Exports as jobs: each is made once, by whichever process lives, and its archive is there for a while."""

from __future__ import annotations

import asyncio
import gc
import io
import json
import os
import signal
import sys
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import text

from data_layer import DataLayer, Settings
from data_layer.api.app import create_app
from data_layer.entities import Export
from data_layer.entities.enums import ApiScope, ExportStatus, MailKind, UserRole
from data_layer.entities.time_ordered_ids import id_at
from data_layer.errors import NotFoundError, PermissionDeniedError, StorageUnavailableError
from data_layer.schemas.actors import SYSTEM, Actor
from data_layer.schemas.exports import ExportView
from data_layer.schemas.projects import ProjectDraft
from data_layer.schemas.users import UserFull
from data_layer.services.exports import worker
from data_layer.services.files import maintenance
from data_layer.storage import FileContent
from tests.architecture.source import PROJECT
from tests.file_content import noise, picture
from tests.services.accounts.support import PASSWORD, acting, make_account, trail
from tests.services.transfer.test_personal import live
from tests.storage_servers import settings_stored_in


@pytest.fixture(
    params=["local", "s3_rclone", *(pytest.param(each, marks=pytest.mark.slow) for each in ("s3_moto", "azure"))]
)
def settings(request: pytest.FixtureRequest, settings: Settings) -> Settings:
    return settings_stored_in(request, settings)


ANYWHERE = pytest.mark.parametrize("settings", ["local"], indirect=True)
"""For what does not depend on where archives are stored."""


async def archive_of(data: DataLayer, user: UserFull, export: ExportView) -> zipfile.ZipFile:
    async with data.exports.open(acting(user), export.id) as file:
        content = b"".join([chunk async for chunk in file.chunks])
    archive = zipfile.ZipFile(io.BytesIO(content))
    assert archive.testzip() is None
    return archive


async def archives_stored(data: DataLayer) -> list[str]:
    return [file.key async for file in data.storage.list("exports/")]


@asynccontextmanager
async def visitor(data: DataLayer) -> AsyncIterator[httpx.AsyncClient]:
    """Goes to the server that a signed URL leads to: that of the storage, or this service."""
    is_local = data.settings.storage.storage_backend == "local"
    service = httpx.ASGITransport(create_app(data), raise_app_exceptions=False) if is_local else None
    async with httpx.AsyncClient(transport=service, base_url="http://service") as client:
        yield client


async def let_due(data: DataLayer) -> None:
    """Let leases and pauses be over: the database's own clock cannot be set."""
    async with data.transaction() as tx:
        await tx.execute(text("UPDATE exports SET next_attempt_at = now()"))


async def let_expire(data: DataLayer) -> None:
    async with data.transaction() as tx:
        await tx.execute(text("UPDATE exports SET expires_at = now() - interval '1 second' WHERE status = 'done'"))


def environment_of(settings: Settings) -> dict[str, str]:
    """The same settings for a process of its own."""
    values = {name: value for name, value in settings.flat().items() if name in settings.given}
    shown = {
        name.upper(): value.get_secret_value() if isinstance(value, SecretStr) else str(value)
        for name, value in values.items()
    }
    return {"PATH": os.environ["PATH"]} | shown


class HeldUploads:
    """Lets uploads of archives begin, and go on when ``go`` is set."""

    def __init__(self, data: DataLayer, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.go, self.failure = asyncio.Event(), asyncio.Event(), None
        upload = data.storage.upload

        async def held(content: FileContent, key: str, *arguments: Any, **options: Any) -> str:
            async def pieces() -> AsyncIterator[bytes]:
                assert not isinstance(content, bytes)
                async for piece in content:  # type: ignore[union-attr]
                    yield piece
                    self.begun.set()
                    await self.go.wait()

            return await upload(pieces() if key.startswith("exports/") else content, key, *arguments, **options)

        monkeypatch.setattr(data.storage, "upload", held)


async def test_an_archive_is_made_and_can_be_had(data: DataLayer) -> None:
    ann = await make_account(data)
    secrets = await live(data, ann)
    started = await data.exports.start(acting(ann), ann.id)
    assert (started.status, started.size, started.projects) == (ExportStatus.QUEUED, None, None)
    assert await data.exports.make_due() == 1
    done = await data.exports.get(acting(ann), started.id)
    assert (done.status, done.projects, done.projects_done, done.files, done.files_done) == ("done", 1, 1, 1, 1)
    assert done.expires_at is not None
    assert timedelta(days=6, hours=23) < done.expires_at - datetime.now(UTC) < timedelta(days=7, minutes=1)
    archive = await archive_of(data, ann, done)
    assert done.size == archive.fp.seek(0, os.SEEK_END)  # type: ignore[union-attr]
    assert json.loads(archive.read("summary.json"))["counts"]["projects"] == 1
    whole = b"".join(archive.read(name) for name in archive.namelist())
    assert not [secret for secret in secrets if secret.encode() in whole]
    mails = await data.mails.list(SYSTEM, user_id=ann.id)
    assert [(mail.kind, mail.expires_at) for mail in mails] == [(MailKind.EXPORT_READY, done.expires_at)]
    entries = [entry for entry in await trail(data) if entry.resource_type == "export"]
    assert [(entry.action, entry.user_id, entry.description.split()[0]) for entry in entries] == [
        ("security_data_export", ann.id, "Asked"),
        ("security_data_export", ann.id, "Completed"),
        ("security_data_export", ann.id, "Downloaded"),
    ]
    assert (await data.file_maintenance.check(SYSTEM)).is_clean
    assert len(await archives_stored(data)) == 1
    assert await data.exports.make_due() == 0


async def test_archives_are_no_assets_and_not_in_later_archives(data: DataLayer) -> None:
    ann = await make_account(data)
    for _ in range(2):
        export = await data.exports.start(acting(ann), ann.id)
        await data.exports.make_due()
    assert list(await data.files.list(owner_id=ann.id)) == []
    archive = await archive_of(data, ann, export)
    assert not [name for name in archive.namelist() if name.startswith("files/")]


@ANYWHERE
async def test_one_at_a_time(data: DataLayer) -> None:
    ann, bob = await make_account(data), await make_account(data, "bob@example.com")
    started = await asyncio.gather(*(data.exports.start(acting(ann), ann.id) for _ in range(5)))
    assert len({export.id for export in started}) == 1
    await data.exports.start(acting(bob), bob.id)
    assert len(await data.exports.list(acting(ann), ann.id)) == 1
    assert await data.exports.make_due() == 2
    again = await data.exports.start(acting(ann), ann.id)
    assert again.id != started[0].id
    assert [export.id for export in await data.exports.list(acting(ann), ann.id)] == [again.id, started[0].id]


async def test_a_later_archive_takes_the_place_of_the_former(data: DataLayer) -> None:
    ann = await make_account(data)
    first = await data.exports.start(acting(ann), ann.id)
    await data.exports.make_due()
    second = await data.exports.start(acting(ann), ann.id)
    assert (await data.exports.get(acting(ann), first.id)).status is ExportStatus.DONE
    await data.exports.make_due()
    assert (await data.exports.get(acting(ann), first.id)).status is ExportStatus.EXPIRED
    assert len(await archives_stored(data)) == 1
    await archive_of(data, ann, second)


@ANYWHERE
async def test_whose_it_is(data: DataLayer) -> None:
    ann, bob = await make_account(data), await make_account(data, "bob@example.com")
    root = await make_account(data, "root@example.com", role=UserRole.ADMIN)
    program = Actor.user(ann.id, UserRole.USER, frozenset(ApiScope))
    export = await data.exports.start(acting(ann), ann.id)
    await data.exports.make_due()
    for actor in (acting(bob), acting(root), program, Actor()):
        for refused in (data.exports.start(actor, ann.id), data.exports.list(actor, ann.id)):
            with pytest.raises(PermissionDeniedError):
                await refused
        hidden = (
            data.exports.get(actor, export.id),
            data.exports.delete(actor, export.id),
            data.exports.signed_url(actor, export.id, expires_in=timedelta(minutes=1)),
        )
        for missing in hidden:
            with pytest.raises(NotFoundError):
                await missing
        with pytest.raises(NotFoundError):
            async with data.exports.open(actor, export.id):
                pass
    await data.exports.delete(acting(ann), export.id)
    assert await archives_stored(data) == []
    with pytest.raises(NotFoundError):
        await data.exports.get(acting(ann), export.id)


async def test_archives_expire(data: DataLayer) -> None:
    ann = await make_account(data)
    export = await data.exports.start(acting(ann), ann.id)
    with pytest.raises(NotFoundError, match="queued"):
        await data.exports.signed_url(acting(ann), export.id, expires_in=timedelta(minutes=1))
    await data.exports.make_due()
    assert (await data.maintenance.run(SYSTEM)).exports_expired == 0
    await let_expire(data)
    assert (await data.exports.get(acting(ann), export.id)).status is ExportStatus.EXPIRED
    with pytest.raises(NotFoundError, match="expired"):
        await data.exports.signed_url(acting(ann), export.id, expires_in=timedelta(minutes=1))
    assert (await data.maintenance.run(SYSTEM, dry_run=True)).exports_expired == 1
    assert len(await archives_stored(data)) == 1
    assert (await data.maintenance.run(SYSTEM)).exports_expired == 1
    assert await archives_stored(data) == []
    async with data.transaction() as tx:
        assert await tx.stored_files.count(owner_id=ann.id) == 0


@ANYWHERE
async def test_old_exports_leave_the_list(data: DataLayer) -> None:
    ann = await make_account(data)
    async with data.transaction() as tx:
        for days, status in ((31, "failed"), (29, "failed"), (40, "queued")):
            age = datetime.now(UTC) - timedelta(days=days)
            tx.add(Export(id=id_at(age), user_id=ann.id, status=ExportStatus(status)))
    assert (await data.maintenance.run(SYSTEM, dry_run=True)).exports_removed == 1
    assert (await data.maintenance.run(SYSTEM)).exports_removed == 1
    assert len(await data.exports.list(acting(ann), ann.id)) == 2


async def test_more_than_one_file_may_have(data: DataLayer) -> None:
    """The archive may be larger than MAX_FILE_SIZE, and is stored while it is made."""
    ann = await make_account(data)
    async with DataLayer(data.settings.replaced(max_file_size=40_000)) as limited:
        for number in range(3):
            await limited.files.save(picture("PNG", size=(90 + number, 90)), owner_id=ann.id)
            await limited.projects.create(acting(ann), ProjectDraft(name=os.urandom(100).hex()))
        for _ in range(40):
            await limited.designs.create(acting(ann), name="Round", content=os.urandom(2000).hex())
        export = await limited.exports.start(acting(ann), ann.id)
        await limited.exports.make_due()
        done = await limited.exports.get(acting(ann), export.id)
        assert done.size is not None
        assert done.size > 40_000
        await archive_of(limited, ann, done)


@pytest.mark.slow
async def test_a_process_that_dies_is_replaced(data: DataLayer, settings: Settings) -> None:
    ann = await make_account(data)
    await live(data, ann)
    export = await data.exports.start(acting(ann), ann.id)
    # Not forked: a client of an object store has threads, which a fork does not have.
    command = [sys.executable, "-m", "tests.services.exports.dying_maker"]
    for attempt in range(1, 4):
        maker = await asyncio.create_subprocess_exec(*command, cwd=PROJECT, env=environment_of(settings))
        assert await maker.wait() == -signal.SIGKILL
        running = await data.exports.get(acting(ann), export.id)
        assert running.status is ExportStatus.RUNNING, attempt
        assert await data.exports.make_due() == 0, "the lease keeps others away"
        await let_due(data)
    assert await data.exports.make_due() == 1
    assert (await archive_of(data, ann, export)).namelist()
    assert len(await archives_stored(data)) == 1


@ANYWHERE
async def test_what_kills_each_process_fails(data: DataLayer) -> None:
    ann = await make_account(data)
    export = await data.exports.start(acting(ann), ann.id)
    for _ in range(4):
        async with data.transaction() as tx:
            assert await tx.exports.claim(timedelta(0), most=4) is not None
    assert await data.exports.make_due() == 0
    failed = await data.exports.get(acting(ann), export.id)
    assert (failed.status, failed.error is not None and "stopped" in failed.error) == (ExportStatus.FAILED, True)
    assert [entry.is_success for entry in await trail(data) if entry.resource_type == "export"] == [True, False]
    assert (await data.exports.start(acting(ann), ann.id)).id != export.id


async def test_a_process_that_ends_hands_it_back(data: DataLayer, monkeypatch: pytest.MonkeyPatch) -> None:
    ann = await make_account(data)
    held = HeldUploads(data, monkeypatch)
    async with data.exports.working():
        export = await data.exports.start(acting(ann), ann.id)
        await asyncio.wait_for(held.begun.wait(), 20)
    assert (await data.exports.get(acting(ann), export.id)).status is ExportStatus.QUEUED
    held.go.set()
    async with data.exports.working():
        async with asyncio.timeout(20):
            while (await data.exports.get(acting(ann), export.id)).status is not ExportStatus.DONE:
                await asyncio.sleep(0.05)
    assert len(await archives_stored(data)) == 1


async def test_the_lease_is_renewed_and_progress_seen(data: DataLayer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_RENEW_SECONDS", 0.05)
    monkeypatch.setattr(worker, "LEASE", timedelta(seconds=1))
    ann = await make_account(data)
    for _ in range(2):
        await data.projects.create(acting(ann), ProjectDraft(name="Shop"))
    held = HeldUploads(data, monkeypatch)
    export = await data.exports.start(acting(ann), ann.id)
    making = asyncio.create_task(data.exports.make_due())
    await asyncio.wait_for(held.begun.wait(), 20)
    await asyncio.sleep(1.5)
    async with data.transaction() as tx:
        assert await tx.exports.claim(timedelta(0), most=4) is None
    running = await data.exports.get(acting(ann), export.id)
    assert (running.status, running.projects, running.files) == (ExportStatus.RUNNING, 2, 0)
    held.go.set()
    assert await making == 1


async def test_what_is_removed_is_given_up(data: DataLayer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_RENEW_SECONDS", 0.05)
    ann = await make_account(data)
    held = HeldUploads(data, monkeypatch)
    export = await data.exports.start(acting(ann), ann.id)
    making = asyncio.create_task(data.exports.make_due())
    await asyncio.wait_for(held.begun.wait(), 20)
    await data.exports.delete(acting(ann), export.id)
    assert await asyncio.wait_for(making, 20) == 0
    assert await archives_stored(data) == []


@pytest.mark.parametrize("is_complete", [True, False])
async def test_erasure_leaves_no_archive(
    data: DataLayer, monkeypatch: pytest.MonkeyPatch, *, is_complete: bool
) -> None:
    ann = await make_account(data)
    held = HeldUploads(data, monkeypatch)
    await data.exports.start(acting(ann), ann.id)
    making = asyncio.create_task(data.exports.make_due())
    await asyncio.wait_for(held.begun.wait(), 20)
    if is_complete:
        held.go.set()
        assert await making == 1
    await data.accounts.delete(acting(ann), ann.id, password=PASSWORD)
    held.go.set()
    await making
    assert await archives_stored(data) == []
    async with data.transaction() as tx:
        assert await tx.exports.count() == await tx.stored_files.count() == 0


async def test_a_late_process_changes_nothing(data: DataLayer, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was stopped for longer than its lease finds that another one was quicker."""
    ann = await make_account(data)
    held = HeldUploads(data, monkeypatch)
    export = await data.exports.start(acting(ann), ann.id)
    late = asyncio.create_task(data.exports.make_due())
    await asyncio.wait_for(held.begun.wait(), 20)
    monkeypatch.undo()
    await let_due(data)
    assert await data.exports.make_due() == 1
    [key] = await archives_stored(data)
    held.go.set()
    assert await late == 0
    assert await archives_stored(data) == [key]
    await archive_of(data, ann, export)


@ANYWHERE
async def test_failures_are_repeated_and_then_said(data: DataLayer, monkeypatch: pytest.MonkeyPatch) -> None:
    ann = await make_account(data)
    attempts: list[UUID] = []
    export = await data.exports.start(acting(ann), ann.id)

    async def away(*_: Any, **__: Any) -> str:
        attempts.append(export.id)
        raise StorageUnavailableError("s3.internal.example refused the connection")

    monkeypatch.setattr(data.storage, "upload", away)
    for _ in range(5):
        await data.exports.make_due()
        await let_due(data)
    failed = await data.exports.get(acting(ann), export.id)
    assert (failed.status, len(attempts)) == (ExportStatus.FAILED, 4)
    assert failed.error is not None
    assert "storage_unavailable" in failed.error
    assert "internal" not in failed.error
    assert list(await data.mails.list(SYSTEM, user_id=ann.id)) == []


@ANYWHERE
async def test_of_a_suspended_account_nothing_is_made(data: DataLayer) -> None:
    ann = await make_account(data)
    export = await data.exports.start(acting(ann), ann.id)
    await data.accounts.suspend(SYSTEM, ann.id, reason="spam")
    assert await data.exports.make_due() == 0
    failed = await data.exports.get(SYSTEM, export.id)
    assert (failed.status, failed.error) == (ExportStatus.FAILED, "the account is not active any more")
    assert await archives_stored(data) == []


async def test_many_processes_make_each_once(data: DataLayer, settings: Settings) -> None:
    people = [await make_account(data, f"p{number}@example.com") for number in range(6)]
    exports = [await data.exports.start(acting(each), each.id) for each in people]
    async with DataLayer(settings) as other:
        made = await asyncio.gather(data.exports.make_due(), other.exports.make_due())
    assert sum(made) == 6
    for user, export in zip(people, exports, strict=True):
        archive = await archive_of(data, user, export)
        assert json.loads(archive.read("account.json"))["email"] == user.email
    assert len(await archives_stored(data)) == 6


async def test_orphans_of_dead_processes_go(data: DataLayer, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a process has stored whose row was finished by another one, or is gone with its account."""
    ann = await make_account(data)
    await data.exports.start(acting(ann), ann.id)
    await data.exports.make_due()
    kept = await archives_stored(data)
    await data.storage.upload(b"PK", "exports/left.zip", "application/zip")
    assert (await data.maintenance.run(SYSTEM)).objects_removed == 0, "it is young: somebody may just be making it"
    monkeypatch.setattr(maintenance, "SAFETY_AGE", timedelta(0))
    assert (await data.maintenance.run(SYSTEM)).objects_removed == 1
    assert await archives_stored(data) == kept


async def test_the_address_of_an_archive(data: DataLayer) -> None:
    """It leads to the storage itself, which sends any part of the archive as a file, until the export is deleted."""
    ann = await make_account(data)
    export = await data.exports.start(acting(ann), ann.id)
    await data.exports.make_due()
    address = await data.exports.signed_url(acting(ann), export.id, expires_in=timedelta(minutes=1))
    async with visitor(data) as client:
        whole = await client.get(address.url)
        assert (whole.status_code, whole.headers["content-type"]) == (200, "application/zip")
        assert whole.headers["content-disposition"].startswith("attachment")
        assert "export.zip" in whole.headers["content-disposition"]
        assert len(whole.content) == (await data.exports.get(acting(ann), export.id)).size
        part = await client.get(address.url, headers={"range": "bytes=100-199"})
        # rclone calls a part 200.
        assert (part.status_code in {200, 206}, part.content) == (True, whole.content[100:200])
        await data.exports.delete(acting(ann), export.id)
        # S3 answers 403 to those who may not list the bucket.
        assert (await client.get(address.url)).status_code in {403, 404}


async def test_an_archive_in_parts(data: DataLayer) -> None:
    """Object stores take it in parts of 8 MiB."""
    ann = await make_account(data)
    for _ in range(3):
        await data.files.save(noise(1000, 1000), owner_id=ann.id)
    export = await data.exports.start(acting(ann), ann.id)
    assert await data.exports.make_due() == 1
    done = await data.exports.get(acting(ann), export.id)
    assert done.size is not None
    assert done.size > 8 * 2**20
    archive = await archive_of(data, ann, done)
    assert len([name for name in archive.namelist() if name.startswith("files/")]) == 3


@ANYWHERE
@pytest.mark.parametrize("is_cancelled", [True, False])
async def test_an_upload_that_breaks_off_leaves_nothing_open(
    data: DataLayer, monkeypatch: pytest.MonkeyPatch, *, is_cancelled: bool
) -> None:
    """In the middle of a part, and although the upload does not close what it reads."""
    ann = await make_account(data)
    await live(data, ann)
    begun = asyncio.Event()
    given: list[AsyncIterator[bytes]] = []

    async def upload(content: FileContent, *_: Any, **__: Any) -> str:
        assert isinstance(content, AsyncIterator)
        given.append(content)
        async for piece in content:
            if b"files/" in piece:
                break
        begun.set()
        if not is_cancelled:
            raise StorageUnavailableError("the storage is away")
        await asyncio.Event().wait()
        return ""

    await data.exports.start(acting(ann), ann.id)
    monkeypatch.setattr(data.storage, "upload", upload)
    making = asyncio.create_task(data.exports.make_due())
    await asyncio.wait_for(begun.wait(), 20)
    if is_cancelled:
        making.cancel()
    assert (await asyncio.gather(making, return_exceptions=True))[0] == 0 or making.cancelled()
    assert [piece async for piece in given.pop()] == []
    gc.collect()  # What was left open would warn now, and a warning fails the test.
