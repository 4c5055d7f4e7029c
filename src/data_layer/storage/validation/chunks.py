"""The parts that image files are made of: where each begins and ends."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from data_layer.errors import CorruptFileError

if TYPE_CHECKING:
    from collections.abc import Iterator

_STANDALONE_MARKERS = frozenset({0x01, *range(0xD0, 0xD8)})


def png_chunks(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """The chunks of a PNG, ``IEND`` last: kind, begin and end of its data.

    Raises:
        CorruptFileError: the file ends inside a chunk.
    """
    position = 8
    kind = b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", content, position)
        start, stop = position + 8, position + 8 + length
        if stop + 4 > len(content):
            raise CorruptFileError("The image/png is cut off")
        yield kind, start, stop
        position = stop + 4


def jpeg_segments(content: bytes) -> Iterator[tuple[int, int, int]]:
    """The segments of a JPEG up to its end marker: marker, begin and end of its data.

    The compressed data that follows the header of a scan belongs to none of them.

    Raises:
        CorruptFileError: what should be a marker is none.
    """
    position = 2
    while True:
        position = _marker(content, position)
        marker = content[position - 1]
        if marker == 0xD9:
            yield marker, position, position
            return
        if marker in _STANDALONE_MARKERS:
            continue
        (length,) = struct.unpack_from(">H", content, position)
        if length < 2 or position + length > len(content):
            raise CorruptFileError("The image/jpeg is cut off")
        yield marker, position + 2, position + length
        position += length


def _marker(content: bytes, position: int) -> int:
    """The place behind the next marker; compressed data before it is passed over."""
    while True:
        position = content.find(b"\xff", position)
        if position < 0:
            raise CorruptFileError("The image/jpeg is cut off: its end is missing")
        while content[position] == 0xFF:
            position += 1
        position += 1
        if content[position - 1] != 0 and content[position - 1] not in _STANDALONE_MARKERS:
            return position


def webp_chunks(content: bytes, end: int) -> Iterator[tuple[bytes, int, int]]:
    """The chunks of a WebP file up to ``end``: kind, begin and end of its data.

    Raises:
        CorruptFileError: the file ends inside a chunk.
    """
    position = 12
    while position < end:
        kind, length = struct.unpack_from("<4sI", content, position)
        start, stop = position + 8, position + 8 + length
        if stop > end:
            raise CorruptFileError("The image/webp is cut off")
        yield kind, start, stop
        position = stop + length % 2
