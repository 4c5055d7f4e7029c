"""Many files at a time, files that travel in parts, and what broken uploads leave behind."""

from __future__ import annotations

import asyncio
import hashlib
import io
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from data_layer.errors import InvalidStorageKeyError, InvalidValueError
from data_layer.storage import StorageBackend

from .helpers import CHANCE, MEBIBYTE, keys, read, stream

LARGE = CHANCE.randbytes(20 * MEBIBYTE + 7)


@pytest.mark.parametrize("form", ["bytes", "stream", "file", "path"])
async def test_a_file_in_parts(storage: StorageBackend, tmp_path: Path, form: str) -> None:
    source = tmp_path / "source"
    source.write_bytes(LARGE)
    file = io.BytesIO(b"skipped" + LARGE)
    file.seek(7)
    forms: dict[str, Any] = {
        "bytes": LARGE,
        "stream": stream(*(LARGE[i : i + 700_001] for i in range(0, len(LARGE), 700_001))),
        "file": file,
        "path": source,
    }
    await storage.upload(forms[form], "a/b", "video/mp4", metadata={"k": "v"}, cache_control="max-age=1")
    assert await storage.download("a/b") == LARGE
    assert await read(storage, "a/b", start=9 * MEBIBYTE, end=17 * MEBIBYTE) == LARGE[9 * MEBIBYTE : 17 * MEBIBYTE]
    found = await storage.stat("a/b")
    assert (found.size, found.content_type, found.metadata) == (len(LARGE), "video/mp4", {"k": "v"})
    assert found.cache_control == "max-age=1"
    right = hashlib.sha256(LARGE).hexdigest()
    assert found.sha256 == right or (form == "stream" and found.sha256 is None)


async def test_encodings_are_kept_and_not_undone(storage: StorageBackend) -> None:
    await storage.upload(b"\x1f\x8b not really", "a", "text/html", content_encoding="gzip", cache_control="no-store")
    found = await storage.stat("a")
    assert (found.content_encoding, found.cache_control) == ("gzip", "no-store")
    assert await storage.download("a") == b"\x1f\x8b not really"
    await storage.upload(b"plain", "a", "text/html")
    found = await storage.stat("a")
    assert (found.content_encoding, found.cache_control) == (None, None)


@pytest.mark.parametrize("values", [{"content_encoding": ""}, {"cache_control": "a\nb"}, {"cache_control": "ä"}])
async def test_what_no_header_can_carry(storage: StorageBackend, values: dict[str, Any]) -> None:
    with pytest.raises(InvalidValueError):
        await storage.upload(b"x", "a", "text/plain", **values)
    assert not await storage.exists("a")


async def test_deleting_many(storage: StorageBackend) -> None:
    stored = [f"{number % 7}/{number}" for number in range(300)]
    await asyncio.gather(*(storage.upload(b"x", key, "text/plain") for key in stored))
    await storage.delete_many(["nothing", *stored[:280], "0/nothing", stored[0]])
    assert set(await keys(storage)) == set(stored[280:])
    await storage.delete_many([])
    with pytest.raises(InvalidStorageKeyError):
        await storage.delete_many([stored[280], "../a"])
    assert set(await keys(storage)) == set(stored[280:])


async def test_broken_uploads_in_parts_leave_nothing_after_cleanup(storage: StorageBackend) -> None:
    begun = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * MEBIBYTE
            if not begun.is_set() and next(sent) > 17:
                begun.set()
                await asyncio.sleep(60)

    async def broken() -> AsyncIterator[bytes]:
        for _ in range(18):
            yield b"x" * MEBIBYTE
        raise ConnectionResetError("the client went away")

    sent = iter(range(1000))
    upload = asyncio.create_task(storage.upload(endless(), "cancelled", "video/mp4"))
    await begun.wait()
    upload.cancel()
    with pytest.raises(asyncio.CancelledError):
        await upload
    with pytest.raises(ConnectionResetError, match="went away"):
        await storage.upload(broken(), "broken", "video/mp4")
    assert await keys(storage) == []
    assert await storage.remove_abandoned_uploads(older_than=timedelta()) == 0, "they were removed at once"


async def test_creating_what_is_there_is_harmless(storage: StorageBackend) -> None:
    await storage.upload(b"x", "a", "text/plain")
    await storage.create()
    await storage.create()
    assert await storage.download("a") == b"x"
