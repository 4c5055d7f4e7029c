"""What a file is, by its content, and whether it may be stored; judged in threads, each within a time limit."""

from __future__ import annotations

import asyncio
import codecs
import math
import os
import re
import struct
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

import orjson

from data_layer.concurrency import ignore_error
from data_layer.errors import (
    ConfigurationError,
    CorruptFileError,
    EmptyFileError,
    FileTypeMismatchError,
    FileTypeNotAllowedError,
    ImageTimeoutError,
    PolyglotFileError,
)
from data_layer.extras import require_extra
from data_layer.settings.storage import FileSettings
from data_layer.storage.validation.received import FileLimits, InspectedFile, ReceivedFile, Thumbnail
from data_layer.storage.validation.svg import check_svg

P = ParamSpec("P")
Result = TypeVar("Result")

_THREADS = 4  # At most: decoding keeps a processor busy, and each thread keeps some memory that it has used.
_QUEUE_SECONDS = 60.0
_GRACE = 1.0  # Seconds for the thread to notice by itself that its time is over.

_PDF_TAIL = 1024
_ZIP_END = b"PK\x05\x06"
_ZIP_END_SIZE = 22
_ZIP_TAIL = _ZIP_END_SIZE + 0xFFFF


def limits_of(settings: FileSettings, max_file_size: int) -> FileLimits:
    """Return the rules that the settings name.

    Raises:
        ConfigurationError: ALLOWED_FILE_TYPES holds a type that cannot be recognised by content.
    """
    allowed = frozenset(map(canonical_type, settings.allowed_file_types))
    if unknown := allowed - KNOWN_TYPES:
        raise ConfigurationError(
            f"ALLOWED_FILE_TYPES: {', '.join(sorted(unknown))} cannot be recognised by content; "
            f"known are: {', '.join(sorted(KNOWN_TYPES))}"
        )
    return FileLimits(
        max_file_size=max_file_size,
        allowed_types=allowed,
        max_pixels=settings.image_max_pixels,
        max_frames=settings.image_max_frames,
        time_limit=settings.image_time_limit,
        memory_limit=settings.image_memory_limit,
        thumbnail_sizes=settings.image_thumbnail_sizes,
        metadata_removal=settings.image_remove_metadata,
    )


class Inspector:
    """Says what a file is and whether it may be stored, and makes thumbnails."""

    def __init__(self, limits: FileLimits) -> None:
        self.limits = limits
        threads = min(_THREADS, max(2, os.cpu_count() or 1))
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="inspection")

    async def inspect(
        self, file: ReceivedFile, declared_type: str | None, allowed_types: AbstractSet[str] | None = None
    ) -> InspectedFile:
        """What the file really is, its content as it is to be stored, and what is known of it if it is an image.

        Args:
            file: the content.
            declared_type: what the uploader says it is, if anything.
            allowed_types: the types that may be stored, instead of those of the limits.

        Raises:
            InvalidFileError: it may not be stored; the subclass and the message say why.
        """
        allowed = self.limits.allowed_types if allowed_types is None else allowed_types
        if file.is_in_memory and _type_of(file.read_part(0, _HEAD_SIZE)) in _BINARY_TYPES:
            # To look at its beginning and its end takes less time than to hand it to a thread.
            return _inspect(file, declared_type, allowed, self.limits)
        return await self._run(_inspect, file, declared_type, allowed, self.limits)

    def makes_thumbnails(self, file: InspectedFile) -> bool:
        """Whether there are thumbnails to make of a file: whether it is an image that is larger than one of them."""
        image = file.image
        return image is not None and max(image.width, image.height) > min(self.limits.thumbnail_sizes, default=math.inf)

    async def thumbnails(self, file: InspectedFile) -> list[Thumbnail]:
        """Small pictures of an image, in those sizes of the limits that are smaller than it, largest first.

        There are none of what is not an image, or cannot be decoded in the memory and time that there are.

        Raises:
            ImageTimeoutError: too much else is being decoded; later it may work.
            InvalidFileError: it cannot be decoded.
        """
        if file.content_type not in IMAGE_TYPES:
            return []
        return await self._run(_make_thumbnails, file, self.limits)

    async def _run(self, work: Callable[P, Result], *args: P.args, **kwargs: P.kwargs) -> Result:
        limit = self.limits.time_limit
        job = asyncio.get_running_loop().run_in_executor(self._executor, partial(work, *args, **kwargs))
        try:
            finished, _ = await asyncio.wait([job], timeout=_QUEUE_SECONDS + 2 * limit + _GRACE)
        finally:
            if not job.done():
                ignore_error(job)
                job.cancel()  # It does not begin any more; what has begun ends at its deadline.
        if not finished:
            raise ImageTimeoutError(f"the file took longer than {limit:g} s to inspect (IMAGE_TIME_LIMIT)")
        return job.result()

    async def close(self) -> None:
        """Wait for what is being decoded, which ends within its time limit."""
        await asyncio.to_thread(self._executor.shutdown)


def _inspect(file: ReceivedFile, declared: str | None, allowed: AbstractSet[str], limits: FileLimits) -> InspectedFile:
    if file.size == 0:
        raise EmptyFileError("the file is empty")
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


def _make_thumbnails(file: InspectedFile, limits: FileLimits) -> list[Thumbnail]:
    require_extra("images", "making thumbnails", "PIL")
    from data_layer.storage.validation.images import make_thumbnails

    return make_thumbnails(file.content, file.content_type, limits)


def _check_pdf(file: ReceivedFile) -> None:
    """Accept a PDF that ends with its end mark.

    Raises:
        CorruptFileError: no such mark stands near the end.
        PolyglotFileError: more than white space follows it.
    """
    tail = file.read_part(max(0, file.size - _PDF_TAIL), _PDF_TAIL)
    _, mark, rest = tail.rpartition(b"%%EOF")
    if not mark:
        raise CorruptFileError("the application/pdf is cut off: its end is missing")
    if rest.strip(b"\r\n\t \x00"):
        raise PolyglotFileError("Bytes follow the end of the application/pdf; remove them")


def _check_zip(file: ReceivedFile) -> None:
    """Accept a ZIP archive whose directory ends where the file ends.

    Raises:
        CorruptFileError: no directory ends near the end.
        PolyglotFileError: bytes follow it.
    """
    start = max(0, file.size - _ZIP_TAIL)
    tail = file.read_part(start, _ZIP_TAIL)
    place = tail.rfind(_ZIP_END)
    if place < 0 or place + _ZIP_END_SIZE > len(tail):
        raise CorruptFileError("the application/zip is cut off: its directory is missing")
    size, offset, comment = struct.unpack_from("<IIH", tail, place + 12)
    if offset != 0xFFFFFFFF and offset + size > start + place:
        raise CorruptFileError("the application/zip is damaged: its directory lies outside")
    if place + _ZIP_END_SIZE + comment != len(tail):
        raise PolyglotFileError("Bytes follow the end of the application/zip; remove them")


_HEAD_SIZE = 4096
_MAX_TEXT_SIZE = 128 * 1024 * 1024
_MAX_PARSED_JSON = 256 * 1024
_PIECE = 256 * 1024

IMAGE_TYPES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
SVG = "image/svg+xml"
_BINARY_TYPES = frozenset({"application/pdf", "application/zip"})
# What has no signature of its own is what it is declared to be, as long as it is text and not markup.
_PLAIN_TYPES = frozenset({"text/plain", "text/css", "text/javascript", "text/markdown", "text/csv"})
TEXT_TYPES = frozenset({SVG, "text/html", "application/json"}) | _PLAIN_TYPES
KNOWN_TYPES = IMAGE_TYPES | _BINARY_TYPES | TEXT_TYPES
"""The types that can be allowed: those that can be recognised, and checked to their last byte."""

_SYNONYMS = {
    "image/jpg": "image/jpeg",
    "image/pjpeg": "image/jpeg",
    "image/x-png": "image/png",
    "image/svg": SVG,
    "application/javascript": "text/javascript",
    "application/x-javascript": "text/javascript",
    "text/x-markdown": "text/markdown",
    "application/x-zip-compressed": "application/zip",
}
_UNDECLARED = frozenset({"", "application/octet-stream", "binary/octet-stream"})

_SIGNATURES: tuple[tuple[re.Pattern[bytes], str], ...] = tuple(
    (re.compile(pattern, re.DOTALL), content_type)
    for pattern, content_type in (
        (rb"\x89PNG\r\n\x1a\n", "image/png"),
        (rb"\xff\xd8\xff", "image/jpeg"),
        (rb"GIF8[79]a", "image/gif"),
        (rb"RIFF....WEBP", "image/webp"),
        (rb"%PDF-", "application/pdf"),
        (rb"PK(\x03\x04|\x05\x06)", "application/zip"),
        # Known only to be refused by their name.
        (rb"....ftypavi[fs]", "image/avif"),
        (rb"....ftyp(heic|heix|mif1)", "image/heic"),
        (rb"....ftyp", "video/mp4"),
        (rb"BM....\x00\x00\x00\x00", "image/bmp"),
        (rb"II\*\x00|MM\x00\*", "image/tiff"),
        (rb"\x00\x00\x01\x00", "image/x-icon"),
        (rb"\x1f\x8b", "application/gzip"),
        (rb"\x7fELF|MZ", "application/x-executable"),
        (rb"\x1aE\xdf\xa3", "video/webm"),
    )
)
_NOT_TEXT = re.compile("[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]")
_BEFORE_MARKUP = re.compile(
    r"\ufeff?\s*(<\?xml[^>]*\?>\s*)?(<!--.*?-->\s*|<!doctype\s+svg[^>\[]*(\[.*?\])?>\s*)*", re.DOTALL | re.IGNORECASE
)
_SVG_ROOT = re.compile(r"<(\w+:)?svg[\s>/]", re.IGNORECASE)
_HTML_START = re.compile(r"<(!doctype\s+html|html|head|body|script|title|meta|style|div|p|h1|table)\b", re.IGNORECASE)
_MARKUP_SEARCHED = 64 * 1024


def canonical_type(content_type: str) -> str:
    """The media type without parameters, in lower case, under its usual name."""
    bare = content_type.partition(";")[0].strip().lower()
    return _SYNONYMS.get(bare, bare)


def recognize(file: ReceivedFile, declared: str | None, allowed: AbstractSet[str]) -> str:
    """The type to store a file under.

    Args:
        file: the content.
        declared: what the uploader says, if anything.
        allowed: the types that may be stored.

    Raises:
        FileTypeMismatchError: what the content says contradicts what the uploader says.
        FileTypeNotAllowedError: it may not be stored, or is not known.
    """
    head = file.read_part(0, _HEAD_SIZE)
    real = _type_of(head)
    if real is None and b"\0" not in head:
        real = _text_type(file, check=not allowed.isdisjoint(TEXT_TYPES))
    return decide_type(real, declared, allowed)


def _type_of(head: bytes) -> str | None:
    """What the signature at the beginning of a file says."""
    return next((content_type for pattern, content_type in _SIGNATURES if pattern.match(head)), None)


def _text_type(file: ReceivedFile, *, check: bool) -> str | None:
    """The type of a text in UTF-8; ``text/plain`` where it has no mark of any other, None where it is not text.

    Without the check it is what the beginning says.
    """
    beginning = file.read_part(0, _MARKUP_SEARCHED).decode(errors="ignore")
    if _NOT_TEXT.search(beginning) or (check and not _is_text(file)):
        return None
    before = _BEFORE_MARKUP.match(beginning)
    rest = beginning[before.end() :] if before else beginning
    if _SVG_ROOT.match(rest):
        return SVG
    if _HTML_START.match(rest):
        return "text/html"
    is_json = beginning.lstrip("\ufeff \t\r\n")[:1] in {"{", "["} and (not check or _is_json(file))
    return "application/json" if is_json else "text/plain"


def _is_text(file: ReceivedFile) -> bool:
    if file.size > _MAX_TEXT_SIZE:
        return False
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for start in range(0, file.size, _PIECE):
            piece = file.read_part(start, _PIECE)
            if _NOT_TEXT.search(decoder.decode(piece, final=start + _PIECE >= file.size)):
                return False
    except UnicodeDecodeError:
        return False
    return True


def _is_json(file: ReceivedFile) -> bool:
    """Whether a text that begins as JSON is JSON. A long one is believed when it also ends as JSON."""
    if file.size > _MAX_PARSED_JSON:
        return file.read_part(file.size - _HEAD_SIZE, _HEAD_SIZE).rstrip()[-1:] in {b"}", b"]"}
    try:
        orjson.loads(file.read().removeprefix(codecs.BOM_UTF8))
    except orjson.JSONDecodeError:
        return False
    return True


def decide_type(real: str | None, declared: str | None, allowed: AbstractSet[str]) -> str:
    """The type to store some content under.

    Args:
        real: what the content says.
        declared: what the uploader says, if anything.
        allowed: the types that may be stored.

    Raises:
        FileTypeMismatchError: the two contradict each other.
        FileTypeNotAllowedError: it may not be stored, or is not known.
    """
    said = canonical_type(declared or "")
    if real is None:
        raise FileTypeNotAllowedError(f"the content is of no known type; {_choices(allowed)}")
    decided = said if _can_be(real, said) else real
    if decided != said and said not in _UNDECLARED:
        raise FileTypeMismatchError(f"the file is declared as {said[:100]!a}, but its content is {real}")
    if decided not in allowed:
        raise FileTypeNotAllowedError(f"Files of the type {decided} are not allowed; {_choices(allowed)}")
    return decided


def _can_be(real: str, said: str) -> bool:
    return real == said or (real in {"text/plain", "application/json"} and said in _PLAIN_TYPES)


def _choices(allowed: AbstractSet[str]) -> str:
    return f"allowed are: {', '.join(sorted(allowed))} (ALLOWED_FILE_TYPES)"
