"""Only create, only replace one version, only take what was announced."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

import pytest

from data_layer.errors import (
    ContentMismatchError,
    FileChangedInStorageError,
    FileExistsInStorageError,
    FileNotFoundInStorageError,
    InvalidValueError,
    NotSupportedByStorageError,
)
from data_layer.storage import StorageBackend

from .helpers import CHANCE, MEBIBYTE, keys, stream

IGNORES_CONDITIONS = {"s3_rclone"}
IGNORES_CONDITIONS_OF_COPIES = {"s3_rclone", "s3_moto"}


def skip_where_ignored(backend: str) -> None:
    if backend in IGNORES_CONDITIONS:
        pytest.skip("the server ignores conditions; another test sees that this is refused")


def skip_where_not_atomic(backend: str) -> None:
    if backend.startswith("s3"):
        pytest.skip("rclone ignores conditions, and moto looks first and writes later; S3 does both at once")


@pytest.mark.parametrize("size", [3, 9 * MEBIBYTE], ids=["small", "large"])
async def test_a_file_is_created_once(storage: StorageBackend, backend: str, size: int) -> None:
    skip_where_ignored(backend)
    content = CHANCE.randbytes(size)
    await storage.upload(content, "a/b", "text/plain", overwrite=False)
    for other in (b"second", stream(b"second"), stream(*[b"x" * MEBIBYTE] * 9)):
        with pytest.raises(FileExistsInStorageError, match="'a/b'"):
            await storage.upload(other, "a/b", "image/png", overwrite=False)
    assert await storage.download("a/b") == content
    assert (await storage.stat("a/b")).content_type == "text/plain"
    await storage.delete("a/b")
    await storage.upload(b"again", "a/b", "text/plain", overwrite=False)


async def test_of_many_creators_one_wins(storage: StorageBackend, backend: str) -> None:
    skip_where_not_atomic(backend)
    uploads = [storage.upload(str(n).encode(), "a", "text/plain", overwrite=False) for n in range(12)]
    results = await asyncio.gather(*uploads, return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["FileExistsInStorageError"] * 11 + ["str"]
    winner = next(n for n, result in enumerate(results) if isinstance(result, str))
    assert await storage.download("a") == str(winner).encode()


async def test_one_version_is_replaced(storage: StorageBackend, backend: str) -> None:
    skip_where_ignored(backend)
    await storage.upload(b"one", "a", "text/plain")
    first = (await storage.stat("a")).etag
    await storage.upload(b"two", "a", "text/html", if_match=first, metadata={"k": "v"})
    with pytest.raises(FileChangedInStorageError, match="'a'"):
        await storage.upload(b"three", "a", "text/plain", if_match=first)
    with pytest.raises(FileChangedInStorageError):
        await storage.upload(b"x", "nothing", "text/plain", if_match=first)
    assert await storage.download("a") == b"two"
    assert (await storage.stat("a")).metadata == {"k": "v"}
    assert await keys(storage) == ["a"]


async def test_counting_together_by_etag_loses_nothing(storage: StorageBackend, backend: str) -> None:
    """Read, add one, write if unchanged: the toy that ignores the condition counts too little."""
    skip_where_not_atomic(backend)

    async def count() -> None:
        done = 0
        while done < 5:
            async with storage.open("counter") as file:
                number = int(b"".join([chunk async for chunk in file.chunks]))
            try:
                await storage.upload(str(number + 1).encode(), "counter", "text/plain", if_match=file.information.etag)
            except FileChangedInStorageError:
                continue
            done += 1

    await storage.upload(b"0", "counter", "text/plain")
    await asyncio.gather(*(count() for _ in range(4)))
    assert await storage.download("counter") == b"20"


async def test_a_server_that_ignores_conditions_is_not_trusted(storage: StorageBackend, backend: str) -> None:
    if backend not in IGNORES_CONDITIONS:
        pytest.skip("the server keeps conditions")
    await storage.upload(b"one", "a", "text/plain")
    conditions: list[dict[str, Any]] = [{"overwrite": False}, {"if_match": (await storage.stat("a")).etag}]
    for condition in conditions:
        with pytest.raises(NotSupportedByStorageError, match="ignores"):
            await storage.upload(b"two", "a", "text/plain", **condition)
    assert await storage.download("a") == b"one"
    assert await keys(storage) == ["a"]


@pytest.mark.parametrize(
    "condition", [{"if_match": ""}, {"if_match": 'a"b'}, {"if_match": "x", "overwrite": False}, {"sha256": "ABC"}]
)
async def test_conditions_that_make_no_sense(storage: StorageBackend, condition: dict[str, Any]) -> None:
    with pytest.raises(InvalidValueError):
        await storage.upload(b"x", "a", "text/plain", **condition)
    assert not await storage.exists("a")


@pytest.mark.parametrize("size", [5, 10 * MEBIBYTE], ids=["small", "large"])
async def test_content_that_is_not_what_was_announced(storage: StorageBackend, size: int) -> None:
    content = CHANCE.randbytes(size)
    right, wrong = hashlib.sha256(content).hexdigest(), hashlib.sha256(b"other").hexdigest()
    for source in (content, stream(*(content[i : i + MEBIBYTE] for i in range(0, size, MEBIBYTE)))):
        with pytest.raises(ContentMismatchError, match="'a'"):
            await storage.upload(source, "a", "image/png", sha256=wrong)
        assert not await storage.exists("a")
    for source in (content, stream(*(content[i : i + MEBIBYTE] for i in range(0, size, MEBIBYTE)))):
        await storage.upload(source, "a", "image/png", sha256=right)
        assert (await storage.stat("a")).sha256 == right


async def test_copies_and_moves_take_everything_along(storage: StorageBackend) -> None:
    await storage.upload(
        b"page", "a/b", "text/html", metadata={"owner": "Zoë"}, content_encoding="br", cache_control="max-age=5"
    )
    original = await storage.stat("a/b")
    await storage.copy("a/b", "copy")
    await storage.move("a/b", "c/d")
    assert await keys(storage) == ["c/d", "copy"]
    for key in ("copy", "c/d"):
        found = await storage.stat(key)
        assert await storage.download(key) == b"page"
        assert found.metadata.items() >= original.metadata.items()
        for name in ("size", "content_type", "sha256", "content_encoding", "cache_control"):
            assert getattr(found, name) == getattr(original, name), name


async def test_copies_replace_and_stay_apart(storage: StorageBackend) -> None:
    await storage.upload(b"one", "a", "text/plain")
    await storage.upload(b"two", "b", "text/html", metadata={"k": "v"})
    await storage.copy("a", "b")
    await storage.upload(b"three", "a", "text/plain")
    assert await storage.download("b") == b"one"
    assert (await storage.stat("b")).content_type == "text/plain"
    await storage.copy("a", "a")
    await storage.move("a", "a")
    assert await storage.download("a") == b"three"


async def test_copies_of_nothing(storage: StorageBackend) -> None:
    await storage.upload(b"x", "target", "text/plain")
    for attempt in (storage.copy("nothing", "target"), storage.move("nothing", "target"), storage.copy("no", "no")):
        with pytest.raises(FileNotFoundInStorageError):
            await attempt
    assert await storage.download("target") == b"x"


async def test_copies_that_must_not_replace(storage: StorageBackend, backend: str) -> None:
    await storage.upload(b"one", "a", "text/plain")
    await storage.upload(b"two", "b", "text/plain")
    expected = NotSupportedByStorageError if backend in IGNORES_CONDITIONS_OF_COPIES else FileExistsInStorageError
    for attempt in (storage.copy("a", "b", overwrite=False), storage.move("a", "b", overwrite=False)):
        with pytest.raises(expected):
            await attempt
    assert await storage.download("b") == b"two"
    assert await storage.download("a") == b"one"
    if expected is FileExistsInStorageError:
        await storage.copy("a", "c", overwrite=False)
        await storage.move("a", "d", overwrite=False)
        assert await keys(storage) == ["b", "c", "d"]
    else:
        assert await keys(storage) == ["a", "b"]
