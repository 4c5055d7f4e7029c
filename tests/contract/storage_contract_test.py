"""What every storage does, on every backend. A new backend joins by a line in ``BACKENDS``."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import io
import itertools
import os
import random
import unicodedata
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_layer.errors import (
    FileNotFoundInStorageError,
    FileTooLargeError,
    InvalidStorageKeyError,
    InvalidValueError,
    NotInitializedError,
)
from data_layer.storage import LocalStorage, StorageBackend

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    Opened = Callable[..., Any]

CHANCE = random.Random(1)  # noqa: S311  (repeatable, and no secret)
DESCRIPTORS = Path("/proc/self/fd")
MEBIBYTE = 1024 * 1024
MAX_FILE_SIZE = 8 * MEBIBYTE

REFUSED_KEYS = [
    "",
    "/a",
    "a/",
    "a//b",
    ".",
    "..",
    "../a",
    "a/../b",
    "a/./b",
    ".hidden",
    ".storage/temporary/a",
    "a/.storage",
    "a.",
    "a./b",
    " a",
    "a ",
    "a/ b",
    "a\u3000",
    "a\\b",
    "a\0b",
    "a\nb",
    "a\x7f",
    "a\u0085b",
    "a\u202eb",
    "\ufeffa",
    "a\ufffe",
    "a\udcffb",
    "a\u2044b",
    "a\u2215b",
    "a\u29f8b",
    "a\uff0fb",
    "a\uff3cb",
    "a\u2216b",
    "a\u2105b",
    "\u2024\u2024/a",
    "\uff0e\uff0e/a",
    "\u2025/a",
    "con",
    "a/NUL",
    "Aux.png",
    "com1.tar.gz",
    "lpt\u00b9",
    "a/" + "b" * 256,
    "\u00e4" * 128,
    "a" * 1025,
    "a/" * 254 + "a",
    "e\u0301",
]
ACCEPTED_KEYS = [
    "a",
    "images/photo.png",
    "images/Bücher & Töne/ノート 100%?#.png",
    "a..b",
    "a b/c+d=e@f,g;h'i",
    "console/nullable.com1",
    "\U0001f469\u200d\U0001f680.png",
    "b" * 255,
    "/".join(["\u00e4" * 100] * 5),
    "/".join("a" * 254),
]


@asynccontextmanager
async def local_with_attributes(folder: Path, **options: Any) -> AsyncIterator[StorageBackend]:
    storage: StorageBackend = LocalStorage(folder / "uploads", **{"max_file_size": MAX_FILE_SIZE, **options})
    await storage.initialize()
    try:
        yield storage
    finally:
        await storage.close()


@asynccontextmanager
async def local_with_sidecars(folder: Path, **options: Any) -> AsyncIterator[StorageBackend]:
    """As on a file system without extended attributes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "setxattr", _not_supported, raising=False)
        async with local_with_attributes(folder, **options) as storage:
            yield storage


def _not_supported(*_: Any) -> NoReturn:
    raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))


BACKENDS = [local_with_attributes, local_with_sidecars]


@pytest.fixture(params=BACKENDS, ids=lambda opened: opened.__name__)
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Opened:
    """Opens a storage, empty at first; ``max_file_size`` may be given."""
    return lambda **options: request.param(tmp_path, **options)


@pytest.fixture
async def storage(opened: Opened) -> AsyncIterator[StorageBackend]:
    async with opened() as storage:
        yield storage


async def stream(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        await asyncio.sleep(0)
        yield chunk


async def keys(storage: StorageBackend, prefix: str = "") -> list[str]:
    return [file.key async for file in storage.list(prefix)]


async def read(storage: StorageBackend, key: str, **limits: Any) -> bytes:
    async with storage.open(key, **limits) as file:
        return b"".join([chunk async for chunk in file.chunks])


async def test_what_was_uploaded_comes_back_with_all_that_is_known(storage: StorageBackend) -> None:
    before = datetime.now(UTC) - timedelta(milliseconds=5)
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
@pytest.mark.parametrize("form", ["bytes", "stream", "file", "path"])
async def test_every_form_and_size_of_content(storage: StorageBackend, tmp_path: Path, form: str, size: int) -> None:
    content = CHANCE.randbytes(size)
    source = tmp_path / "source"
    source.write_bytes(content)
    chunks = (content[i : i + 65_536] for i in range(0, size, 65_536))
    forms: dict[str, Any] = {
        "bytes": content,
        "stream": stream(*chunks),
        "file": io.BytesIO(content),
        "path": source,
    }
    await storage.upload(forms[form], "a/b", "application/octet-stream")
    assert await storage.download("a/b") == content
    assert await read(storage, "a/b") == content
    information = await storage.stat("a/b")
    assert (information.size, information.sha256) == (size, hashlib.sha256(content).hexdigest())


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
    with pytest.raises(InvalidValueError, match="cannot be negative"):
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


async def test_an_open_file_is_not_disturbed(storage: StorageBackend) -> None:
    old = CHANCE.randbytes(3 * MEBIBYTE)
    await storage.upload(old, "a", "image/png", metadata={"version": "1"})
    async with storage.open("a") as file:
        first = await anext(file.chunks)
        await storage.upload(b"new", "a", "text/plain")
        await storage.delete("a")
        rest = b"".join([chunk async for chunk in file.chunks])
    assert first + rest == old
    assert (file.information.size, file.information.metadata) == (len(old), {"version": "1"})


async def test_deleting(storage: StorageBackend) -> None:
    await storage.upload(b"x", "a/b", "text/plain", metadata={"k": "v"})
    assert await storage.exists("a/b")
    assert await storage.delete("a/b") is True
    assert await storage.delete("a/b") is False
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


async def test_what_holds_other_files_is_no_file(storage: StorageBackend) -> None:
    await storage.upload(b"x", "a/b/c", "text/plain")
    assert not await storage.exists("a")
    assert not await storage.exists("a/b")
    assert await storage.delete("a") is False
    assert not await storage.exists("a/b/c/d")
    assert await storage.delete("a/b/c/d") is False
    with pytest.raises(FileNotFoundInStorageError):
        await storage.download("a/b")
    assert await storage.download("a/b/c") == b"x"


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


@pytest.mark.parametrize("before", [True, False], ids=["over an old file", "for a new key"])
async def test_a_stream_that_breaks_leaves_what_was_there(storage: StorageBackend, *, before: bool) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"x" * (2 * MEBIBYTE)
        raise ConnectionResetError("the client went away")

    if before:
        await storage.upload(b"old", "a/b", "text/plain", metadata={"version": "1"})
    with pytest.raises(ConnectionResetError, match="went away"):
        await storage.upload(broken(), "a/b", "image/png", metadata={"version": "2"})
    assert await keys(storage) == (["a/b"] if before else [])
    if before:
        assert await storage.download("a/b") == b"old"
        assert (await storage.stat("a/b")).metadata == {"version": "1"}


async def test_a_cancelled_upload_leaves_what_was_there(storage: StorageBackend) -> None:
    begun = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        for _ in itertools.count():
            yield b"x" * 1000
            begun.set()
            await asyncio.sleep(0.001)

    await storage.upload(b"old", "a", "text/plain")
    uploads = [asyncio.create_task(storage.upload(endless(), key, "image/png")) for key in ("a", "b")]
    await begun.wait()
    for upload in uploads:
        upload.cancel()
    results = await asyncio.gather(*uploads, return_exceptions=True)
    assert [type(result) for result in results] == [asyncio.CancelledError] * 2
    assert await keys(storage) == ["a"]
    assert await storage.download("a") == b"old"


async def test_an_upload_cancelled_at_any_moment_is_whole_or_absent(storage: StorageBackend) -> None:
    content = [bytes([version]) * 300_000 for version in range(60)]
    for version in range(60):
        upload = asyncio.create_task(
            storage.upload(content[version], "a", "image/png", metadata={"version": str(version)})
        )
        await asyncio.sleep(CHANCE.uniform(0, 0.004))
        upload.cancel()
        await asyncio.gather(upload, return_exceptions=True)
        if await storage.exists("a"):
            information = await storage.stat("a")
            assert await storage.download("a") == content[int(information.metadata["version"])]


async def test_size_limit_is_exact_and_counted_while_streaming(opened: Opened) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 1000

    async with opened(max_file_size=5000) as storage:
        await storage.upload(b"x" * 5000, "exact", "text/plain")
        await storage.upload(stream(b"x" * 2500, b"x" * 2500), "streamed", "text/plain")
        for content in (b"x" * 5001, endless(), stream(b"x" * 2500, b"x" * 2501), io.BytesIO(b"x" * 5001)):
            with pytest.raises(FileTooLargeError, match="5000 bytes"):
                await storage.upload(content, "large", "text/plain")
        assert await keys(storage) == ["exact", "streamed"]


@pytest.mark.parametrize(
    "content_type",
    ["", "image", "image/", "/png", "image/png\r\nX: y", "image/png;", "a/b; c", "bild/äh", f"a/{'b' * 254}"],
)
async def test_what_is_no_content_type_is_refused(storage: StorageBackend, content_type: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        await storage.upload(b"x", "a", content_type)
    assert caught.value.field == "content_type"
    assert not await storage.exists("a")


@pytest.mark.parametrize("content_type", ["text/html; charset=utf-8", 'a/b;c="d e"', "image/svg+xml", f"a/{'b' * 253}"])
async def test_content_types_come_back_as_they_were(storage: StorageBackend, content_type: str) -> None:
    await storage.upload(b"x", "a", content_type)
    assert (await storage.stat("a")).content_type == content_type


@pytest.mark.parametrize(
    "metadata",
    [
        {"": "x"},
        {"Upper": "x"},
        {"a-b": "x"},
        {"9": "x"},
        {"ä": "x"},
        {"a" * 65: "x"},
        {"a": "x\ny"},
        {"a": "\0"},
        {"a": "\ud800"},
        {"a": "x" * 1024},
        {"a": "ä" * 171},
        {f"a{number}": "x" * 10 for number in range(100)},
    ],
)
async def test_metadata_that_no_header_can_carry_is_refused(storage: StorageBackend, metadata: dict[str, str]) -> None:
    with pytest.raises(InvalidValueError) as caught:
        await storage.upload(b"x", "a", "text/plain", metadata=metadata)
    assert caught.value.field == "metadata"
    assert not await storage.exists("a")


@pytest.mark.parametrize(
    "metadata",
    [{"a": "x" * 1023}, {"a": "日本語" * 37}, {"a": '"\\' * 169, "_b9": " "}],
    ids=["long", "wide", "escapes"],
)
async def test_metadata_up_to_the_limit(storage: StorageBackend, metadata: dict[str, str]) -> None:
    await storage.upload(b"x", "a", "text/plain", metadata=metadata)
    assert (await storage.stat("a")).metadata == metadata


@pytest.mark.parametrize("content", ["text", 7, None, ["x"]])
async def test_content_of_another_kind_is_refused(storage: StorageBackend, content: Any) -> None:
    with pytest.raises(InvalidValueError, match="cannot be uploaded") as caught:
        await storage.upload(content, "a", "text/plain")
    assert caught.value.field == "content"
    assert await keys(storage) == []


async def test_a_stream_or_a_file_of_text_is_refused(storage: StorageBackend) -> None:
    text_stream: Any = stream("text")  # type: ignore[arg-type]
    text_file: Any = io.StringIO("text")
    for content in (text_stream, text_file):
        with pytest.raises(InvalidValueError, match="must be bytes"):
            await storage.upload(content, "a", "text/plain")
    assert await keys(storage) == []


async def test_refused_keys_are_refused_everywhere(storage: StorageBackend) -> None:
    for key in REFUSED_KEYS:
        for attempt in (
            storage.upload(b"x", key, "text/plain"),
            storage.download(key),
            read(storage, key),
            storage.stat(key),
            storage.exists(key),
            storage.delete(key),
        ):
            with pytest.raises(InvalidStorageKeyError):
                await attempt
        with pytest.raises(InvalidStorageKeyError):
            storage.url(key)
    assert await keys(storage) == []


@pytest.mark.parametrize("key", ACCEPTED_KEYS, ids=lambda key: ascii(key)[:40])
async def test_accepted_keys_round_trip(storage: StorageBackend, key: str) -> None:
    await storage.upload(key.encode(), key, "text/plain")
    assert await storage.download(key) == key.encode()
    assert (await storage.stat(key)).key == key
    assert await keys(storage) == [key]
    assert await storage.delete(key)
    assert await keys(storage) == []


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    key=st.text(max_size=30)
    | st.text(alphabet="./\\ aA:~%\0\u2044\uff0e\u0301é", max_size=12)
    | st.lists(st.text(max_size=8), max_size=5).map("/".join)
)
async def test_any_text_is_refused_or_round_trips(opened: Opened, key: str) -> None:
    async with opened() as storage:
        try:
            await storage.upload(key.encode("utf-8", "surrogatepass"), key, "text/plain")
        except InvalidStorageKeyError:
            assert await keys(storage) == []
            return
        assert unicodedata.is_normalized("NFC", key)
        assert await storage.download(key) == key.encode()
        assert await keys(storage) == [key]
        assert await storage.delete(key)


async def test_urls_tell_keys_apart(storage: StorageBackend) -> None:
    urls = {storage.url(key) for key in ["a/b", "a%2Fb", "a b", "a+b", "a?b", "a#b", "ä"]}
    assert len(urls) == 7
    assert all(url.isascii() and " " not in url for url in urls)


async def test_of_many_writers_one_wins_whole_and_readers_see_whole_files(storage: StorageBackend) -> None:
    async def write(seed: int) -> None:
        for version in range(seed, seed + 12):
            content = bytes([version]) * (1000 * version)
            source: Any = content if version % 2 else stream(content[:500], content[500:])
            await storage.upload(source, "a/b", f"image/v{version}", metadata={"version": str(version)})

    async def observe() -> None:
        while not done.is_set():
            async with storage.open("a/b") as file:
                content = b"".join([chunk async for chunk in file.chunks])
            version = int(file.information.metadata["version"])
            assert content == bytes([version]) * (1000 * version)
            assert file.information.content_type == f"image/v{version}"
            assert file.information.sha256 == hashlib.sha256(content).hexdigest()

    done = asyncio.Event()
    await write(0)
    readers = [asyncio.create_task(observe()) for _ in range(4)]
    await asyncio.gather(*(write(seed) for seed in range(0, 120, 12)))
    done.set()
    await asyncio.gather(*readers)
    assert await keys(storage) == ["a/b"]


async def test_uploads_and_deletions_in_one_place_do_not_hinder_each_other(storage: StorageBackend) -> None:
    async def come_and_go(number: int) -> None:
        for _ in range(15):
            await storage.upload(b"x", f"a/b/{number}", "text/plain")
            assert await storage.exists(f"a/b/{number}")
            assert await storage.delete(f"a/b/{number}")

    await asyncio.gather(*(come_and_go(number) for number in range(12)))
    assert await keys(storage) == []


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


async def test_files_outlive_the_storage_object(opened: Opened) -> None:
    async with opened() as storage:
        await storage.upload(b"x", "a", "text/html", metadata={"k": "v"})
        first = await storage.stat("a")
    async with opened() as storage:
        assert await storage.stat("a") == first
        assert await storage.download("a") == b"x"


async def test_a_closed_storage_says_so(opened: Opened) -> None:
    async with opened() as storage:
        await storage.close()
        for attempt in (storage.upload(b"x", "a", "text/plain"), storage.download("a"), storage.check(), keys(storage)):
            with pytest.raises(NotInitializedError):
                await attempt
        await storage.initialize()
        await storage.initialize()
        assert not await storage.exists("a")


@pytest.fixture(autouse=True)
async def no_descriptor_is_left_open(opened: Opened) -> AsyncIterator[None]:
    async with opened():
        before = _descriptors()
    yield
    assert _descriptors() <= before


def _descriptors() -> int:
    return len(list(DESCRIPTORS.iterdir())) if DESCRIPTORS.exists() else 0
