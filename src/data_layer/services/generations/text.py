"""Code as it is streamed: kept as bytes, and made storable without losing anything silently."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from data_layer.entities.columns import DEEPEST

_SURROGATE = re.compile(rb"\xed[\xa0-\xbf]")
_REPLACED = re.compile(rb"\x00|\xed[\xa0-\xaf][\x80-\xbf]\xed[\xb0-\xbf][\x80-\xbf]|\xed[\xa0-\xbf][\x80-\xbf]")
"""NUL, the two halves of a pair, or one that is alone."""
_SURROGATE_CHARACTER = re.compile("[\ud800-\udfff]")
_NUL_SYMBOL = "\u2400"


def encoded(text: str) -> bytes:
    """UTF-8, in which halves of surrogate pairs are kept: the other half may be in the next piece."""
    return text.encode("utf-8", "surrogatepass")


def is_storable(code: bytes | bytearray) -> bool:
    """Whether nothing has to be replaced."""
    return b"\0" not in code and (b"\xed" not in code or _SURROGATE.search(code) is None)


def storable(code: bytes | bytearray) -> tuple[str, dict[str, Any]]:
    """The text of ``encoded`` pieces as PostgreSQL can store it, and a note of what had to be replaced.

    Halves of surrogate pairs that arrived in two pieces are joined. NUL is replaced by its symbol, U+2400, and a half
    that is alone by U+FFFD; the note counts both, so that nobody takes the text for what was sent.
    """
    if is_storable(code):
        return code.decode(), {}
    text = (
        code.decode("utf-8", "surrogatepass").encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    )
    text, halves = _SURROGATE_CHARACTER.subn("\ufffd", text)
    counts = {"nul": text.count("\0"), "half_surrogate_pair": halves}
    note = {name: count for name, count in counts.items() if count}
    return text.replace("\0", _NUL_SYMBOL), {"replaced_characters": note} if note else {}


def stored_lengths(code: bytes | bytearray, lengths: Sequence[int]) -> tuple[str, Sequence[int]]:
    """The text of ``storable``, and how long its beginnings are that were made of these beginnings, in bytes.

    A length within a character that two pieces have made together becomes the one before that character.

    Args:
        code: ``encoded`` pieces.
        lengths: of beginnings of it, the shortest first.
    """
    stored: list[int] = []
    waiting = iter(lengths)
    length = next(waiting, None)
    longer = 0
    for found in _REPLACED.finditer(code):
        while length is not None and length < found.end():
            stored.append(min(length, found.start()) + longer)
            length = next(waiting, None)
        longer += {1: len(_NUL_SYMBOL.encode()) - 1, 3: 0, 6: -2}[found.end() - found.start()]
    while length is not None:
        stored.append(length + longer)
        length = next(waiting, None)
    return storable(code)[0], stored


def storable_json(value: Any, levels: int = DEEPEST) -> Any:
    """A JSON value whose texts are storable in the same way; what is deeper than ``levels`` stays as it is."""
    if levels < 0:
        return value
    match value:
        case str():
            return storable(encoded(value))[0]
        case dict():
            return {storable_json(key): storable_json(inner, levels - 1) for key, inner in value.items()}
        case list():
            return [storable_json(inner, levels - 1) for inner in value]
        case _:
            return value
