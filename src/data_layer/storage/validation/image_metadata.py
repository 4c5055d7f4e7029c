"""Removing what an image tells about where and how it was taken, without touching its pixels.

Only the orientation stays, without which the image would be shown lying on its side.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

from PIL import Image

from data_layer.storage.validation.chunks import jpeg_segments, png_chunks, webp_chunks

if TYPE_CHECKING:
    from collections.abc import Callable

    from data_layer.storage.validation.limits import MetadataRemoval

_EXIF = b"Exif\x00\x00"
_GPS = 0x8825
_ORIENTATION = 0x0112
_JPEG_EXIF_AND_XMP, _JPEG_IPTC, _JPEG_COMMENT = 0xE1, 0xED, 0xFE
_PNG_TEXTS = frozenset({b"tEXt", b"zTXt", b"iTXt", b"tIME"})
_PNG_PROFILES = (b"XML:com.adobe.xmp\x00", b"Raw profile type ")
_VP8X_XMP, _VP8X_EXIF = 0x04, 0x08


def without_metadata(content: bytes, content_type: str, removal: MetadataRemoval) -> bytes:
    """The same image without what is to be removed; the very same bytes where there is nothing of it.

    Args:
        content: an image whose structure was found to be right.
        content_type: its media type.
        removal: what to remove. Besides EXIF, XMP and IPTC can tell a place, and go in either case.
    """
    return content if removal == "none" else _REMOVALS[content_type](content, removal == "all")


def _from_jpeg(content: bytes, everything: bool) -> bytes:  # noqa: FBT001  (called through a table)
    kept, position = bytearray(content[:2]), 2
    for marker, start, stop in jpeg_segments(content):
        data = content[start:stop]
        replacement: bytes | None = None
        if marker == _JPEG_EXIF_AND_XMP and data.startswith(_EXIF):
            replacement = _exif(data, everything=everything)
        elif marker in {_JPEG_EXIF_AND_XMP, _JPEG_IPTC} or (everything and marker == _JPEG_COMMENT):
            replacement = b""
        if replacement is not None:
            if replacement:
                kept += struct.pack(">BBH", 0xFF, marker, len(replacement) + 2) + replacement
            position = stop
            continue
        if marker == 0xDA:
            break
        kept += content[position:stop]
        position = stop
    return bytes(kept + content[position:])


def _from_png(content: bytes, everything: bool) -> bytes:  # noqa: FBT001  (called through a table)
    kept = bytearray(content[:8])
    for kind, start, stop in png_chunks(content):
        data = content[start:stop]
        if kind == b"eXIf":
            data = _exif(_EXIF + data, everything=everything).removeprefix(_EXIF)
            if not data:
                continue
        elif kind in _PNG_TEXTS and (everything or data.startswith(_PNG_PROFILES)):
            continue
        kept += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return bytes(kept)


def _from_webp(content: bytes, everything: bool) -> bytes:  # noqa: FBT001  (called through a table)
    kept = bytearray()
    flags = 0
    for kind, start, stop in webp_chunks(content, len(content)):
        data = content[start:stop]
        if kind == b"XMP ":
            continue
        if kind == b"EXIF":
            data = _exif(_EXIF + data.removeprefix(_EXIF), everything=everything).removeprefix(_EXIF)
            if not data:
                continue
            flags |= _VP8X_EXIF
        kept += struct.pack("<4sI", kind, len(data)) + data + b"\0" * (len(data) % 2)
    if kept[:4] == b"VP8X":
        kept[8] = kept[8] & ~(_VP8X_XMP | _VP8X_EXIF) | flags
    return b"RIFF" + struct.pack("<I", len(kept) + 4) + b"WEBP" + bytes(kept)


def _from_gif(content: bytes, everything: bool) -> bytes:  # noqa: ARG001, FBT001  (called through a table)
    return content  # It carries no EXIF.


def _exif(data: bytes, *, everything: bool) -> bytes:
    """EXIF data without the place, or with the orientation alone; nothing where it cannot be read."""
    exif = Image.Exif()
    try:
        exif.load(data)
        orientation = exif.get(_ORIENTATION)
        if everything:
            exif = Image.Exif()
            if orientation not in {None, 1}:
                exif[_ORIENTATION] = orientation
        elif _GPS in exif:
            del exif[_GPS]
        else:
            return data
        return exif.tobytes() if len(exif) else b""
    except Exception:  # noqa: BLE001  (a parser of anything may raise anything; what it cannot read is removed)
        return b""


_REMOVALS: dict[str, Callable[[bytes, bool], bytes]] = {
    "image/jpeg": _from_jpeg,
    "image/png": _from_png,
    "image/webp": _from_webp,
    "image/gif": _from_gif,
}
