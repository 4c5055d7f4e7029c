"""EXIF data: reading the orientation as browsers do, and writing what may be kept.

EXIF is a TIFF directory that every camera and editor writes with faults of its own. Nothing in it can make an image
unusable: an entry that makes no sense is passed over. What is written is made anew from entries whose meaning is known.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from data_layer.storage.validation.values import MetadataRemoval

_ORIENTATION, _EXIF_DIRECTORY = 0x0112, 0x8769
_ASCII, _SHORT, _LONG, _RATIONAL, _SIGNED_RATIONAL = 2, 3, 4, 5, 10
_VALUE_SIZES = {_ASCII: 1, _SHORT: 2, _LONG: 4, _RATIONAL: 8, _SIGNED_RATIONAL: 8}
_MAX_VALUE = 2048
_MAX_ENTRIES = 512

# What tells about the picture and the camera, but not about the place (EXIF 3.0, section 4.6).
_KEPT_OF_IMAGE = {
    _ASCII: {0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x8298},
    _SHORT: {_ORIENTATION, 0x0128},
    _RATIONAL: {0x011A, 0x011B},
}
_KEPT_OF_CAMERA = {
    _ASCII: {0x9003, 0x9004, 0x9290, 0x9291, 0x9292, 0xA433, 0xA434},
    _SHORT: {0x8822, 0x8827, 0x9207, 0x9208, 0x9209, 0xA001, 0xA002, 0xA003, 0xA402, 0xA403, 0xA405, 0xA406},
    _LONG: {0xA002, 0xA003},
    _RATIONAL: {0x829A, 0x829D, 0x9202, 0x9205, 0x920A, 0xA404},
    _SIGNED_RATIONAL: {0x9201, 0x9203, 0x9204},
}


class _Entry(NamedTuple):
    tag: int
    kind: int
    number: int
    value: bytes


def read_orientation(exif: bytes) -> int:
    """The orientation, 1 to 8, that a TIFF directory gives; 1 where it gives none that a browser would respect."""
    for entry in _entries(exif, _first_directory(exif)):
        if entry.tag == _ORIENTATION and (entry.kind, entry.number) == (_SHORT, 1):
            (value,) = struct.unpack_from(_order(exif) + "H", entry.value)
            return value if 1 <= value <= 8 else 1
    return 1


def reduced_exif(exif: bytes, removal: MetadataRemoval) -> bytes:
    """The EXIF data that stays after removal, as a TIFF directory; nothing where none stays."""
    orientation = read_orientation(exif)
    order = _order(exif)
    turned = [_Entry(_ORIENTATION, _SHORT, 1, struct.pack(order + "H", orientation))] if orientation != 1 else []
    if removal == "all":
        return _directories(order, turned, [])
    first = list(_entries(exif, _first_directory(exif)))
    image = [entry for entry in _known(first, _KEPT_OF_IMAGE) if entry.tag != _ORIENTATION]
    camera: list[_Entry] = []
    for entry in first:
        if entry.tag == _EXIF_DIRECTORY and entry.kind == _LONG and len(entry.value) == 4:
            (place,) = struct.unpack(order + "I", entry.value)
            camera = list(_known(_entries(exif, place), _KEPT_OF_CAMERA))
            break
    return _directories(order, turned + image, camera)


def _order(exif: bytes) -> str:
    return ">" if exif.startswith(b"MM") else "<"


def _first_directory(exif: bytes) -> int:
    if exif[:4] not in {b"II*\x00", b"MM\x00*"} or len(exif) < 8:
        return len(exif)
    (place,) = struct.unpack_from(_order(exif) + "I", exif, 4)
    return int(place)


def _entries(exif: bytes, place: int) -> Iterator[_Entry]:
    """The entries of the directory at a place, as far as there are; without values where these lie outside."""
    order = _order(exif)
    if place + 2 > len(exif):
        return
    (number,) = struct.unpack_from(order + "H", exif, place)
    for start in range(place + 2, min(place + 2 + 12 * min(number, _MAX_ENTRIES), len(exif) - 11), 12):
        tag, kind, count = struct.unpack_from(order + "HHI", exif, start)
        size = count * _VALUE_SIZES.get(kind, 4)
        position = start + 8 if size <= 4 else struct.unpack_from(order + "I", exif, start + 8)[0]
        value = exif[position : position + size] if size <= _MAX_VALUE else b""
        yield _Entry(tag, kind, count, value if len(value) == size else b"")


def _known(entries: Iterable[_Entry], kept: dict[int, set[int]]) -> Iterator[_Entry]:
    seen: set[int] = set()
    for entry in entries:
        if entry.value and entry.tag in kept.get(entry.kind, set()) and entry.tag not in seen:
            seen.add(entry.tag)
            yield entry


def _directories(order: str, image: list[_Entry], camera: list[_Entry]) -> bytes:
    """A TIFF file of these entries, those of the camera in a directory of their own."""
    if not image and not camera:
        return b""
    head = (b"MM\x00*" if order == ">" else b"II*\x00") + struct.pack(order + "I", 8)
    if not camera:
        return head + _directory(order, image, 8)
    pointer = _Entry(_EXIF_DIRECTORY, _LONG, 1, bytes(4))
    place = 8 + len(_directory(order, [*image, pointer], 8))
    pointer = pointer._replace(value=struct.pack(order + "I", place))
    return head + _directory(order, [*image, pointer], 8) + _directory(order, camera, place)


def _directory(order: str, entries: list[_Entry], place: int) -> bytes:
    table, values = struct.pack(order + "H", len(entries)), b""
    behind = place + 2 + 12 * len(entries) + 4
    for tag, kind, number, value in sorted(entries):
        table += struct.pack(order + "HHI", tag, kind, number)
        if len(value) <= 4:
            table += value.ljust(4, b"\x00")
        else:
            table += struct.pack(order + "I", behind + len(values))
            values += value + b"\x00" * (len(value) % 2)
    return table + bytes(4) + values
