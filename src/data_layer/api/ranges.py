"""Requests for a part of a file (RFC 9110, 14)."""

from __future__ import annotations

import re

_RANGE = re.compile(r"bytes=\s*(\d{0,18})-(\d{0,18})\s*", re.ASCII | re.IGNORECASE)


class UnsatisfiableRangeError(Exception):
    """The part begins behind the end of the file."""


def parse_range(header: str | None, size: int) -> tuple[int, int] | None:
    """The part that is asked for, from the first byte up to and without the second; None for the whole file.

    Several parts at once are answered with the whole file, as the standard allows: hardly anybody asks for them, and
    overlapping ones are a way of attacking.

    Raises:
        UnsatisfiableRangeError: no byte of the file is in it.
    """
    match = _RANGE.fullmatch(header or "")
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(size, int(last) + 1) if last else size
        if last and int(last) < start:
            return None
    if start >= size or start >= end:
        raise UnsatisfiableRangeError
    return start, end
