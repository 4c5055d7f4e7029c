"""Reading one version of a file from an object store."""

from __future__ import annotations

from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import BaseError

from data_layer.storage.content import BATCH_SIZE
from data_layer.storage.object_store.attributes import to_information
from data_layer.storage.object_store.failures import is_about_a_range, translated
from data_layer.storage.port import OpenFile

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from obstore import GetResult, OffsetRange
    from obstore.store import ObjectStore

    from data_layer.storage.port import FileInformation


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


async def open_file(store: ObjectStore, key: str, start: int, end: int | None) -> OpenFile:
    """A file, open for reading from ``start`` up to ``end``."""
    if start == 0 and end is None:
        result = await get(store, key)
        return OpenFile(to_information(key, result), _chunks(result, key))
    if end is not None and end <= start:
        return OpenFile(await stat(store, key), _nothing())
    part = await _get_range(store, key, {"offset": start} if end is None else (start, end))
    if part is None:
        return await _open_without_range(store, key, start, end)
    return OpenFile(to_information(key, part), _chunks(part, key))


async def _get_range(store: ObjectStore, key: str, asked: OffsetRange | tuple[int, int]) -> GetResult | None:
    """The answer to a request for a part; None where the server does not give one."""
    with translated(key, "read a part of"):
        try:
            return await obstore.get_async(store, key, options={"range": asked})
        except BaseError as error:
            if is_about_a_range(error):
                return None
            raise


async def _open_without_range(store: ObjectStore, key: str, start: int, end: int | None) -> OpenFile:
    """The range is empty, or the server takes none, as `rclone serve s3` does: read everything, and leave out."""
    result = await get(store, key)
    information = to_information(key, result)
    limit = information.size if end is None else min(end, information.size)
    if start >= limit:
        return OpenFile(information, _nothing())
    return OpenFile(information, _cut(_chunks(result, key), start, limit))


async def _chunks(result: GetResult, key: str) -> AsyncIterator[bytes]:
    with translated(key, "go on reading"):
        async for chunk in result.stream(min_chunk_size=BATCH_SIZE):
            yield chunk


async def _cut(chunks: AsyncIterator[bytes], start: int, end: int) -> AsyncIterator[bytes]:
    position = 0
    async for chunk in chunks:
        piece = chunk[max(start - position, 0) : max(end - position, 0)]
        position += len(chunk)
        if piece:
            yield piece
        if position >= end:
            return


async def _nothing() -> AsyncIterator[bytes]:
    for chunk in list[bytes]():
        yield chunk
