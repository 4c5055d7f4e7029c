"""Archives and documents that must end where they say: PDF and ZIP."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from data_layer.errors import CorruptFileError, PolyglotFileError

if TYPE_CHECKING:
    from data_layer.storage.validation.received import ReceivedFile

_PDF_TAIL = 1024
_ZIP_END = b"PK\x05\x06"
_ZIP_END_SIZE = 22
_ZIP_TAIL = _ZIP_END_SIZE + 0xFFFF


def check_pdf(file: ReceivedFile) -> None:
    """Accept a PDF that ends with its end mark.

    Raises:
        CorruptFileError: there is no such mark near the end.
        PolyglotFileError: more than white space follows it.
    """
    tail = file.read_part(max(0, file.size - _PDF_TAIL), _PDF_TAIL)
    _, mark, rest = tail.rpartition(b"%%EOF")
    if not mark:
        raise CorruptFileError("The application/pdf is cut off: its end is missing")
    if rest.strip(b"\r\n\t \x00"):
        raise PolyglotFileError("Bytes follow the end of the application/pdf; remove them")


def check_zip(file: ReceivedFile) -> None:
    """Accept a ZIP archive whose directory ends where the file ends.

    Raises:
        CorruptFileError: there is no end of a directory near the end.
        PolyglotFileError: bytes follow it.
    """
    start = max(0, file.size - _ZIP_TAIL)
    tail = file.read_part(start, _ZIP_TAIL)
    place = tail.rfind(_ZIP_END)
    if place < 0 or place + _ZIP_END_SIZE > len(tail):
        raise CorruptFileError("The application/zip is cut off: its directory is missing")
    size, offset, comment = struct.unpack_from("<IIH", tail, place + 12)
    if offset != 0xFFFFFFFF and offset + size > start + place:
        raise CorruptFileError("The application/zip is damaged: its directory lies outside")
    if place + _ZIP_END_SIZE + comment != len(tail):
        raise PolyglotFileError("Bytes follow the end of the application/zip; remove them")
