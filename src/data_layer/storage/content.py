"""Reading what is to be uploaded, whatever form it has, in batches of about a mebibyte."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from pathlib import Path
from typing import BinaryIO

from data_layer.errors import InvalidValueError
from data_layer.storage.port import FileContent
from data_layer.storage.threads import FileThreads

BATCH_SIZE = 1024 * 1024
"""Bytes that are read or written at a time: enough that handing them to a thread costs little beside the work."""


async def batches(content: FileContent, threads: FileThreads) -> AsyncGenerator[list[bytes]]:
    """The content as lists of chunks, about ``BATCH_SIZE`` bytes in each. What the source raises passes through.

    Raises:
        InvalidValueError: it is of none of the types that can be uploaded.
    """
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
        if size >= BATCH_SIZE:
            yield batch
            batch, size = [], 0
    yield batch


def _chunks(content: bytes | AsyncIterable[bytes] | BinaryIO, threads: FileThreads) -> AsyncIterable[bytes]:
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
    while chunk := await threads.run(file.read, BATCH_SIZE):
        yield chunk


def _checked(chunk: bytes) -> bytes:
    if isinstance(chunk, bytes):
        return chunk
    raise InvalidValueError(f"The content must be bytes, not {type(chunk).__name__}", field="content")
