"""Names that users gave their files: kept to be shown, never used as keys or paths.

Such a name is never a reason to refuse a file, so it is cleaned instead of checked. Storage keys follow the strict
rules of `data_layer.storage.keys`.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Literal
from urllib.parse import quote

from data_layer.errors import InvalidFileNameError

MAX_NAME_LENGTH = 255
"""UTF-16 units, in which Windows and macOS count the length of a name; no system has longer ones."""

_MAX_EXTENSION_LENGTH = 16
_LINE_BREAKS = re.compile("[\t-\r\x85\u2028\u2029]+")
# Control characters, lone surrogates and noncharacters; what is invisible or turns the direction of writing, with which
# "gnp.exe" is shown as "exe.png". The joiners U+200C and U+200D stay: Persian words and emoji are written with them.
_UNFIT = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f"
    "\ud800-\udfff\ufdd0-\ufdef\ufeff\ufff9-\ufffb"
    + "".join(chr(plane << 16 | last) for plane in range(17) for last in (0xFFFE, 0xFFFF))
    + "]"
)
_SEPARATORS = re.compile(r"[/\\]")
_JOINERS = "\u200c\u200d"


def clean_file_name(name: str) -> str | None:
    """The name as it is shown: in Unicode's NFC form, on one line, without a path, in at most 255 UTF-16 units.

    Slashes become ``_``; an extension survives shortening. None where nothing is left that could be shown.

    Raises:
        InvalidFileNameError: it is not a text.
    """
    if not isinstance(name, str):
        raise InvalidFileNameError(f"file_name must be a text, not {type(name).__name__}")
    shown = _LINE_BREAKS.sub(" ", _UNFIT.sub("", name))
    clean = unicodedata.normalize("NFC", _SEPARATORS.sub("_", shown)).strip()
    if _length(clean) > MAX_NAME_LENGTH:
        clean = _shortened(clean)
    return clean if clean.strip(f". {_JOINERS}") else None


def content_disposition(kind: Literal["inline", "attachment"], name: str | None) -> str:
    """The value of the header ``Content-Disposition`` (RFC 6266) that has browsers save a file under its name."""
    if name is None:
        return kind
    plain = "".join(c if c.isascii() and c.isprintable() and c not in '"\\%' else "_" for c in name)
    if plain == name:
        return f'{kind}; filename="{name}"'
    return f"{kind}; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


def _shortened(name: str) -> str:
    stem, dot, extension = name.rpartition(".")
    if not stem or not 0 < _length(extension) <= _MAX_EXTENSION_LENGTH or " " in extension:
        return _cut(name, MAX_NAME_LENGTH)
    ending = f"{dot}{extension}"
    return f"{_cut(stem, MAX_NAME_LENGTH - _length(ending))}{ending}"


def _cut(text: str, length: int) -> str:
    # Half of a character outside of the basic plane is dropped; a joiner or a blank at the end would join nothing.
    return text.encode("utf-16-le")[: 2 * length].decode("utf-16-le", "ignore").rstrip().rstrip(_JOINERS)


def _length(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2
