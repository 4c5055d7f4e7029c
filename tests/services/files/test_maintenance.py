"""Table and storage are compared both ways; what nobody needs is removed, and nothing else."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import text

from data_layer import DataLayer, Project, User
from data_layer.errors import StorageUnavailableError
from data_layer.schemas.actors import SYSTEM
from data_layer.schemas.files import Attachment
from data_layer.services.files.check import CheckReport, Problem
from tests.descriptors import opened_below
from tests.file_content import PAGE, picture
from tests.support import make_user

from .conftest import keys, originals, rows, with_thumbnails

NOW = timedelta(0)
PICTURE = picture(size=(500, 400))


def found(report: CheckReport) -> set[tuple[Problem, str]]:
    return {(finding.problem, finding.key) for finding in report.findings}


async def damage(data: DataLayer, key: str, content: bytes, encoding: str | None = None) -> None:
    content_type = "text/html" if encoding else "image/png"
    await data.storage.upload(
        content, key, content_type, content_encoding=encoding, cache_control="private, max-age=3600"
    )


async def test_a_storage_in_order(data: DataLayer, owner: User, project: Project) -> None:
    await with_thumbnails(data, await data.files.save(PICTURE, owner_id=owner.id))
    await data.files.save(PAGE, owner_id=owner.id, attached_to=Attachment(project_id=project.id))
    await data.files.begin_upload(owner_id=owner.id, content_type="image/png", size=10)
    report = await data.file_maintenance.check(SYSTEM, deep=True, young_for=NOW)
    assert report.is_clean
    assert (report.objects, report.recorded, report.unrecorded, report.young) == (3, 3, 0, 0)
    assert report.size == sum([file.size async for file in data.storage.list()])


async def test_everything_that_can_be_wrong(data: DataLayer, owner: User) -> None:
    files = [
        await data.files.save(picture(color=(number, 0, 0), size=(150, 90)), owner_id=owner.id) for number in range(4)
    ]
    page = await data.files.save(PAGE, owner_id=owner.id)
    lost, short, other, _ = files
    await data.storage.delete(lost.key)
    await damage(data, short.key, b"short")
    await damage(data, other.key, bytes(other.size))
    await damage(data, page.key, bytes(page.stored_size), "gzip")
    for key in ("a-orphan", "files/00/orphan", "zz/orphan"):
        await damage(data, key, b"orphan")
    wrong = {
        (Problem.MISSING, lost.key),
        (Problem.WRONG_SIZE, short.key),
        *((Problem.ORPHAN, key) for key in ("a-orphan", "files/00/orphan", "zz/orphan")),
    }
    shallow = await data.file_maintenance.check(SYSTEM, young_for=NOW)
    assert found(shallow) == wrong
    deep = await data.file_maintenance.check(SYSTEM, deep=True, young_for=NOW)
    assert found(deep) == wrong | {(Problem.WRONG_HASH, other.key), (Problem.WRONG_HASH, page.key)}
    sizes = {finding.key: (finding.expected_size, finding.size) for finding in deep.findings}
    assert sizes[short.key] == (short.size, 5)
    young = await data.file_maintenance.check(SYSTEM)
    assert found(young) == {(Problem.MISSING, lost.key), (Problem.WRONG_SIZE, short.key)}
    assert young.young == 3


COLUMNS = {
    "projects": ("original_image", "thumbnail_image"),
    "generated_images": ("storage_key", "image_url", "thumbnail_url"),
    "generated_codes": ("input_image_url", "result_image_url"),
    "users": ("avatar",),
}


async def test_a_file_that_any_row_names_is_no_orphan(data: DataLayer) -> None:
    await data.seed.load()
    expected: set[str] = set()
    for table, columns in COLUMNS.items():
        for column in columns:
            key = f"legacy/{table}-{column}"
            await data.storage.upload(b"x", key, "image/png")
            expected.add(key)
            async with data.transaction() as tx:
                await tx.execute(
                    text(
                        f"UPDATE {table} SET {column} = :key WHERE id = "
                        f"(SELECT id FROM {table} ORDER BY id OFFSET :offset LIMIT 1)"
                    ).bindparams(key=key, offset=columns.index(column) % 2)
                )
    await data.storage.upload(b"x", "legacy/nobody", "image/png")
    report = await data.file_maintenance.check(SYSTEM, young_for=NOW)
    orphans = {key for problem, key in found(report) if problem is Problem.ORPHAN}
    assert not orphans & expected
    assert "legacy/nobody" in orphans
    assert report.unrecorded == len(expected)
    cleaned = await data.file_maintenance.cleanup(SYSTEM, apply=True, older_than=timedelta(seconds=-1), everywhere=True)
    assert cleaned.orphans == len(orphans)
    assert expected <= set(await keys(data))
    assert (await data.file_maintenance.check(SYSTEM, young_for=NOW)).findings == ()


async def test_the_example_data_is_in_order(data: DataLayer) -> None:
    await data.seed.load()
    report = await data.file_maintenance.check(SYSTEM, deep=True, young_for=NOW)
    assert report.is_clean
    assert report.unrecorded == 0
    assert report.recorded == report.objects > 10
    assert (await data.file_maintenance.cleanup(SYSTEM, older_than=timedelta(seconds=-1), everywhere=True)).orphans == 0


async def test_a_row_whose_file_is_gone(data: DataLayer) -> None:
    user = make_user(avatar="avatars/gone.png")
    linked = make_user(avatar="https://example.com/avatar.png")
    async with data.transaction() as tx:
        tx.add(user)
        tx.add(linked)
    assert found(await data.file_maintenance.check(SYSTEM)) == {(Problem.MISSING, "avatars/gone.png")}


async def test_cleaning_up_says_first_what_it_would_do(data: DataLayer, owner: User) -> None:
    saved = await with_thumbnails(data, await data.files.save(PICTURE, owner_id=owner.id))
    async with data.transaction() as tx:
        await tx.files.remove(saved.id)
    await damage(data, "files/orphan", b"orphan")
    await damage(data, "of-the-application", b"other")
    before = await keys(data)
    planned = await data.file_maintenance.cleanup(SYSTEM, older_than=NOW)
    assert (planned.applied, planned.unreferenced, planned.orphans, planned.orphan_size) == (False, 1, 1, 6)
    assert await keys(data) == before
    too_young = await data.file_maintenance.cleanup(SYSTEM, apply=True)
    assert (too_young.unreferenced, too_young.orphans) == (0, 0)
    assert await keys(data) == before
    reported: list[tuple[str, int]] = []
    done = await data.file_maintenance.cleanup(
        SYSTEM, apply=True, older_than=NOW, on_progress=lambda what, count: reported.append((what, count))
    )
    assert (done.applied, done.unreferenced, done.orphans) == (True, 1, 1)
    assert ("orphans", 1) in reported
    assert await keys(data) == ["of-the-application"]
    assert await rows(data) == (0, 0)
    again = await data.file_maintenance.cleanup(SYSTEM, apply=True, older_than=NOW)
    assert (again.unreferenced, again.orphans) == (0, 0)


async def test_cleaning_up_goes_on_after_a_failure(
    data: DataLayer, owner: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        saved = await data.files.save(picture(color=(number, 9, 9), size=(100, 90)), owner_id=owner.id)
        async with data.transaction() as tx:
            await tx.files.remove(saved.id)
    kept = await data.files.save(PAGE, owner_id=owner.id)
    with monkeypatch.context() as patch:

        async def fail(*_: object) -> None:
            raise StorageUnavailableError("the disk is gone")

        patch.setattr(data.storage, "delete_many", fail)
        with pytest.raises(StorageUnavailableError):
            await data.file_maintenance.cleanup(SYSTEM, apply=True, older_than=NOW)
    await data.file_maintenance.cleanup(SYSTEM, apply=True, older_than=NOW)
    assert await keys(data) == [kept.key]
    assert await rows(data) == (1, 1)


async def test_usage_by_kind(data: DataLayer, owner: User) -> None:
    await with_thumbnails(data, await data.files.save(PICTURE, owner_id=owner.id))
    page = await data.files.save(PAGE, owner_id=None)
    await data.files.begin_upload(owner_id=owner.id, content_type="image/png", size=10)
    usage = await data.file_maintenance.usage(SYSTEM)
    assert usage.total.count == 4
    types = {row.name: (row.count, row.size, row.stored_size) for row in usage.by_type}
    assert types["text/html"] == (1, len(PAGE), page.stored_size)
    assert types["image/png"][:2] == (2, len(PICTURE) + 10)
    assert types["image/webp"][0] == 1
    assert {row.name: row.count for row in usage.by_owner} == {str(owner.id): 3, "system": 1}
    assert {row.name: row.count for row in usage.by_state} == {"stored": 3, "pending": 1}
    assert {row.name: row.count for row in usage.by_backend} == {"local": 4}
    assert len(await originals(data)) == 2


async def test_odd_names_in_the_folder_are_named_and_stay(data: DataLayer, owner: User) -> None:
    saved = await data.files.save(PAGE, owner_id=owner.id)
    folder = data.settings.storage.local_storage_path
    odd = ["files/00/.hidden", "files/00/t\tb", "uploads/con.txt", "lost/ blank"]
    for name in odd:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"odd")
    report = await data.file_maintenance.check(SYSTEM, deep=True, young_for=NOW)
    assert report.is_clean
    assert (report.objects, report.unusable) == (1, len(odd))
    assert sorted(report.unusable_keys) == sorted(ascii(name)[1:-1] for name in odd)
    cleaned = await data.file_maintenance.cleanup(SYSTEM, apply=True, older_than=timedelta(seconds=-1), everywhere=True)
    assert (cleaned.unusable, cleaned.orphans) == (len(odd), 0)
    assert all((folder / name).exists() for name in odd)
    assert await data.files.download(saved.id, owner_id=owner.id) == PAGE


async def test_what_fails_in_the_middle_leaves_no_folder_open(data: DataLayer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("storage.local.adapter._LISTED_AT_ONCE", "services.files.check._REPORTED_EVERY"):
        monkeypatch.setattr(f"data_layer.{name}", 1)
    monkeypatch.setattr("data_layer.services.files.cleanup._BATCH", 1)
    for key in ("files/aa/orphan", "files/bb/orphan"):
        await damage(data, key, b"orphan")

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    folder = data.settings.storage.local_storage_path
    before = opened_below(folder)
    # Their tracebacks keep everything that they were doing.
    with pytest.raises(ZeroDivisionError) as checking:
        await data.file_maintenance.check(SYSTEM, on_progress=fail)
    assert opened_below(folder) == before, checking
    with pytest.raises(ZeroDivisionError) as cleaning:
        await data.file_maintenance.cleanup(SYSTEM, apply=True, older_than=NOW, on_progress=fail)
    assert opened_below(folder) == before, cleaning
