"""What no storage accepts, and what every storage does."""

from __future__ import annotations

import io
import unicodedata
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_layer.errors import FileTooLargeError, InvalidStorageKeyError, InvalidValueError
from data_layer.storage import StorageBackend

from .helpers import Opened, keys, read, stream

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
    await storage.delete(key)
    assert await keys(storage) == []


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
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
        await storage.delete(key)


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
