"""What is uploaded waits in a temporary file, and a machine without room for one says so."""

from __future__ import annotations

import errno
import io
import tempfile
from pathlib import Path

import pytest

from data_layer.errors import StorageFullError, StorageUnavailableError
from data_layer.storage.threads import FileThreads
from data_layer.storage.validation.received import IN_MEMORY, receive

LARGE = b"x" * (IN_MEMORY + 1)


async def receive_all(content: bytes) -> bytes:
    threads = FileThreads(1)
    try:
        async with receive(io.BytesIO(content), 10 * len(LARGE), threads) as file:
            return file.read()
    finally:
        await threads.close()


async def test_without_a_folder_for_temporary_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    small = LARGE[:100]
    assert await receive_all(small) == small
    with pytest.raises(StorageUnavailableError, match=r"temporary file.*set TMPDIR"):
        await receive_all(LARGE)


async def test_a_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk of temporary files fills up while a file arrives."""

    def no_room(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "rollover", no_room)
    with pytest.raises(StorageFullError, match=r"No space left.*make room"):
        await receive_all(LARGE)
