"""Texts are stored compressed.

With gzip, because clients of the storage or a CDN get a file as it is stored, and gzip is what
every browser and HTTP library undoes; Brotli needs HTTPS and zstd a recent browser, for a tenth of the size more.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import AsyncIterator, Iterator

from data_layer.entities.enums import FileEncoding
from data_layer.errors import DamagedFileError
from data_layer.storage.validation import ReceivedFile
from data_layer.storage.validation.inspector import TEXT_TYPES

_LEVEL = 6
_SMALLEST = 512  # Bytes below which the header and the work are not worth it.
LARGEST = 64 * 1024 * 1024
"""Bytes of the largest text that is compressed; a larger one would be held in memory twice."""
_WORTHWHILE = 0.9
_PIECE = 256 * 1024


def is_packable(file: ReceivedFile, content_type: str) -> bool:
    """Whether it is worth trying to compress a file."""
    return content_type in TEXT_TYPES and _SMALLEST <= file.size <= LARGEST


def pack(file: ReceivedFile) -> tuple[ReceivedFile, FileEncoding | None]:
    """The bytes to store for a packable file, and how they are encoded. Blocks; meant for a thread.

    The file is hashed too, because a storage would hash only what is packed.
    """
    _ = file.sha256
    packed = gzip.compress(file.read(), _LEVEL, mtime=0)
    if len(packed) > file.size * _WORTHWHILE:
        return file, None
    return ReceivedFile.of_bytes(packed), FileEncoding.GZIP


async def unpack(chunks: AsyncIterator[bytes], size: int | None) -> AsyncIterator[bytes]:
    """What was packed, in pieces.

    Args:
        chunks: the stored bytes.
        size: how many bytes must come out; None where nobody knows. A bomb is given up there, or at ``LARGEST``.

    Raises:
        DamagedFileError: these are not the bytes that were stored.
    """
    inflater = _Inflater(LARGEST if size is None else size)
    async for chunk in chunks:
        for piece in inflater.feed(chunk):
            yield piece
    inflater.finish(exactly=size is not None)


async def verified(chunks: AsyncIterator[bytes], sha256: str | None) -> AsyncIterator[bytes]:
    """The same chunks, and an error after the last one if their hash is another.

    Raises:
        DamagedFileError: these are not the bytes that were stored.
    """
    digest = hashlib.sha256()
    async for chunk in chunks:
        digest.update(chunk)
        yield chunk
    if sha256 is not None and digest.hexdigest() != sha256:
        raise DamagedFileError("a stored file has another SHA-256 than was saved: its bytes were changed")


class _Inflater:
    def __init__(self, size: int) -> None:
        self._object = zlib.decompressobj(wbits=31)
        self._left = size

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        while chunk:
            try:
                piece = self._object.decompress(chunk, _PIECE)
            except zlib.error as error:
                raise DamagedFileError("a stored file cannot be decompressed: its bytes were changed") from error
            self._left -= len(piece)
            if self._left < 0 or self._object.unused_data:
                raise DamagedFileError("a stored file decompresses to more than was stored: its bytes were changed")
            chunk = self._object.unconsumed_tail
            if piece:
                yield piece

    def finish(self, *, exactly: bool) -> None:
        if not self._object.eof or (exactly and self._left):
            raise DamagedFileError("a stored file is cut off")
