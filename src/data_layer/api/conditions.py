"""Conditional requests (RFC 9110, 13) and the choice of an encoding (12.5.3)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Self

_ETAG = re.compile(r'(?:W/)?("[^"]*")')


@dataclass(frozen=True, slots=True)
class Conditions:
    """The headers of a request that make the answer depend on what the client has already."""

    if_none_match: str | None
    if_modified_since: str | None
    if_range: str | None

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> Self:
        """Those of a request."""
        return cls(headers.get("if-none-match"), headers.get("if-modified-since"), headers.get("if-range"))

    def is_unchanged(self, etag: str, modified: datetime) -> bool:
        """Whether the client has this version. The ETag counts, and the date only where there is none."""
        if self.if_none_match is not None:
            return self.if_none_match.strip() == "*" or etag in _ETAG.findall(self.if_none_match)
        since = _time(self.if_modified_since)
        return since is not None and modified.replace(microsecond=0) <= since

    def allows_range(self, etag: str, modified: datetime) -> bool:
        """Whether the client's part is one of this version, so that it can be continued."""
        if self.if_range is None:
            return True
        if '"' in self.if_range:
            return self.if_range.strip() == etag
        return _time(self.if_range) == modified.replace(microsecond=0)


def accepts_gzip(accept_encoding: str | None) -> bool:
    """Whether a client takes gzip: it must say so, as some programs do not undo it."""
    qualities = {}
    for choice in (accept_encoding or "").lower().split(","):
        name, _, parameter = choice.partition(";")
        quality = parameter.strip().removeprefix("q=")
        qualities[name.strip()] = not re.fullmatch(r"0(\.0*)?", quality)
    return qualities.get("gzip", qualities.get("x-gzip", qualities.get("*", False)))


def _time(text: str | None) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text or "")
        # In UTC, because the comparison of a moment at the end of all times fails otherwise.
        return moment.astimezone(UTC) if moment.tzinfo is not None else None
    except (ValueError, OverflowError, TypeError, IndexError):
        return None
