"""Reading what is to be uploaded, whatever form it has, in batches of about a mebibyte, or less where many arrive.

A client that sends slowly keeps its batch in memory for as long as it likes, and there may be a thousand of them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from data_layer.errors import InvalidValueError
from data_layer.storage.port import FileContent, HashedBytes
from data_layer.storage.threads import FileThreads

BATCH_SIZE = 1024 * 1024
"""Bytes that are read or written at a time: enough that handing them to a thread costs little beside the work."""

_SHARED = 16 * BATCH_SIZE
_SMALLEST_BATCH = 64 * 1024


class BatchBudget:
    """How large batches may be while many contents are read at the same time in this process."""

    def __init__(self) -> None:
        self._readers = 0

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Count one more content that is being read."""
        self._readers += 1
        try:
            yield
        finally:
            self._readers -= 1

    @property
    def batch_size(self) -> int:
        """Bytes after which a batch is complete."""
        return max(_SMALLEST_BATCH, min(BATCH_SIZE, _SHARED // max(1, self._readers)))


BATCHES = BatchBudget()
"""The budget of this process."""


async def batches(content: FileContent, threads: FileThreads) -> AsyncGenerator[list[bytes]]:
    """The content as lists of chunks, about ``BATCH_SIZE`` bytes in each. What the source raises passes through.

    A list should be emptied once its bytes are written, or it stays in memory while the next one is collected.

    Raises:
        InvalidValueError: it is of none of the types that can be uploaded.
    """
    with BATCHES.reading():
        if isinstance(content, Path):
            with await threads.run(content.open, "rb") as file:
                async for batch in _batches_of(_chunks_of_file(file, threads)):
                    yield batch
        else:
            async for batch in _batches_of(_chunks(content, threads)):
                yield batch


async def _batches_of(chunks: AsyncIterable[bytes]) -> AsyncIterator[list[bytes]]:
    batch: list[bytes] = []
    size = 0
    async for chunk in chunks:
        batch.append(_checked(chunk))
        size += len(chunk)
        if size >= BATCHES.batch_size:
            yield batch
            batch, size = [], 0
    yield batch


def _chunks(
    content: bytes | HashedBytes | AsyncIterable[bytes] | BinaryIO, threads: FileThreads
) -> AsyncIterable[bytes]:
    if isinstance(content, HashedBytes):
        return _chunks_of_bytes(content.content)
    if isinstance(content, bytes):
        return _chunks_of_bytes(content)
    if isinstance(content, AsyncIterable):
        return content
    if hasattr(content, "read"):
        return _chunks_of_file(content, threads)
    raise InvalidValueError(
        f"{type(content).__name__} cannot be uploaded: give bytes, an asynchronous stream of bytes, a file that is "
        "open for reading bytes, or a Path",
        field="content",
    )


async def _chunks_of_bytes(content: bytes) -> AsyncIterator[bytes]:
    yield content


async def _chunks_of_file(file: BinaryIO, threads: FileThreads) -> AsyncIterator[bytes]:
    while chunk := _checked(await threads.run(file.read, BATCHES.batch_size)):
        yield chunk


def _checked(chunk: bytes) -> bytes:
    if isinstance(chunk, bytes):
        return chunk
    raise InvalidValueError(f"the content must be bytes, not {type(chunk).__name__}", field="content")
