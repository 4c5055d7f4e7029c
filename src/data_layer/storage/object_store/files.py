"""One file of an object store: how it is uploaded, what its headers say, how it is read."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Mapping
from contextlib import aclosing
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import quote, unquote

import obstore
from obstore.exceptions import BaseError

from data_layer.concurrency import settled
from data_layer.errors import ContentMismatchError, FileTooLargeError, NotSupportedByStorageError
from data_layer.storage.arguments import RESERVED_PREFIX, Condition, Description
from data_layer.storage.content import BATCH_SIZE, batches
from data_layer.storage.object_store.failures import is_about_a_range, translated
from data_layer.storage.port import FileContent, FileInformation, HashedBytes
from data_layer.storage.threads import FileThreads

if TYPE_CHECKING:  # obstore has these names only in its stubs.
    from obstore import GetResult, OffsetRange
    from obstore.store import ObjectStore

PART_SIZE = 8 * 1024 * 1024
"""Bytes: what is longer is sent in parts of this size, unless it is in memory and the backend takes it at once."""

MAX_CONDITIONAL_SIZE = 64 * 1024 * 1024
"""Bytes that are held in memory to upload them in one request, as only a request as a whole can have a condition."""

_PARALLEL_PARTS = 4
_MAX_PARTS = 10_000  # S3 allows no more; Azure allows 50,000.
_HASHED_IN_THIS_THREAD = 256 * 1024
_PATIENCE_WHEN_CANCELLED = 5.0
_SHA256 = f"{RESERVED_PREFIX}sha256"
_EMPTY = "%"
"""Stands for an empty value, which some servers drop; no quoted text is like it."""

_STANDARD = frozenset(
    {
        "Content-Type",
        "Content-Encoding",
        "Content-Language",
        "Content-Disposition",
        "Cache-Control",
        "Storage-Class",
    }
)
_UNKNOWN_TYPE = "application/octet-stream"


class _BrokenOffError(Exception):
    """Ends an upload from within its source, so that the parts that were sent already are removed."""


class Upload:
    """One upload to one key. Up to ``one_request`` bytes that are in memory are already sent in one request."""

    def __init__(
        self,
        store: ObjectStore,
        key: str,
        description: Description,
        condition: Condition,
        *,
        sha256: str | None,
        max_size: int,
        one_request: int,
        threads: FileThreads,
    ) -> None:
        self._store = store
        self._key = key
        self._description = description
        self._condition = condition
        self._expected = sha256
        self._max_size = max_size
        self._one_request = one_request
        self._threads = threads
        self._hash = hashlib.sha256()
        self._known_hash: str | None = None
        self._broken_off = False
        self._reading: asyncio.Future[list[bytes]] | None = None
        self.size = 0

    async def run(self, content: FileContent) -> None:
        """Send everything; see `Storage.upload` for what it raises."""
        if isinstance(content, bytes | HashedBytes):
            await self._send_bytes(content)
            return
        if self._expected is None:
            self._expected = await _hash_of_file(content, self._threads)
        async with aclosing(batches(content, self._threads)) as source:
            limit = PART_SIZE if self._condition.is_none else MAX_CONDITIONAL_SIZE
            head: list[bytes] = []
            async for batch in source:
                await self._count(batch)
                head += batch
                if self.size > limit:
                    break
            else:
                await self._put(b"".join(head))
                return
            self._refuse_condition()
            await self._put_parts(self._rest(head, source))

    async def _send_bytes(self, given: bytes | HashedBytes) -> None:
        content = given.content if isinstance(given, HashedBytes) else given
        if isinstance(given, HashedBytes):
            self._require_size(len(content))
            is_small = len(content) <= _HASHED_IN_THIS_THREAD
            self._known_hash = given.sha256 if is_small else await self._threads.run(_hash_of_bytes, given)
        else:
            await self._count([content])
        if self.size > MAX_CONDITIONAL_SIZE:
            self._refuse_condition()
        if self.size <= self._one_request or not self._condition.is_none:
            await self._put(content)
            return
        self._verify()
        self._expected = self._sha256
        await self._put_parts(content)

    async def _put(self, content: bytes) -> None:
        """One request."""
        self._verify()
        attributes = to_attributes(self._description, self._sha256)
        mode: Any = "overwrite" if self._condition.overwrite else "create"
        if self._condition.if_match is not None:
            mode = {"e_tag": f'"{self._condition.if_match}"'}
        request = obstore.put_async(
            self._store, self._key, content, attributes=attributes, mode=mode, use_multipart=False
        )
        with translated(self._key, "store", self._condition):
            await self._finish(request)

    async def _put_parts(self, content: bytes | AsyncIterator[bytes]) -> None:
        part_size = max(PART_SIZE, -(-self._max_size // _MAX_PARTS))
        request = obstore.put_async(
            self._store,
            self._key,
            content,
            attributes=to_attributes(self._description, self._expected),
            use_multipart=True,
            chunk_size=part_size,
            max_concurrency=_PARALLEL_PARTS,
        )
        with translated(self._key, "store"):
            await self._finish(request)

    async def _finish(self, request: Awaitable[object]) -> None:
        """Wait for a request, and when cancelled for its end as well, so that nothing goes on unseen.

        A source is asked to stop, which removes what was sent. A server that does not answer is not waited for long.
        """
        sending = asyncio.ensure_future(request)
        cancellation = await settled(sending, on_cancel=self._break_off, patience=_PATIENCE_WHEN_CANCELLED)
        if cancellation is not None:
            raise cancellation
        sending.result()

    def _break_off(self) -> None:
        self._broken_off = True
        if self._reading is not None:
            self._reading.cancel()

    async def _rest(self, head: list[bytes], source: AsyncGenerator[list[bytes]]) -> AsyncIterator[bytes]:
        """What was read already, and what comes; fails at its end when it is not what was announced."""
        for chunk in head:
            yield chunk
        head.clear()
        while batch := await self._next(source):
            await self._count(batch)
            for chunk in batch:
                if chunk:
                    yield chunk
        self._verify()

    async def _next(self, source: AsyncGenerator[list[bytes]]) -> list[bytes]:
        """The next batch, or nothing at the end."""
        if self._broken_off:
            raise _BrokenOffError
        self._reading = asyncio.ensure_future(anext(source, []))
        try:
            return await self._reading
        except asyncio.CancelledError:
            raise _BrokenOffError from None

    async def _count(self, batch: list[bytes]) -> None:
        size = sum(map(len, batch))
        self._require_size(size)
        if size <= _HASHED_IN_THIS_THREAD:
            self._update(batch)
        else:
            await self._threads.run(self._update, batch)

    def _require_size(self, more: int) -> None:
        self.size += more
        if self.size > self._max_size:
            raise FileTooLargeError(f"the file for {self._key!r} is larger than {self._max_size} bytes (MAX_FILE_SIZE)")

    @property
    def _sha256(self) -> str:
        return self._known_hash or self._hash.hexdigest()

    def _update(self, batch: list[bytes]) -> None:
        for chunk in batch:
            self._hash.update(chunk)

    def _verify(self) -> None:
        if self._expected is not None and self._sha256 != self._expected:
            raise ContentMismatchError(f"the content for {self._key!r} has another SHA-256 than it should have")

    def _refuse_condition(self) -> None:
        if not self._condition.is_none:
            raise NotSupportedByStorageError(
                f"a file of more than {MAX_CONDITIONAL_SIZE} bytes is sent in parts, and cannot be uploaded on a "
                "condition (overwrite=False, if_match): use a key that nobody else uses"
            )


async def _hash_of_file(content: FileContent, threads: FileThreads) -> str | None:
    """The SHA-256 of a file that can be read twice and will be sent in parts; None of anything else."""
    if isinstance(content, Path):
        return await threads.run(_hash_of_path, content)
    if isinstance(content, AsyncIterable | bytes | HashedBytes):
        return None
    if not (hasattr(content, "seekable") and content.seekable()):
        return None
    return await threads.run(_hash_of_rest, content)


def _hash_of_bytes(content: HashedBytes) -> str:
    return content.sha256


def _hash_of_path(path: Path) -> str | None:
    if path.stat().st_size <= PART_SIZE:
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _hash_of_rest(file: BinaryIO) -> str | None:
    position = file.tell()
    try:
        if file.seek(0, os.SEEK_END) - position <= PART_SIZE:
            return None
        file.seek(position)
        return _hash_of(file)
    finally:
        file.seek(position)


def _hash_of(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(BATCH_SIZE):
        digest.update(chunk)
    return digest.hexdigest()


def to_attributes(description: Description, sha256: str | None) -> dict[str, str]:
    """What is sent with a file: headers of HTTP by their names, and metadata, percent-encoded."""
    attributes = {name: _kept(value) for name, value in description.metadata.items()}
    attributes["Content-Type"] = description.content_type
    if description.content_encoding is not None:
        attributes["Content-Encoding"] = description.content_encoding
    if description.cache_control is not None:
        attributes["Cache-Control"] = description.cache_control
    if sha256 is not None:
        attributes[_SHA256] = sha256
    return attributes


def to_information(key: str, result: GetResult) -> FileInformation:
    """What the headers of an answer say about a file."""
    attributes, meta = result.attributes, result.meta
    return FileInformation(
        key,
        meta["size"],
        attributes.get("Content-Type", _UNKNOWN_TYPE),
        attributes.get(_SHA256),
        meta["last_modified"].astimezone(UTC),
        (meta["e_tag"] or "").strip('"'),
        _metadata(attributes),
        attributes.get("Content-Encoding"),
        attributes.get("Cache-Control"),
    )


def _metadata(attributes: Mapping[str, str]) -> dict[str, str]:
    # Servers are free to change the case of names.
    return {
        name.lower(): "" if value == _EMPTY else unquote(value)
        for name, value in attributes.items()
        if name not in _STANDARD and not name.startswith(RESERVED_PREFIX)
    }


def _kept(value: str) -> str:
    return quote(value) if value else _EMPTY


async def get(store: ObjectStore, key: str) -> GetResult:
    """The answer to a request for a whole file; its body is still to be read."""
    with translated(key, "read"):
        return await obstore.get_async(store, key)


async def download(store: ObjectStore, key: str) -> bytes:
    """The whole file."""
    result = await get(store, key)
    with translated(key, "read"):
        return bytes(await result.bytes_async())


async def stat(store: ObjectStore, key: str) -> FileInformation:
    """What is known about a file."""
    with translated(key, "read"):
        return to_information(key, await obstore.get_async(store, key, options={"head": True}))


Opened = tuple[FileInformation, AsyncGenerator[bytes]]
"""A file, and its chunks, which hold a connection until they are closed."""


async def open_file(store: ObjectStore, key: str, start: int, end: int | None) -> Opened:
    """A file, open for reading from ``start`` up to ``end``."""
    if start == 0 and end is None:
        result = await get(store, key)
        return to_information(key, result), _chunks(result, key)
    if end is not None and end <= start:
        return await stat(store, key), _nothing()
    part = await _get_range(store, key, {"offset": start} if end is None else (start, end))
    if part is None:
        return await _open_without_range(store, key, start, end)
    return to_information(key, part), _chunks(part, key)


async def _get_range(store: ObjectStore, key: str, asked: OffsetRange | tuple[int, int]) -> GetResult | None:
    """The answer to a request for a part; None where the server does not give one."""
    with translated(key, "read a part of"):
        try:
            return await obstore.get_async(store, key, options={"range": asked})
        except BaseError as error:
            if is_about_a_range(error):
                return None
            raise


async def _open_without_range(store: ObjectStore, key: str, start: int, end: int | None) -> Opened:
    """The range is empty, or the server takes none, as `rclone serve s3` does: read everything, and leave out."""
    result = await get(store, key)
    information = to_information(key, result)
    limit = information.size if end is None else min(end, information.size)
    if start >= limit:
        return information, _nothing()
    return information, _cut(_chunks(result, key), start, limit)


async def _chunks(result: GetResult, key: str) -> AsyncGenerator[bytes]:
    with translated(key, "go on reading"):
        async for chunk in result.stream(min_chunk_size=BATCH_SIZE):
            yield chunk


async def _cut(chunks: AsyncGenerator[bytes], start: int, end: int) -> AsyncGenerator[bytes]:
    position = 0
    async with aclosing(chunks):
        async for chunk in chunks:
            piece = chunk[max(start - position, 0) : max(end - position, 0)]
            position += len(chunk)
            if piece:
                yield piece
            if position >= end:
                return


async def _nothing() -> AsyncGenerator[bytes]:
    for chunk in list[bytes]():
        yield chunk
