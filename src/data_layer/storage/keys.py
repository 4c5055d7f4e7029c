"""Which texts may name a file: the same on every backend, so that files can move between them.

A key is refused where it could mean another place on some system (``..``, a backslash, a character that looks like
or normalises to a separator, a Windows device), could not be stored on some system (control characters, lone
surrogates, segments over 255 bytes), or could be confused with another key (not in NFC, blanks or dots at the edge of
a segment, invisible direction marks). As no segment begins with a dot, no key can reach hidden files.
"""

from __future__ import annotations

import re
import unicodedata

from data_layer.errors import InvalidStorageKeyError

MAX_KEY_SIZE = 1024
MAX_SEGMENT_SIZE = 255
MAX_SEGMENTS = 254  # Azure Blob Storage allows no more.

_NONCHARACTERS = "".join(chr(plane << 16 | last) for plane in range(17) for last in (0xFFFE, 0xFFFF))
_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # control characters
    "\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff"  # invisible, or turning the direction of writing
    f"\ufdd0-\ufdef{_NONCHARACTERS}]"  # what the XML of an S3 listing cannot carry
)
_SEPARATOR_LOOKALIKES = re.compile(
    "[\\\\\u2044\u2215\u2216\u244a\u2571\u2572\u27cb\u27cd\u29f5\u29f8\u29f9\ufe68\uff0f\uff3c]"
)
_WINDOWS_DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d|conin\$|conout\$|clock\$) *(\..*)?", re.IGNORECASE)


def split_key(key: str) -> tuple[str, ...]:
    """The segments of a key.

    Raises:
        InvalidStorageKeyError: the key breaks a rule; the message says which.
    """
    _require_text(key, "key")
    problem = _problem_of_text(key, "key") or _problem_of_segments(key.split("/"))
    if problem is not None:
        raise InvalidStorageKeyError(f"the storage key {_shortened(key)} {problem}")
    return tuple(key.split("/"))


def split_prefix(prefix: str) -> tuple[tuple[str, ...], str]:
    """The whole segments that a prefix names, and the beginning of the next one.

    Raises:
        InvalidStorageKeyError: no key can begin like this.
    """
    _require_text(prefix, "prefix")
    *folders, beginning = prefix.split("/")
    problem = _problem_of_text(prefix, "prefix") if prefix else None
    if problem is None and folders:
        problem = _problem_of_segments(folders)
    if problem is not None:
        raise InvalidStorageKeyError(f"the storage prefix {_shortened(prefix)} {problem}")
    return tuple(folders), beginning


def is_key(text: str) -> bool:
    """Whether a file can have this key."""
    return _problem_of_text(text, "key") is None and _problem_of_segments(text.split("/")) is None


def _require_text(value: object, noun: str) -> None:
    if not isinstance(value, str):
        raise InvalidStorageKeyError(f"a storage {noun} must be text, not {type(value).__name__}")


def _problem_of_text(text: str, noun: str) -> str | None:
    if not text:
        return "is empty"
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        return "holds a lone surrogate, which is not a character"
    if size > MAX_KEY_SIZE:
        return f"has {size} bytes; a {noun} may have {MAX_KEY_SIZE}"
    if _UNPRINTABLE.search(text):
        return "holds a control character, an invisible one or a noncharacter"
    if _SEPARATOR_LOOKALIKES.search(text):
        return "holds a backslash or a character that looks like a separator; separate segments by '/'"
    if not unicodedata.is_normalized("NFC", text):
        return "is not in Unicode's NFC form; use unicodedata.normalize('NFC', key)"
    return None


def _problem_of_segments(segments: list[str]) -> str | None:
    if len(segments) > MAX_SEGMENTS:
        return f"has {len(segments)} segments; a key may have {MAX_SEGMENTS}"
    return next((problem for segment in segments if (problem := _problem_of_segment(segment))), None)


def _problem_of_segment(segment: str) -> str | None:
    if not segment:
        return "begins or ends with '/', or has an empty segment"
    # Some systems apply this normalisation to names, and it can make a dot or a separator of another character.
    folded = unicodedata.normalize("NFKC", segment)
    if "/" in folded or "\\" in folded:
        return "holds a character that normalises to a separator"
    if folded.strip(".") != folded:
        return "has a segment that begins or ends with a dot, such as '..'"
    if segment.strip() != segment:
        return "has a segment that begins or ends with a blank"
    if len(segment.encode()) > MAX_SEGMENT_SIZE:
        return f"has a segment of more than {MAX_SEGMENT_SIZE} bytes"
    if _WINDOWS_DEVICE.fullmatch(folded):
        return "has a segment that names a Windows device"
    return None


def _shortened(text: str) -> str:
    return ascii(text if len(text) <= 100 else f"{text[:97]}...")
