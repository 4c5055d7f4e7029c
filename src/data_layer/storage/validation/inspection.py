"""Judging files in threads of their own, each within a time limit."""

from __future__ import annotations

import asyncio
import os
import struct
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor

from data_layer.concurrency import ignore_error
from data_layer.errors import CorruptFileError, EmptyFileError, ImageTimeoutError, PolyglotFileError
from data_layer.extras import require_extra
from data_layer.storage.validation.received import ReceivedFile
from data_layer.storage.validation.svg import check_svg
from data_layer.storage.validation.types import IMAGE_TYPES, SVG, recognize
from data_layer.storage.validation.values import FileLimits, InspectedFile, Thumbnail

_THREADS = 4  # At most: decoding keeps a processor busy, and each thread keeps some memory that it has used.
_QUEUE_SECONDS = 60.0
_GRACE = 1.0  # Seconds for the thread to notice by itself that its time is over.

_PDF_TAIL = 1024
_ZIP_END = b"PK\x05\x06"
_ZIP_END_SIZE = 22
_ZIP_TAIL = _ZIP_END_SIZE + 0xFFFF


class Inspector:
    """Says what a file is and whether it may be stored, and makes thumbnails."""

    def __init__(self, limits: FileLimits) -> None:
        self.limits = limits
        threads = min(_THREADS, max(2, os.cpu_count() or 1))
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="inspection")

    async def inspect(
        self, file: ReceivedFile, declared_type: str | None, allowed_types: AbstractSet[str] | None = None
    ) -> InspectedFile:
        """What the file really is, its content as it is to be stored, and its thumbnails if it is an image.

        Args:
            file: the content.
            declared_type: what the uploader says it is, if anything.
            allowed_types: the types that may be stored, instead of those of the limits.

        Raises:
            InvalidFileError: it may not be stored; the subclass and the message say why.
        """
        allowed = self.limits.allowed_types if allowed_types is None else allowed_types
        limit = self.limits.time_limit
        loop = asyncio.get_running_loop()
        job = loop.run_in_executor(self._executor, _inspect, file, declared_type, allowed, self.limits)
        try:
            finished, _ = await asyncio.wait([job], timeout=_QUEUE_SECONDS + 2 * limit + _GRACE)
        finally:
            if not job.done():
                ignore_error(job)
                job.cancel()  # It does not begin any more; what has begun ends at its deadline.
        if not finished:
            raise ImageTimeoutError(f"The file took longer than {limit:g} s to inspect (IMAGE_TIME_LIMIT)")
        return job.result()

    async def thumbnails(self, file: InspectedFile) -> list[Thumbnail]:
        """Small pictures of an image, in those sizes of the limits that are smaller than it, largest first."""
        return list(file.thumbnails)

    async def close(self) -> None:
        """Wait for what is being decoded, which ends within its time limit."""
        await asyncio.to_thread(self._executor.shutdown)


def _inspect(file: ReceivedFile, declared: str | None, allowed: AbstractSet[str], limits: FileLimits) -> InspectedFile:
    if file.size == 0:
        raise EmptyFileError("The file is empty")
    content_type = recognize(file, declared, allowed)
    if content_type in IMAGE_TYPES:
        require_extra("images", "storing an image", "PIL")
        # Here, because Pillow is needed for images alone, and not installed without them.
        from data_layer.storage.validation.images import inspect_image

        return inspect_image(file, content_type, limits)
    if content_type == SVG:
        check_svg(file)
    elif content_type == "application/pdf":
        _check_pdf(file)
    elif content_type == "application/zip":
        _check_zip(file)
    return InspectedFile(content_type, file)


def _check_pdf(file: ReceivedFile) -> None:
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


def _check_zip(file: ReceivedFile) -> None:
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
