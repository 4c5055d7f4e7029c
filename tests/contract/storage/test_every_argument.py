"""Any value in any argument of the port: stored and read back equal, or refused with an error that names the argument.

The methods and their arguments are found by reflection, so that a new one is tried as it is.
"""

from __future__ import annotations

import inspect
import io
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any
from zlib import crc32

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_layer.errors import (
    ContentMismatchError,
    FileChangedInStorageError,
    FileExistsInStorageError,
    FileNotFoundInStorageError,
    FileTooLargeError,
    InvalidStorageKeyError,
    InvalidValueError,
    NotSupportedByStorageError,
)
from data_layer.storage import StorageBackend
from data_layer.storage.keys import is_key
from data_layer.storage.port import Storage, StorageAdministration, StorageMoves, StorageUrls
from tests.hateful_values import CORNERS, anything, shown

from .helpers import read, stream

pytestmark = pytest.mark.slow

CONTENT = bytes(range(256)) * 4
KEYS = {"key", "keys", "source", "target", "prefix"}
READING = {"download", "open", "stat", "exists", "list", "url", "signed_url", "check", "statistics"}
"""What leaves the file as it is, so that it need not be stored again for each value."""

ANSWERS = (
    FileTooLargeError,
    FileNotFoundInStorageError,
    FileExistsInStorageError,
    FileChangedInStorageError,
    ContentMismatchError,
    NotSupportedByStorageError,
)
"""What is said of a value that breaks no rule, and of nothing that is there."""

PLAUSIBLE: dict[str, Any] = {
    "content": CONTENT,
    "key": "folder/file.png",
    "keys": ["folder/file.png"],
    "source": "folder/file.png",
    "target": "folder/target.png",
    "content_type": "image/png",
    "expires_in": timedelta(hours=1),
    "older_than": timedelta(days=1),
}
MORE: dict[str, list[Any]] = {
    "content": [b"", bytearray(b"a"), memoryview(b"a"), io.StringIO(), object],
    "key": [
        "a//b",
        "../a",
        "a/..",
        "/a",
        "a/",
        "a" * 256,
        "ä" * 200,
        "e\u0301",
        "con",
        "a\\b",
        "\u202ea",
        "a b",
        "%2e",
    ],
    "keys": [["a", "a//b"], ["a", 1], iter(["a", None]), "folder/file.png", ["\ud800"], {"a": 1}],
    "metadata": [{"a": 1}, {"a": None}, {1: "a"}, {"A": "a"}, {"a": "ä\U0001f600 +%"}, {"a": " b "}, {"a": "x" * 2000}],
    "content_type": ["image/png; a=b", "text/html;charset=utf-8", "image/png\n", "image /png", "a/" + "b" * 300],
    "content_disposition": [
        "inline",
        'attachment; filename="a.png"',
        "attachment; filename=a; filename=b",
        "inline\r\n",
    ],
    "sha256": ["0" * 64, "A" * 64, "0" * 63, b"0" * 64],
    "if_match": ['"a"', "*", "a\r\nb", "W/a"],
    "start": [1023, 1024, 1025],
    "end": [0, 1, 1023, 1024, 1025],
    "method": ["GET", "PUT", "get", "DELETE"],
    "expires_in": [timedelta(seconds=1), timedelta(days=7), timedelta(days=8), timedelta.max, timedelta.min],
    "older_than": [timedelta(0), timedelta(-1), timedelta.max, timedelta.min],
}


def arguments_of(method: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    return {name: each for name, each in inspect.signature(method).parameters.items() if name != "self"}


METHODS = {
    name: arguments_of(method)
    for part in (Storage, StorageMoves, StorageUrls, StorageAdministration)
    for name, method in vars(part).items()
    if inspect.isfunction(method) and not name.startswith("_")
}
CASES = [(method, argument) for method, arguments in METHODS.items() for argument in arguments]


class Attempt:
    """One call with one value that nobody passes on purpose."""

    def __init__(self, storage: StorageBackend, method: str, argument: str, value: Any) -> None:
        self.storage = storage
        self.method = method
        self.argument = argument
        self.value = value
        needed = {name for name, each in METHODS[method].items() if each.default is each.empty}
        self.arguments = {name: PLAUSIBLE[name] for name in needed} | {argument: value}
        if (method, argument) == ("signed_url", "size"):
            self.arguments["method"] = "PUT"

    def __str__(self) -> str:
        return f"{self.method}({self.argument}={shown(self.value)})"

    async def problem(self) -> str | None:
        """What is wrong with how it ended."""
        try:
            result = await self._call()
        except InvalidStorageKeyError as error:
            if self.argument not in KEYS or not re.search(r"\b(key|prefix)", str(error)):
                return f"{self}: {error}"
        except InvalidValueError as error:
            if error.field != self.argument:
                return f"{self}: names {error.field!r}: {error}"
        except ANSWERS:
            pass
        except Exception as error:  # noqa: BLE001  (what the test looks for)
            return f"{self}: {type(error).__name__}: {error}"[:400]
        else:
            return await self._difference(result)
        return None

    async def _call(self) -> Any:
        result = getattr(self.storage, self.method)(**self.arguments)
        if inspect.isawaitable(result):
            return await result
        if isinstance(result, AsyncIterator):
            return [item async for item in result]
        if hasattr(result, "__aenter__"):
            async with result as file:
                return b"".join([chunk async for chunk in file.chunks])
        return result

    async def _difference(self, result: Any) -> str | None:
        """What of a value that was taken cannot be read back."""
        if self.method == "open":
            limits = {name: self.arguments.get(name) for name in ("start", "end")}
            expected: Any = CONTENT[limits["start"] or 0 : limits["end"]]
            return None if result == expected else f"{self}: {len(result)} bytes"
        if self.method != "upload":
            return None
        key = self.arguments["key"]
        information = await self.storage.stat(key)
        stored = await self.storage.download(key)
        if self.argument != "key":
            await self.storage.delete(key)
        if self.argument in {"metadata", "content_type", "content_encoding", "cache_control", "sha256"}:
            kept, given_value = getattr(information, self.argument), self.value
            if self.argument == "metadata":
                kept, given_value = dict(kept), dict(given_value or {})
            if isinstance(given_value, str):
                given_value = str.__str__(given_value)
            if given_value is not None and kept != given_value:
                return f"{self}: reads {shown(kept)}"
        expected = self.value if isinstance(self.value, bytes) else CONTENT
        return None if stored == expected else f"{self}: other bytes"


def test_the_arguments_are_found() -> None:
    assert {"upload", "open", "delete_many", "copy", "signed_url", "remove_abandoned_uploads"} <= METHODS.keys()
    assert MORE.keys() <= {argument for _, argument in CASES}


def corners_of(storage: StorageBackend, method: str, argument: str) -> list[Any]:
    """A third of the corners, another one for each method: nearly all of them are looked at before any backend is."""
    return CORNERS[crc32(f"{type(storage).__name__} {method} {argument}".encode()) % 3 :: 3]


@pytest.mark.parametrize("method", [name for name, arguments in METHODS.items() if arguments])
async def test_every_value_in_every_argument(storage: StorageBackend, method: str) -> None:
    problems: list[str | None] = []
    for argument in METHODS[method]:
        for value in [*corners_of(storage, method, argument), *MORE.get(argument, [])]:
            if method not in READING or not problems:
                await storage.upload(CONTENT, PLAUSIBLE["key"], "image/png")
            problems.append(await Attempt(storage, method, argument, value).problem())
    found = [problem for problem in problems if problem is not None]
    assert not found, "\n".join([f"{len(found)} problems", *found[:60]])


words = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=12).filter(is_key)
GOOD: dict[str, st.SearchStrategy[Any]] = {
    "content": st.binary(max_size=5000) | st.lists(st.binary(max_size=2000), max_size=4),
    "key": st.lists(words, min_size=1, max_size=4).map("/".join),
    "content_type": st.sampled_from(["image/png", "text/html; charset=utf-8"]),
    "metadata": st.dictionaries(st.from_regex("[a-z_]{1,8}", fullmatch=True), words, max_size=4),
    "content_encoding": st.sampled_from([None, "gzip"]),
    "cache_control": st.sampled_from([None, "no-store"]),
    "overwrite": st.just(True),
    "start": st.integers(0, 6000),
    "end": st.none() | st.integers(0, 6000),
}
WILD = st.text() | st.text(st.characters(categories=["L", "M", "N", "P", "S", "Z", "C"]), max_size=40) | anything


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(values=st.fixed_dictionaries(GOOD), wild=st.none() | st.tuples(st.sampled_from(list(GOOD)), WILD))
async def test_what_was_taken_is_read_back(
    storage: StorageBackend, values: dict[str, Any], wild: tuple[str, Any] | None
) -> None:
    """Together, of which at most one has a value that nobody passes on purpose."""
    if wild is not None:
        values[wild[0]] = wild[1]
    refused = wild[0] if wild else ""
    start, end, key, content = (values.pop(name) for name in ("start", "end", "key", "content"))
    is_stream = isinstance(content, list) and all(isinstance(chunk, bytes) for chunk in content)
    answer = await answer_of(storage.upload(stream(*content) if is_stream else content, key, **values))
    if isinstance(answer, InvalidStorageKeyError):
        assert refused == "key"
        return
    if isinstance(answer, NotSupportedByStorageError):
        assert refused == "overwrite"
        return
    if isinstance(answer, InvalidValueError):
        assert answer.field == refused
        return
    expected = b"".join(content) if is_stream else content
    assert await storage.download(key) == expected
    information = await storage.stat(key)
    assert (information.size, dict(information.metadata)) == (len(expected), dict(values.pop("metadata") or {}))
    del values["overwrite"]
    assert {name: getattr(information, name) for name in values} == values
    part = await answer_of(read(storage, key, start=start, end=end))
    if isinstance(part, InvalidValueError):
        assert part.field == refused
    else:
        assert part == expected[start:end]
    await storage.delete(key)
    assert not await storage.exists(key)


async def answer_of(call: Awaitable[Any]) -> Any:
    """What is returned, or the error that refuses a value."""
    try:
        return await call
    except (InvalidStorageKeyError, InvalidValueError, NotSupportedByStorageError) as error:
        return error
