"""Walking through an image without decoding it: its size, its frames, and whether it ends where the file ends."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from data_layer.errors import CorruptFileError, ImageTooLargeError, PolyglotFileError
from data_layer.storage.validation.chunks import jpeg_segments, png_chunks, webp_chunks

if TYPE_CHECKING:
    from collections.abc import Callable

_MAX_JPEG_SCANS = 500  # A few hundred kilobytes of empty scans would take minutes to decode.
_FRAME_SIZE_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


@dataclass(frozen=True, slots=True)
class Outline:
    """The measures of an image as it is stored, before its orientation is applied."""

    image_format: str
    width: int
    height: int
    frame_count: int


def outline(content: bytes, content_type: str) -> Outline:
    """The measures of an image.

    Raises:
        CorruptFileError: it is cut off or makes no sense.
        PolyglotFileError: bytes follow its end.
        ImageTooLargeError: it has absurdly many scans.
    """
    try:
        found, end = _WALKS[content_type](content)
    except (struct.error, IndexError) as error:
        raise CorruptFileError(f"The {content_type} is cut off") from error
    if end > len(content):
        raise CorruptFileError(f"The {content_type} is cut off: {end - len(content)} bytes are missing")
    if end < len(content):
        raise PolyglotFileError(f"{len(content) - end} bytes follow the end of the {content_type}; remove them")
    if found.width < 1 or found.height < 1:
        raise CorruptFileError(f"The {content_type} has no pixels")
    return found


def _walk_png(content: bytes) -> tuple[Outline, int]:
    width = height = 0
    frames, end = 1, 0
    for number, (kind, start, stop) in enumerate(png_chunks(content)):
        if (number == 0) != (kind == b"IHDR"):
            raise CorruptFileError("The image/png does not begin with one header")
        if zlib.crc32(content[start - 4 : stop]) != struct.unpack_from(">I", content, stop)[0]:
            raise CorruptFileError("The image/png is damaged: a checksum is wrong")
        if kind == b"IHDR":
            width, height = struct.unpack_from(">II", content, start)
        elif kind == b"acTL":
            (frames,) = struct.unpack_from(">I", content, start)
        end = stop + 4
    return Outline("PNG", width, height, max(frames, 1)), end


def _walk_jpeg(content: bytes) -> tuple[Outline, int]:
    width = height = scans = end = 0
    for marker, start, stop in jpeg_segments(content):
        if marker in _FRAME_SIZE_MARKERS:
            height, width = struct.unpack_from(">HH", content, start + 1)
        scans += marker == 0xDA
        if scans > _MAX_JPEG_SCANS:
            raise ImageTooLargeError(f"The image/jpeg has more than {_MAX_JPEG_SCANS} scans")
        end = stop
    return Outline("JPEG", width, height, 1), end


def _walk_gif(content: bytes) -> tuple[Outline, int]:
    width, height, flags = struct.unpack_from("<HHB", content, 6)
    position = 13 + _color_table(flags)
    frames = 0
    while (kind := content[position]) != 0x3B:
        if kind == 0x21:
            position = _after_blocks(content, position + 2)
        elif kind == 0x2C:
            left, top, wide, high, flags = struct.unpack_from("<HHHHB", content, position + 1)
            width, height = max(width, left + wide), max(height, top + high)
            frames += 1
            position = _after_blocks(content, position + 10 + _color_table(flags) + 1)
        else:
            raise CorruptFileError("The image/gif is damaged: an unknown block")
    if not frames:
        raise CorruptFileError("The image/gif has no picture")
    return Outline("GIF", width, height, frames), position + 1


def _walk_webp(content: bytes) -> tuple[Outline, int]:
    (size,) = struct.unpack_from("<I", content, 4)
    end = 8 + size + size % 2
    width = height = frames = 0
    for kind, start, _ in webp_chunks(content, min(end, len(content))):
        if kind == b"VP8X":
            width = 1 + int.from_bytes(content[start + 4 : start + 7], "little")
            height = 1 + int.from_bytes(content[start + 7 : start + 10], "little")
        elif kind == b"ANMF":
            frames += 1
        elif kind == b"VP8 " and not width:
            width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", content, start + 6))
        elif kind == b"VP8L" and not width:
            (bits,) = struct.unpack_from("<I", content, start + 1)
            width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return Outline("WEBP", width, height, max(frames, 1)), end


def _color_table(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _after_blocks(content: bytes, position: int) -> int:
    while length := content[position]:
        position += 1 + length
    return position + 1


_WALKS: dict[str, Callable[[bytes], tuple[Outline, int]]] = {
    "image/png": _walk_png,
    "image/jpeg": _walk_jpeg,
    "image/gif": _walk_gif,
    "image/webp": _walk_webp,
}
