"""What the owner of a storage sees of it: listings, figures, open and closed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from data_layer.errors import InvalidStorageKeyError, NotInitializedError
from data_layer.storage import StorageBackend

from .helpers import CHANCE, Opened, keys


async def test_listing_by_prefix_in_the_order_of_bytes(storage: StorageBackend) -> None:
    stored = ["a-b", "a/b", "a/c/d", "a0", "ab", "images/photo.png", "images/phä", "images2/x", "z", "é/ü", "Ω"]
    for key in CHANCE.sample(stored, len(stored)):
        await storage.upload(key.encode(), key, "text/plain")
    in_order = sorted(stored, key=str.encode)
    for prefix in ["", "a", "a/", "a/c", "a/c/", "images", "images/", "images/ph", "é", "é/", "nothing", "a/nothing/"]:
        assert await keys(storage, prefix) == [key for key in in_order if key.startswith(prefix)], prefix
    listed = {file.key: file async for file in storage.list()}
    for key in stored:
        information = await storage.stat(key)
        assert (listed[key].size, listed[key].created_at) == (information.size, information.created_at)


@pytest.mark.parametrize("prefix", ["/a", "../", "a/../b", "a//", "\0", "a\\", ".storage/"])
async def test_a_prefix_that_no_key_can_have_is_refused(storage: StorageBackend, prefix: str) -> None:
    with pytest.raises(InvalidStorageKeyError):
        await keys(storage, prefix)


async def test_a_listing_can_be_left_and_survives_changes(storage: StorageBackend) -> None:
    stored = {f"{number % 3}/{number:04}" for number in range(600)}
    await asyncio.gather(*(storage.upload(b"", key, "text/plain") for key in stored))
    async with aclosing(storage.list()) as files:
        some = [file.key async for file in _first(files, 2)]
        await storage.delete("2/0599")
        await storage.delete("1/0001")
        rest = [file.key async for file in files]
    assert some == ["0/0000", "0/0003"]
    assert set(rest) >= stored - {"2/0599", "1/0001", *some}
    assert len({*some, *rest}) == len(some) + len(rest)


async def _first(files: AsyncIterator[Any], count: int) -> AsyncIterator[Any]:
    for _ in range(count):
        yield await anext(files)


async def test_check_and_statistics(storage: StorageBackend) -> None:
    await storage.check()
    empty = await storage.statistics()
    assert (empty.file_count, empty.total_size) == (0, 0)
    await storage.upload(b"x" * 1000, "a/b", "text/plain")
    await storage.upload(b"", "c", "text/plain")
    await storage.check()
    statistics = await storage.statistics()
    assert (statistics.file_count, statistics.total_size) == (2, 1000)
    assert await keys(storage) == ["a/b", "c"]


async def test_where_no_upload_was_ever_broken_off_there_is_none_to_remove(storage: StorageBackend) -> None:
    assert await storage.remove_abandoned_uploads(older_than=timedelta()) == 0
    await storage.upload(b"x", "a", "text/plain")
    assert await storage.remove_abandoned_uploads(older_than=timedelta()) == 0


async def test_a_closed_storage_says_so(opened: Opened) -> None:
    async with opened() as storage:
        await storage.close()
        for attempt in (storage.upload(b"x", "a", "text/plain"), storage.download("a"), storage.check(), keys(storage)):
            with pytest.raises(NotInitializedError):
                await attempt
        await storage.initialize()
        await storage.initialize()
        assert not await storage.exists("a")


ODD_KEYS: dict[str, list[Any]] = {
    "local": [
        b".hidden",
        b"a\\b",
        b"b/.git/config",
        b"con.txt",
        b"t\tb",
        b" blank",
        b"not-utf-8-\xff",
        b"x" * 200 + b"/con",
    ],
    "azurite": ["a//b", "trail/", "a\tb", ".hidden", "con.txt", " blank"],
    "s3_moto": ["a//b", "a/../b", "a\tb", "trail/", "/lead", ".hidden"],
    "s3_rclone": ["con.txt", ".hidden", "a/con"],
}


async def test_odd_keys_are_counted_and_named_and_hide_nothing(
    request: pytest.FixtureRequest, storage: StorageBackend, backend: str, tmp_path: Path
) -> None:
    await storage.upload(b"12", "a/good", "text/plain")
    await storage.upload(b"345", "z", "text/plain")
    odd = ODD_KEYS["local" if backend.startswith("local") else backend]
    for key in odd:
        if isinstance(key, bytes):
            path = tmp_path / "uploads" / os.fsdecode(key)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"odd")
        elif backend == "azurite":
            request.getfixturevalue("azurite_server").client.get_blob_client(_bucket(storage), key).upload_blob(b"odd")
        else:
            server = request.getfixturevalue("moto_server" if backend == "s3_moto" else "rclone_server")
            server.client.put_object(Bucket=_bucket(storage), Key=key, Body=b"odd")
    found: list[str] = []
    listed = [file.key async for file in storage.list(on_unusable_key=lambda file: found.append(file.key))]
    assert listed == ["a/good", "z"]
    assert sorted(found) == sorted(os.fsdecode(key) if isinstance(key, bytes) else key for key in odd)
    statistics = await storage.statistics()
    assert (statistics.file_count, statistics.total_size, statistics.unusable_count) == (2, 5, len(odd))
    assert all(name.isascii() and name.isprintable() for name in statistics.unusable_keys)
    assert sorted(statistics.unusable_keys) == sorted(ascii(name)[1:-1] for name in found)
    await storage.check()
    assert await storage.remove_abandoned_uploads(older_than=timedelta()) == 0


def _bucket(storage: Any) -> str:
    place = storage._place
    return str(getattr(place, "bucket", None) or place.container)
