"""Which media type some content really has, by its first bytes and, where these say nothing, by its text.

Nothing is parsed that may not be stored anyway, and nothing large is parsed as a whole: a parser keeps the interpreter
from doing anything else, and what it makes of a text may take twenty times as much memory.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Set as AbstractSet

import orjson

from data_layer.errors import FileTypeMismatchError, FileTypeNotAllowedError
from data_layer.storage.validation.received import ReceivedFile

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
"""The types that can be allowed: those that can be told from others, and checked to their last byte."""

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
    real = next((content_type for pattern, content_type in _SIGNATURES if pattern.match(head)), None)
    if real is None and b"\0" not in head:
        real = _text_type(file, check=not allowed.isdisjoint(TEXT_TYPES))
    return decide_type(real, declared, allowed)


def _text_type(file: ReceivedFile, *, check: bool) -> str | None:
    """The type of a text in UTF-8; ``text/plain`` where it has no mark of any other, None where it is no text.

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
        raise FileTypeNotAllowedError(f"The content is of no known type; {_choices(allowed)}")
    decided = said if _can_be(real, said) else real
    if decided != said and said not in _UNDECLARED:
        raise FileTypeMismatchError(f"The file is declared as {said[:100]!a}, but its content is {real}")
    if decided not in allowed:
        raise FileTypeNotAllowedError(f"Files of the type {decided} are not allowed; {_choices(allowed)}")
    return decided


def _can_be(real: str, said: str) -> bool:
    return real == said or (real in {"text/plain", "application/json"} and said in _PLAIN_TYPES)


def _choices(allowed: AbstractSet[str]) -> str:
    return f"allowed are: {', '.join(sorted(allowed))} (ALLOWED_FILE_TYPES)"
