"""How long an entry lives: what callers may say, and the milliseconds that Redis understands."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import TypeAlias

from data_layer.errors import InvalidTimeToLiveError

TimeToLive: TypeAlias = float | timedelta
"""Seconds (int or float) or a timedelta; from one millisecond to ten years."""

SHORTEST_SECONDS = 0.001
LONGEST_SECONDS = 3650 * 24 * 60 * 60


def to_milliseconds(ttl: TimeToLive) -> int:
    """Whole milliseconds, rounded to the nearest.

    Raises:
        InvalidTimeToLiveError: for anything but a number of seconds or a timedelta, and outside the limits.
    """
    seconds: object = ttl.total_seconds() if isinstance(ttl, timedelta) else ttl
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise InvalidTimeToLiveError(
            f"A time to live is a number of seconds or a timedelta, not {type(ttl).__name__}; "
            "every cache entry needs one"
        )
    # Written so that NaN, which compares false with everything, is refused too.
    if not SHORTEST_SECONDS <= seconds <= LONGEST_SECONDS:
        shown = str(seconds) if isinstance(seconds, float) or abs(seconds) < 10**18 else "a huge number"
        raise InvalidTimeToLiveError(
            f"A time to live is at least {SHORTEST_SECONDS} s and at most {LONGEST_SECONDS} s (ten years), not {shown}"
        )
    return round(seconds * 1000)


def shorten(milliseconds: int, share: float) -> int:
    """A random number of milliseconds: at most this many, and at most the share less."""
    return max(1, milliseconds - int(random.random() * share * milliseconds))  # noqa: S311  (no secret)
