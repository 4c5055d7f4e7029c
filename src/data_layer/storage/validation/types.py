"""Which media type some content really has, by its first bytes and, where these say nothing, by all of them."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from data_layer.errors import FileTypeMismatchError, FileTypeNotAllowedError

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

HEAD_SIZE = 4096
"""How many of the first bytes tell the type of a binary file."""

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


def binary_type(head: bytes) -> str | None:
    """The type that the first bytes of a binary file tell; None where they could begin a text."""
    return next((content_type for pattern, content_type in _SIGNATURES if pattern.match(head)), None)


def text_type(content: bytes) -> str | None:
    """The type of a text in UTF-8; ``text/plain`` where it has no mark of any other, None where it is no text."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return None
    if _NOT_TEXT.search(text):
        return None
    beginning = text[:_MARKUP_SEARCHED]
    before = _BEFORE_MARKUP.match(beginning)
    rest = beginning[before.end() :] if before else beginning
    if _SVG_ROOT.match(rest):
        return SVG
    if _HTML_START.match(rest):
        return "text/html"
    return "application/json" if _is_json(text) else "text/plain"


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


def _is_json(text: str) -> bool:
    if text.lstrip()[:1] not in {"{", "["}:
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _choices(allowed: AbstractSet[str]) -> str:
    return f"allowed are: {', '.join(sorted(allowed))} (ALLOWED_FILE_TYPES)"
