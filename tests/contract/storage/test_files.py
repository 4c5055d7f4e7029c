"""Files go in and come out with all that is known about them."""

from __future__ import annotations

import hashlib
import io
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_layer.errors import ContentMismatchError, FileNotFoundInStorageError, FileTooLargeError, InvalidValueError
from data_layer.storage import StorageBackend
from data_layer.storage.port import HashedBytes

from .helpers import CHANCE, MEBIBYTE, Opened, keys, read, stream


async def test_what_was_uploaded_comes_back_with_all_that_is_known(storage: StorageBackend) -> None:
    before = datetime.now(UTC).replace(microsecond=0)  # S3 and Azure keep whole seconds.
    content = CHANCE.randbytes(200_000)
    url = await storage.upload(content, "images/photo.png", "image/png", metadata={"owner": "Zoë", "n": ""})
    information = await storage.stat("images/photo.png")
    assert await storage.download("images/photo.png") == content
    assert url == storage.url("images/photo.png")
    assert information.key == "images/photo.png"
    assert information.size == 200_000
    assert information.content_type == "image/png"
    assert information.sha256 == hashlib.sha256(content).hexdigest()
    assert information.metadata == {"owner": "Zoë", "n": ""}
    assert before <= information.created_at <= datetime.now(UTC)
    assert information.created_at.tzinfo is UTC
    assert information.etag
    assert '"' not in information.etag


@pytest.mark.parametrize("size", [0, 1, MEBIBYTE - 1, MEBIBYTE, MEBIBYTE + 1, 3 * MEBIBYTE])
@pytest.mark.parametrize("form", ["bytes", "hashed bytes", "stream", "file", "path"])
async def test_every_form_and_size_of_content(storage: StorageBackend, tmp_path: Path, form: str, size: int) -> None:
    content = CHANCE.randbytes(size)
    source = tmp_path / "source"
    source.write_bytes(content)
    chunks = (content[i : i + 65_536] for i in range(0, size, 65_536))
    forms: dict[str, Any] = {
        "bytes": content,
        "hashed bytes": HashedBytes(content),
        "stream": stream(*chunks),
        "file": io.BytesIO(content),
        "path": source,
    }
    await storage.upload(forms[form], "a/b", "application/octet-stream")
    assert await storage.download("a/b") == content
    assert await read(storage, "a/b") == content
    information = await storage.stat("a/b")
    assert (information.size, information.sha256) == (size, hashlib.sha256(content).hexdigest())


async def test_a_hash_that_is_known_is_believed_and_compared(storage: StorageBackend) -> None:
    known = HashedBytes(b"content", "0" * 64)
    await storage.upload(known, "a", "image/png", sha256="0" * 64)
    assert (await storage.stat("a")).sha256 == "0" * 64, "it was computed once more"
    with pytest.raises(ContentMismatchError):
        await storage.upload(known, "a", "image/png", sha256="1" * 64)
    with pytest.raises(FileTooLargeError):
        await storage.upload(known, "a", "image/png", max_size=6)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(chunks=st.lists(st.binary(max_size=300)), start=st.integers(0, 400), end=st.none() | st.integers(0, 400))
async def test_any_content_and_any_range(opened: Opened, chunks: list[bytes], start: int, end: int | None) -> None:
    content = b"".join(chunks)
    async with opened() as storage:
        await storage.upload(stream(*chunks), "a", "text/plain")
        assert await storage.download("a") == content
        assert await read(storage, "a", start=start, end=end) == content[start:end]


async def test_a_range_across_several_chunks(storage: StorageBackend) -> None:
    content = CHANCE.randbytes(3 * MEBIBYTE)
    await storage.upload(content, "a", "video/mp4")
    assert (
        await read(storage, "a", start=MEBIBYTE - 1, end=2 * MEBIBYTE + 2) == content[MEBIBYTE - 1 : 2 * MEBIBYTE + 2]
    )


@pytest.mark.parametrize(("start", "end"), [(-1, None), (0, -1)])
async def test_a_negative_range_is_refused(storage: StorageBackend, start: int, end: int | None) -> None:
    await storage.upload(b"abc", "a", "text/plain")
    with pytest.raises(InvalidValueError, match="must be a number of bytes, 0 or more"):
        await read(storage, "a", start=start, end=end)


async def test_overwriting_replaces_bytes_and_metadata_together(storage: StorageBackend) -> None:
    await storage.upload(b"old", "a", "text/plain", metadata={"version": "1", "draft": "yes"})
    first = await storage.stat("a")
    await storage.upload(b"newer", "a", "text/html", metadata={"version": "2"})
    second = await storage.stat("a")
    assert await storage.download("a") == b"newer"
    assert (second.content_type, second.metadata, second.size) == ("text/html", {"version": "2"}, 5)
    assert second.etag != first.etag
    assert second.created_at >= first.created_at
    assert await keys(storage) == ["a"]


async def test_deleting(storage: StorageBackend) -> None:
    await storage.upload(b"x", "a/b", "text/plain", metadata={"k": "v"})
    assert await storage.exists("a/b")
    await storage.delete("a/b")
    await storage.delete("a/b")
    assert not await storage.exists("a/b")
    assert await keys(storage) == []
    for absent in (storage.download("a/b"), storage.stat("a/b"), read(storage, "a/b")):
        with pytest.raises(FileNotFoundInStorageError, match="'a/b'"):
            await absent


async def test_a_deleted_file_leaves_no_metadata_for_its_successor(storage: StorageBackend) -> None:
    await storage.upload(b"x", "a", "text/plain", metadata={"k": "v"})
    await storage.delete("a")
    await storage.upload(b"y", "a", "text/html")
    assert (await storage.stat("a")).metadata == {}


async def test_what_holds_other_files_is_no_file(storage: StorageBackend, backend: str) -> None:
    await storage.upload(b"x", "a/b/c", "text/plain")
    assert not await storage.exists("a")
    assert not await storage.exists("a/b")
    assert not await storage.exists("a/b/c/d")
    if backend != "s3_rclone":  # It keeps objects as files in folders, which one cannot delete for the other.
        await storage.delete("a")
        await storage.delete("a/b/c/d")
    with pytest.raises(FileNotFoundInStorageError):
        await storage.download("a/b")
    assert await storage.download("a/b/c") == b"x"


@pytest.mark.parametrize("content_type", ["text/html; charset=utf-8", 'a/b;c="d e"', "image/svg+xml", f"a/{'b' * 253}"])
async def test_content_types_come_back_as_they_were(storage: StorageBackend, content_type: str) -> None:
    await storage.upload(b"x", "a", content_type)
    assert (await storage.stat("a")).content_type == content_type


@pytest.mark.parametrize(
    "metadata",
    [{"a": "x" * 1023}, {"a": "日本語" * 37}, {"a": '"\\' * 169, "_b9": " "}],
    ids=["long", "wide", "escapes"],
)
async def test_metadata_up_to_the_limit(storage: StorageBackend, metadata: dict[str, str]) -> None:
    await storage.upload(b"x", "a", "text/plain", metadata=metadata)
    assert (await storage.stat("a")).metadata == metadata


async def test_urls_tell_keys_apart(storage: StorageBackend) -> None:
    urls = {storage.url(key) for key in ["a/b", "a%2Fb", "a b", "a+b", "a?b", "a#b", "ä"]}
    assert len(urls) == 7
    assert all(url.isascii() and " " not in url for url in urls)


async def test_files_outlive_the_storage_object(opened: Opened) -> None:
    async with opened() as storage:
        await storage.upload(b"x", "a", "text/html", metadata={"k": "v"})
        first = await storage.stat("a")
    async with opened() as storage:
        assert await storage.stat("a") == first
        assert await storage.download("a") == b"x"
