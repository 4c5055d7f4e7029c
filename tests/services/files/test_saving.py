"""A file is validated, stored once for its owner, recorded, and nothing is left of one that is refused."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import re
import threading
import zipfile
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from uuid_utils.compat import uuid7

from data_layer import DataLayer, FileEncoding, FileState, Project, StorageKind, User
from data_layer.database.transaction import Transaction
from data_layer.errors import (
    CommitUnknownError,
    CorruptFileError,
    DamagedFileError,
    EmptyFileError,
    FileTooLargeError,
    FileTypeNotAllowedError,
    InvalidValueError,
    MissingReferenceError,
    NotFoundError,
    StorageUnavailableError,
)
from data_layer.schemas.actors import SYSTEM
from data_layer.schemas.files import Attachment
from data_layer.services.files import ANY_OWNER
from data_layer.storage.port import HashedBytes
from tests.file_content import PAGE, SVG, chunked, opened, picture

from .conftest import add_user, keys, originals, rows, with_thumbnails

DAY = timedelta(days=1)


async def stream(content: bytes) -> AsyncIterator[bytes]:
    for chunk in chunked(content):
        yield chunk


def archive(size: int) -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as file:
        file.writestr("content", bytes(size))
    return written.getvalue()


async def test_what_is_known_about_a_saved_image(data: DataLayer, owner: User) -> None:
    content = picture(size=(1000, 500))
    saved = await data.files.save(content, owner_id=owner.id, content_type="image/png", file_name="Entwurf é.png")
    assert saved.owner_id == owner.id
    assert (saved.state, saved.backend, saved.encoding) == (FileState.STORED, StorageKind.LOCAL, None)
    assert (saved.content_type, saved.size, saved.stored_size) == ("image/png", len(content), len(content))
    assert saved.sha256 == hashlib.sha256(content).hexdigest()
    assert (saved.image_format, saved.width, saved.height, saved.frame_count) == ("PNG", 1000, 500, 1)
    assert saved.dominant_color == "#c81e3c"
    assert saved.file_name == "Entwurf é.png"
    assert "Entwurf" not in saved.key
    assert (saved.reference_count, saved.expires_at) == (1, None)
    assert (saved.thumbnails, saved.thumbnails_pending) == ((), True)
    thumbnails = await data.files.thumbnails(saved.id, owner_id=owner.id)
    assert [(small.width, small.height) for small in thumbnails] == [(200, 100), (800, 400)]
    for small in thumbnails:
        stored = await data.storage.download(small.key)
        assert len(stored) == small.size
        assert opened(stored).size == (small.width, small.height)
    information = await data.storage.stat(saved.key)
    assert information.content_type == "image/png"
    assert information.metadata == {"owner": str(owner.id)}
    now = saved.model_copy(update={"thumbnails": thumbnails, "thumbnails_pending": False})
    assert await data.files.stat(saved.id, owner_id=owner.id) == now
    assert await data.files.download(saved.id, owner_id=owner.id) == content


async def test_every_form_of_content(data: DataLayer, owner: User, tmp_path: Path) -> None:
    contents = [picture(color=(number, 90, 90), size=(400, 300)) for number in range(4)]
    (tmp_path / "upload").write_bytes(contents[3])
    sources: list[Any] = [contents[0], stream(contents[1]), io.BytesIO(contents[2]), tmp_path / "upload"]
    for source, content in zip(sources, contents, strict=True):
        saved = await data.files.save(source, owner_id=owner.id)
        assert await data.files.download(saved.id, owner_id=owner.id) == content


async def test_a_file_that_does_not_fit_into_memory(data: DataLayer, owner: User) -> None:
    archive = b"PK\x05\x06" + bytes(18)
    content = b"PK\x03\x04" + bytes(1_900_000) + archive
    saved = await data.files.save(stream(content), owner_id=owner.id)
    assert (saved.content_type, saved.size) == ("application/zip", len(content))
    assert await data.files.download(saved.id, owner_id=owner.id) == content


async def test_the_same_bytes_of_one_owner_are_stored_once(data: DataLayer, owner: User) -> None:
    other = await add_user(data)
    first = await data.files.save(picture(), owner_id=owner.id, file_name="a.png")
    second = await data.files.save(picture(), owner_id=owner.id, file_name="b.png")
    of_other = await data.files.save(picture(), owner_id=other.id)
    of_system = await data.files.save(picture(), owner_id=None)
    assert (await data.files.save(picture(), owner_id=None)).key == of_system.key
    assert first.key == second.key
    assert len({first.key, of_other.key, of_system.key}) == 3
    assert first.id != second.id
    assert (first.file_name, second.file_name) == ("a.png", "b.png")
    assert second.reference_count == (await data.files.stat(first.id, owner_id=owner.id)).reference_count == 2
    assert len(await originals(data)) == 3


async def test_a_file_has_no_folder_of_its_own(data: DataLayer, owner: User) -> None:
    """To make one durable would cost a local disk as much as the file itself."""
    saved = await with_thumbnails(data, await data.files.save(picture(), owner_id=owner.id))
    for key in (saved.key, *(small.key for small in saved.thumbnails)):
        assert re.fullmatch(r"files/[0-9a-f]{2}/[^/]+", key), key


@pytest.mark.parametrize("writers", [2, 8])
async def test_simultaneous_savers_of_the_same_bytes(data: DataLayer, owner: User, writers: int) -> None:
    content = picture(size=(640, 480))
    saved = await asyncio.gather(*(data.files.save(content, owner_id=owner.id) for _ in range(writers)))
    assert len({file.key for file in saved}) == 1
    assert len({file.id for file in saved}) == writers
    view = await with_thumbnails(data, saved[0])
    assert view.reference_count == writers
    assert sorted(await keys(data)) == sorted([view.key, *(small.key for small in view.thumbnails)])
    assert (await data.file_maintenance.check(SYSTEM, deep=True)).is_clean


async def test_saving_and_deleting_the_same_bytes_at_once_never_loses_them(data: DataLayer, owner: User) -> None:
    content = picture()

    async def save_and_delete() -> None:
        for _ in range(3):
            saved = await data.files.save(content, owner_id=owner.id)
            assert await data.files.download(saved.id, owner_id=owner.id) == content
            assert await data.files.delete(saved.id, owner_id=owner.id)

    await asyncio.gather(*(save_and_delete() for _ in range(4)))
    assert await keys(data) == []
    assert await rows(data) == (0, 0)


async def test_many_files_on_few_connections(data: DataLayer, owner: User) -> None:
    """PostgreSQL plans each of the first ten executions of a connection, and may keep one plan after that."""
    contents = [picture(color=(number, 1, 1), size=(60, 60)) for number in range(16)]
    first = [await data.files.save(content, owner_id=owner.id) for content in contents]
    again = [await data.files.save(content, owner_id=owner.id) for content in contents]
    assert [file.key for file in first] == [file.key for file in again]


async def test_bytes_that_were_lost_come_back_with_the_next_save(data: DataLayer, owner: User) -> None:
    first = await data.files.save(picture(), owner_id=owner.id)
    await data.storage.delete(first.key)
    second = await data.files.save(picture(), owner_id=owner.id)
    assert second.key == first.key
    assert await data.files.download(first.id, owner_id=owner.id) == picture()


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", EmptyFileError),
        (b"MZ" + bytes(100), FileTypeNotAllowedError),
        (b"plain text", FileTypeNotAllowedError),
        (picture()[:40], CorruptFileError),
        (bytes(2_000_001), FileTooLargeError),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
async def test_nothing_is_left_of_what_is_refused(
    data: DataLayer,
    owner: User,
    content: bytes,
    error: type[Exception],
    streamed: bool,  # noqa: FBT001
) -> None:
    with pytest.raises(error):
        await data.files.save(stream(content) if streamed else content, owner_id=owner.id, content_type=None)
    assert await keys(data) == []
    assert await rows(data) == (0, 0)


async def test_a_stream_is_left_as_soon_as_it_is_too_long(data: DataLayer, owner: User) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 100_000
            yield bytes(100_000)

    with pytest.raises(FileTooLargeError):
        await data.files.save(endless(), owner_id=owner.id)
    assert sent < 5_000_000


async def test_what_the_application_makes_may_be_of_other_types(data: DataLayer, owner: User) -> None:
    saved = await data.files.save(b'{"a": 1}', owner_id=owner.id, allowed_types={"application/json"})
    assert saved.content_type == "application/json"
    with pytest.raises(FileTypeNotAllowedError):
        await data.files.save(picture(), owner_id=owner.id, allowed_types=["application/json"])


async def test_an_owner_or_a_row_that_does_not_exist(data: DataLayer, owner: User) -> None:
    with pytest.raises(MissingReferenceError):
        await data.files.save(picture(), owner_id=uuid7())
    with pytest.raises(MissingReferenceError):
        await data.files.save(picture(), owner_id=owner.id, attached_to=Attachment(project_id=uuid7()))
    assert await keys(data) == []
    with pytest.raises(InvalidValueError):
        Attachment()
    with pytest.raises(InvalidValueError):
        Attachment(project_id=uuid7(), image_id=uuid7())


async def test_texts_are_stored_compressed_and_read_as_they_were(data: DataLayer, owner: User) -> None:
    saved = await data.files.save(PAGE, owner_id=owner.id)
    assert saved.encoding is FileEncoding.GZIP
    assert saved.size == len(PAGE) > saved.stored_size
    stored = await data.storage.stat(saved.key)
    assert (stored.content_encoding, stored.size) == ("gzip", saved.stored_size)
    assert await data.files.download(saved.id, owner_id=owner.id) == PAGE
    async with data.files.open(saved.id, owner_id=owner.id) as file:
        assert (file.information.size, file.information.sha256) == (len(PAGE), hashlib.sha256(PAGE).hexdigest())
        assert file.information.content_encoding is None


async def test_a_hash_is_never_taken_from_a_caller(data: DataLayer, owner: User) -> None:
    """Otherwise somebody's next file with that hash would be taken for this one."""
    picture_of_all, other = picture(), picture(color=(0, 0, 0))
    wrong = HashedBytes(other, hashlib.sha256(picture_of_all).hexdigest())
    saved = await data.files.save(wrong, owner_id=owner.id)
    assert saved.sha256 == hashlib.sha256(other).hexdigest()
    right = await data.files.save(picture_of_all, owner_id=owner.id)
    assert await data.files.download(right.id, owner_id=owner.id) == picture_of_all


async def test_what_is_small_or_packed_already_is_left_alone(data: DataLayer, owner: User) -> None:
    for content in (SVG, picture()):
        saved = await data.files.save(content, owner_id=owner.id)
        assert saved.encoding is None
        assert await data.storage.download(saved.key) == content


async def test_a_compressed_file_that_was_changed_is_noticed(data: DataLayer, owner: User) -> None:
    saved = await data.files.save(PAGE, owner_id=owner.id)
    for damaged in (gzip.compress(bytes(50_000_000)), gzip.compress(b"short"), b"no gzip at all"):
        await data.storage.upload(damaged, saved.key, "text/html", content_encoding="gzip")
        with pytest.raises(DamagedFileError):
            await data.files.download(saved.id, owner_id=owner.id)


async def test_a_file_that_was_changed_is_noticed_by_its_size_or_at_the_end_by_its_hash(
    data: DataLayer, owner: User
) -> None:
    content = picture()
    saved = await data.files.save(content, owner_id=owner.id)
    for damaged in (content + b"!", content[:-1], b"", content[:-1] + b"!"):
        await data.storage.upload(damaged, saved.key, "image/png")
        with pytest.raises(DamagedFileError):
            await data.files.download(saved.id, owner_id=owner.id)
    again = await data.files.save(content, owner_id=owner.id)
    assert again.key == saved.key
    await data.storage.upload(content[:-1], saved.key, "image/png")
    await data.files.save(content, owner_id=owner.id)
    assert await data.files.download(saved.id, owner_id=owner.id) == content, "a wrong size is healed by the next save"


@pytest.mark.parametrize("size", [(30, 30), (900, 600)])
async def test_what_is_answered_is_what_is_stored(data: DataLayer, owner: User, size: tuple[int, int]) -> None:
    """The answer is made without reading the rows again."""
    async with data.transaction() as tx:
        project = Project(user_id=owner.id, name="With a picture")
        tx.add(project)
    saved = await data.files.save(
        picture(size=size),
        owner_id=owner.id,
        file_name="a picture.png",
        attached_to=Attachment(project_id=project.id),
        expires_in=timedelta(hours=1),
    )
    assert await data.files.stat(saved.id, owner_id=owner.id) == saved
    thumbnails = await data.files.thumbnails(saved.id, owner_id=owner.id)
    assert len(thumbnails) == (0 if size == (30, 30) else 2)
    again = await data.files.save(picture(size=size), owner_id=owner.id)
    assert await data.files.stat(again.id, owner_id=owner.id) == again
    assert again.thumbnails == thumbnails


class TestInterruptions:
    async def test_a_failing_transaction_takes_the_objects_along(
        self, data: DataLayer, owner: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object, **__: object) -> None:
            raise StorageUnavailableError("stands for any failure inside")

        monkeypatch.setattr("data_layer.repositories.files.FileRepository.save", fail)
        with pytest.raises(StorageUnavailableError):
            await data.files.save(picture(size=(900, 900)), owner_id=owner.id)
        assert await keys(data) == []

    async def test_nobody_deletes_when_the_commit_is_unknown(
        self, data: DataLayer, owner: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        commit = Transaction.run_and_commit

        async def commit_and_lose_the_answer(self: Transaction, statements: Any) -> None:
            await commit(self, statements)
            raise CommitUnknownError("the connection broke")

        with monkeypatch.context() as patch:
            patch.setattr(Transaction, "run_and_commit", commit_and_lose_the_answer)
            with pytest.raises(CommitUnknownError):
                await data.files.save(picture(), owner_id=owner.id)
        [file] = await data.files.list(owner_id=owner.id)
        assert await data.files.download(file.id, owner_id=owner.id) == picture()

    async def test_a_storage_that_fails_half_way(
        self, data: DataLayer, owner: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        upload = type(data.storage).upload
        stored: list[str] = []

        async def fail_after_storing(self: Any, content: Any, key: str, *arguments: Any, **options: Any) -> str:
            await upload(self, content, key, *arguments, **options)
            stored.extend(await keys(data))
            raise StorageUnavailableError("the disk is gone")

        monkeypatch.setattr(type(data.storage), "upload", fail_after_storing)
        with pytest.raises(StorageUnavailableError, match="the disk is gone"):
            await data.files.save(picture(size=(900, 900)), owner_id=owner.id)
        assert len(set(stored)) == 1, "there was something to remove"
        assert await keys(data) == []
        assert await rows(data) == (0, 0)

    async def test_whoever_is_cancelled_leaves_all_or_nothing(self, data: DataLayer, owner: User) -> None:
        stored = 0
        for number in range(15):
            content = picture(color=(number, 200, 90), size=(180, 180))  # Of what is so small no thumbnail is made.
            saving = asyncio.create_task(data.files.save(content, owner_id=owner.id))
            for _ in range(number):
                await asyncio.sleep(0.006)
            saving.cancel()
            await asyncio.wait([saving])
            stored += not saving.cancelled()
        report = await data.file_maintenance.check(SYSTEM, deep=True, young_for=-DAY)
        assert report.findings == ()
        assert report.recorded == report.objects
        assert stored < 15


async def test_a_file_of_somebody_else_is_as_good_as_missing(data: DataLayer, owner: User, project: Project) -> None:
    other = await add_user(data)
    saved = await data.files.save(picture(), owner_id=owner.id)
    for stranger in (other.id, None, uuid7()):
        for attempt in (
            data.files.stat(saved.id, owner_id=stranger),
            data.files.download(saved.id, owner_id=stranger),
            data.files.url(saved.id, owner_id=stranger),
            data.files.signed_url(saved.id, owner_id=stranger, expires_in=DAY),
            data.files.attach(saved.id, Attachment(project_id=project.id), owner_id=stranger),
            data.files.detach(saved.id, Attachment(project_id=project.id), owner_id=stranger),
            data.files.complete_upload(saved.id, owner_id=stranger),
        ):
            with pytest.raises(NotFoundError):
                await attempt
        assert await data.files.delete(saved.id, owner_id=stranger) is False
        assert await data.files.list(owner_id=stranger) == []
    assert (await data.files.stat(saved.id, owner_id=ANY_OWNER)).id == saved.id
    with pytest.raises(NotFoundError):
        await data.files.stat(UUID(int=0), owner_id=ANY_OWNER)


async def test_pages_of_files(data: DataLayer, owner: User, project: Project) -> None:
    saved = [await data.files.save(picture(color=(n, 9, 9)), owner_id=owner.id) for n in range(5)]
    mine = Attachment(project_id=project.id)
    attached = await data.files.save(picture(), owner_id=owner.id, attached_to=mine)
    page = await data.files.list(owner_id=owner.id, limit=3)
    rest = await data.files.list(owner_id=owner.id, after=page[-1].id)
    assert [file.id for file in (*page, *rest)] == [*(file.id for file in saved), attached.id]
    assert [file.id for file in await data.files.list(owner_id=owner.id, attached_to=mine)] == [attached.id]
    with pytest.raises(InvalidValueError):
        await data.files.list(owner_id=owner.id, limit=0)


@pytest.mark.parametrize("content", [picture(), PAGE, archive(1_500_000)], ids=["image", "packed", "large"])
async def test_what_is_in_memory_is_hashed_in_a_thread(
    data: DataLayer, owner: User, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    """Not by the thread of the event loop, which everybody waits for."""
    threads: list[threading.Thread] = []

    def sha256(hashed: bytes) -> Any:
        threads.append(threading.current_thread())
        return hashlib.sha256(hashed)

    monkeypatch.setattr("data_layer.storage.port.hashlib", SimpleNamespace(sha256=sha256))
    saved = await data.files.save(content, owner_id=owner.id)
    assert saved.sha256 == hashlib.sha256(content).hexdigest()
    assert threads
    assert threading.current_thread() not in threads
    assert len(threads) == (1 if saved.encoding is None else 2), "the same bytes were hashed twice"
