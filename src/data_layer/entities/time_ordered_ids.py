"""The time inside an id: the first 48 bits of a UUIDv7 are milliseconds since 1970 (RFC 9562, 5.7).

PostgreSQL compares ids byte by byte, so ids compare as their times do, and a range of time is a range of ids.
"""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from uuid import UUID

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_REST = 80
_LAST = (1 << 48) - 1


def first_id_at(moment: datetime) -> UUID:
    """The smallest id of a moment: a bound, not an id for a row."""
    return UUID(int=_milliseconds(moment) << _REST)


def id_at(moment: datetime) -> UUID:
    """A new id for something that happened at another time than now."""
    variant_and_rest = (0b10 << 62) | secrets.randbits(62)
    return UUID(int=(_milliseconds(moment) << _REST) | (0x7 << 76) | (secrets.randbits(12) << 64) | variant_and_rest)


def time_of(identifier: UUID) -> datetime:
    """When an id was made, in whole milliseconds; anything at all for an id that is not a UUIDv7.

    Raises:
        OverflowError: after the year 9999, where no UUIDv7 of ours is.
    """
    return _EPOCH + (identifier.int >> _REST) * _MILLISECOND


def _milliseconds(moment: datetime) -> int:
    return min(max((moment - _EPOCH) // _MILLISECOND, 0), _LAST)
