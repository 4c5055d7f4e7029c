"""Conditional requests (RFC 9110, 13), parts of files (14), and the choice of a type and an encoding (12.5)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Protocol, Self

from fastapi import HTTPException

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

    def names(self, etag: str) -> bool:
        """Whether the client has the version with this ETag, without ``W/``."""
        if self.if_none_match is None:
            return False
        return self.if_none_match.strip() == "*" or etag in _ETAG.findall(self.if_none_match)

    def is_unchanged(self, etag: str, modified: datetime) -> bool:
        """Whether the client has this version. The ETag counts, and the date only where there is none."""
        if self.if_none_match is not None:
            return self.names(etag)
        since = _time(self.if_modified_since)
        return since is not None and modified.replace(microsecond=0) <= since

    def allows_range(self, etag: str, modified: datetime) -> bool:
        """Whether the client's part is one of this version, so that it can be continued."""
        if self.if_range is None:
            return True
        if '"' in self.if_range:
            return self.if_range.strip() == etag
        return _time(self.if_range) == modified.replace(microsecond=0)


_WEIGHT = re.compile(r"[01](\.\d{0,3})?", re.ASCII)
_REVISION = re.compile(r'"r(\d{1,9})"', re.ASCII)
_EDITION = re.compile(r'"([0-9a-f]{16})"')
_MOMENT = re.compile(r'"t(\d{1,17})"', re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Revised(Protocol):
    """What can be edited and counts its revisions, or has a hash of what can be edited."""

    @property
    def revision(self) -> int | str:
        """The one that this is."""


class Dated(Protocol):
    """What can be edited and has no revisions."""

    @property
    def updated_at(self) -> datetime:
        """When it was changed last."""


def revision_tag(value: Revised) -> str:
    """The ETag of what can be edited."""
    return f'"r{value.revision}"' if isinstance(value.revision, int) else f'"{value.revision}"'


def require_revision(headers: Mapping[str, str]) -> int:
    """The revision that a change is based on, from ``If-Match``.

    Raises:
        HTTPException: 428 without the header; 412 where it names no revision that there can be.
    """
    return int(_matched(headers, _REVISION, "r3"))


def require_edition(headers: Mapping[str, str]) -> str:
    """The same where a revision is a hash of what can be edited."""
    return _matched(headers, _EDITION, "9f86d081884c7d65")


def moment_tag(value: Dated) -> str:
    """The ETag of what can be edited and has no revisions: when it was changed last."""
    return f'"t{(value.updated_at - _EPOCH) // timedelta(microseconds=1)}"'


def require_moment(headers: Mapping[str, str]) -> datetime:
    """When what a change is based on was changed last, from ``If-Match``; see `require_revision`."""
    return _EPOCH + timedelta(microseconds=int(_matched(headers, _MOMENT, "t1767225600000000")))


def moment_if_sent(headers: Mapping[str, str]) -> datetime | None:
    """The same for what only its owner changes: without ``If-Match`` the last change wins."""
    return require_moment(headers) if "if-match" in headers else None


def expects_nothing(headers: Mapping[str, str]) -> bool:
    """Whether a client has seen that what it sends does not exist yet (``If-None-Match: *``)."""
    return headers.get("if-none-match", "").strip() == "*"


def _matched(headers: Mapping[str, str], tag: re.Pattern[str], example: str) -> str:
    given = headers.get("if-match")
    if given is None:
        raise HTTPException(428, "send If-Match with the ETag of what you have read")
    match = tag.fullmatch(given.strip())
    if match is None:
        raise HTTPException(412, f'If-Match must be one ETag of this service, such as "{example}"; read it again')
    return match[1]


def accepts_gzip(accept_encoding: str | None) -> bool:
    """Whether a client takes gzip: it must say so, as some programs do not undo it."""
    wanted = qualities(accept_encoding)
    return wanted.get("gzip", wanted.get("x-gzip", wanted.get("*", 0))) > 0


def prefers(accept: str | None, media_type: str) -> bool:
    """Whether a client would rather have this type than JSON, which it gets when it does not say (12.5.1)."""
    weights = qualities(accept)
    ranges = (media_type, f"{media_type.partition('/')[0]}/*")
    wanted = next((weights[each] for each in ranges if each in weights), 0)
    return wanted > max((weights.get(each, 0) for each in ("application/json", "application/*")), default=0)


def qualities(header: str | None) -> dict[str, float]:
    """The choices of a client with their weights, 0 for what it refuses."""
    found = {}
    for choice in (header or "").lower().split(","):
        name, *parameters = (part.strip() for part in choice.split(";"))
        weight = next((each[2:] for each in parameters if each.startswith("q=")), "1")
        found[name] = float(weight) if _WEIGHT.fullmatch(weight) else 1.0
    return found


def _time(text: str | None) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text or "")
        # In UTC, because the comparison of a moment at the end of all times fails otherwise.
        return moment.astimezone(UTC) if moment.tzinfo is not None else None
    except (ValueError, OverflowError, TypeError, IndexError):
        return None


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
