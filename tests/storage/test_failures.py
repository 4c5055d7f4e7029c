"""A disk that is full, missing, read-only or somebody else's: a clear error, and nothing torn."""

# ruff: noqa: ASYNC221, ASYNC240  (these tests have the event loop to themselves)
from __future__ import annotations

import asyncio
import errno
import os
import resource
import shutil
import subprocess
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from data_layer.errors import (
    FileNotFoundInStorageError,
    InvalidStorageKeyError,
    NotInitializedError,
    StorageError,
    StorageFullError,
    StorageUnavailableError,
)
from data_layer.storage import LocalStorage

IS_ROOT = os.geteuid() == 0
NOBODY = 65534


async def stream(size: int) -> AsyncIterator[bytes]:
    for _ in range(0, size, 100_000):
        yield b"x" * 100_000


async def only(content: bytes) -> AsyncIterator[bytes]:
    yield content


def temporary_files(folder: Path) -> list[Path]:
    return list((folder / ".storage" / "temporary").iterdir())


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Let the kernel refuse to make files larger, as a quota would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_limit_on_file_sizes(storage: LocalStorage, folder: Path) -> None:
    await storage.upload(b"old", "a", "text/plain", metadata={"k": "v"})
    with file_size_limit(1_000_000):
        for content in (b"x" * 1_000_001, stream(3_000_000)):
            with pytest.raises(StorageFullError, match="'a'") as caught:
                await storage.upload(content, "a", "image/png")
            assert str(folder) not in str(caught.value)
        assert temporary_files(folder) == []
        await storage.upload(b"x" * 1_000_000, "b", "image/png")
    assert await storage.download("a") == b"old"
    assert (await storage.stat("a")).metadata == {"k": "v"}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    command = [str(mount), "-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs", str(disk)]
    if not IS_ROOT or mount is None or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("only root can mount a small disk; RLIMIT_FSIZE stands in for it in the test above")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)  # noqa: S607  (wherever it is)


async def test_a_full_disk(small_disk: Path) -> None:
    storage = LocalStorage(small_disk, max_file_size=10_000_000)
    await storage.initialize()
    await storage.upload(b"old", "a", "text/plain", metadata={"k": "v"})
    for content in (b"x" * 2_000_000, stream(2_000_000)):
        with pytest.raises(StorageFullError, match="free some space"):
            await storage.upload(content, "a", "image/png")
        assert temporary_files(small_disk) == []
    (small_disk / "filler").write_bytes(b"x" * 500_000)
    with suppress(OSError), (small_disk / "filler").open("ab", buffering=0) as filler:
        while True:
            filler.write(b"x" * 1000)
    with pytest.raises(StorageFullError):
        await storage.check()
    assert await storage.download("a") == b"old"
    assert (await storage.stat("a")).metadata == {"k": "v"}
    await storage.delete("filler")
    await storage.upload(b"x" * 500_000, "a", "image/png")
    await storage.check()
    await storage.close()


async def test_a_read_only_disk(small_disk: Path) -> None:
    storage = LocalStorage(small_disk, max_file_size=10_000_000)
    await storage.initialize()
    await storage.upload(b"x", "a", "text/plain")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)  # noqa: S607  (wherever it is)
    for attempt in (storage.upload(b"y", "b", "text/plain"), storage.delete("a"), storage.check()):
        with pytest.raises(StorageUnavailableError, match="Read-only"):
            await attempt
    assert await storage.download("a") == b"x"
    await storage.close()


@contextmanager
def as_another_user() -> Iterator[None]:
    """Root may do anything: become someone who may not."""
    if IS_ROOT:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if IS_ROOT:
            os.seteuid(0)


async def test_missing_rights(storage: LocalStorage, folder: Path) -> None:
    await storage.upload(b"x", "a/b", "text/plain")
    modes = {path: path.stat().st_mode for path in (folder, folder / "a")}
    for path in modes:
        path.chmod(0)
    with as_another_user():
        for attempt in (
            storage.upload(b"y", "a/b", "text/plain"),
            storage.download("a/b"),
            storage.stat("a/b"),
            storage.exists("a/b"),
            storage.delete("a/b"),
            storage.check(),
            storage.statistics(),
            anext(storage.list()),
        ):
            with pytest.raises(StorageUnavailableError, match="Permission denied") as caught:
                await attempt
            assert str(folder) not in str(caught.value)
    for path, mode in modes.items():
        path.chmod(mode)
    assert await storage.download("a/b") == b"x"


async def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for folder in (tmp_path / "file", tmp_path / "file" / "uploads"):
        storage = LocalStorage(folder, max_file_size=10)
        with pytest.raises(StorageUnavailableError, match="LOCAL_STORAGE_PATH") as caught:
            await storage.initialize()
        assert str(folder) in str(caught.value)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("storage")]


async def test_a_disk_that_went_away_is_not_written_around(storage: LocalStorage, folder: Path) -> None:
    """An unmounted disk must not fill the folder below its mount point, nor look like an empty storage."""
    await storage.upload(b"x", "a", "text/plain")
    folder.rename(folder.with_name("unmounted"))
    for attempt in (
        storage.upload(b"y", "a", "text/plain"),
        storage.download("a"),
        storage.exists("a"),
        storage.delete("a"),
        storage.check(),
        storage.statistics(),
        anext(storage.list()),
    ):
        with pytest.raises(StorageUnavailableError, match="mounted") as caught:
            await attempt
        assert str(folder) not in str(caught.value)
    assert not folder.exists()
    folder.with_name("unmounted").rename(folder)
    assert await storage.download("a") == b"x"


async def test_a_failing_disk_leaves_what_was_there(
    storage: LocalStorage, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each system call of an upload fails in turn, with everything before it real."""
    await storage.upload(b"old", "a", "text/plain", metadata={"k": "v"})
    for name in ("open", "write", "utime", "fstat", "fsync", "rename", "posix_fadvise"):
        for skipped in range(12):
            with monkeypatch.context() as patch:
                patch.setattr(os, name, _failing_after(skipped, getattr(os, name)))
                with suppress(StorageError):
                    content = only(b"new") if name == "posix_fadvise" else b"new"
                    await storage.upload(content, "a", "image/png", metadata={"k": "w"})
            assert temporary_files(folder) == [], (name, skipped)
            information = await storage.stat("a")
            new = await storage.download("a") == b"new"
            assert information.metadata == {"k": "w" if new else "v"}, (name, skipped)
            await storage.upload(b"old", "a", "text/plain", metadata={"k": "v"})


def _failing_after(count: int, real: Callable[..., Any]) -> Callable[..., Any]:
    calls = iter(range(count))

    def function(*arguments: Any, **options: Any) -> Any:
        if next(calls, None) is None:
            raise OSError(5, "Input/output error")
        return real(*arguments, **options)

    return function


@pytest.mark.parametrize("number", [errno.ENAMETOOLONG, errno.EILSEQ])
async def test_a_name_that_the_disk_does_not_take(
    storage: LocalStorage, folder: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """As on an encrypted disk, whose names are shorter, or on one that wants names of another encoding."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(InvalidStorageKeyError, match="does not take such a name"):
        await storage.upload(b"x", "a", "text/plain")
    assert temporary_files(folder) == []


async def test_a_missing_source_is_the_callers_error(storage: LocalStorage, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await storage.upload(tmp_path / "nothing", "a", "text/plain")
    with pytest.raises(FileNotFoundInStorageError):
        await storage.stat("a")
    assert temporary_files(folder) == []


async def test_closing_during_an_upload_leaves_nothing(storage: LocalStorage, folder: Path) -> None:
    begun = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"x" * 2_000_000
        begun.set()
        await asyncio.sleep(0.05)
        yield b"x" * 2_000_000

    upload = asyncio.create_task(storage.upload(slow(), "a", "text/plain"))
    await begun.wait()
    await storage.close()
    with pytest.raises(NotInitializedError, match="closed"):
        await upload
    assert temporary_files(folder) == []


async def test_an_upload_cancelled_while_it_is_being_published_waits_for_its_thread(
    storage: LocalStorage, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cancelled before the rename: nothing becomes visible, however often it is cancelled."""
    real, reached, go_on = os.fsync, threading.Event(), threading.Event()

    def slow(descriptor: int) -> None:
        reached.set()
        go_on.wait(5)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", slow)
    for content in (b"new", stream(200_000)):
        reached.clear()
        go_on.clear()
        upload = asyncio.create_task(storage.upload(content, "a", "text/plain"))
        await asyncio.to_thread(reached.wait, 5)
        for _ in range(3):
            upload.cancel()
            await asyncio.sleep(0.01)
        assert not upload.done()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await upload
        assert not await storage.exists("a")
        assert temporary_files(folder) == []
