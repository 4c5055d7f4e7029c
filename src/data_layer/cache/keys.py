"""What callers give with a value: its key, which Redis holds under the prefix of this application, and its life."""

from __future__ import annotations

import hashlib
import random
import re
from datetime import timedelta
from typing import TypeAlias

from data_layer.errors import InvalidCacheKeyError, InvalidTimeToLiveError

MAXIMUM_KEY_SIZE = 512
_SHOWN_CHARACTERS = 80
_SEPARATOR = ":"
_SESSIONS = "session"
_LOCKS = b"lock:"
_SESSION_KEY = re.compile(r"session:[0-9a-f]{64}")
TimeToLive: TypeAlias = float | timedelta
"""Seconds (int or float) or a timedelta; from one millisecond to ten years."""

SHORTEST_SECONDS = 0.001
LONGEST_SECONDS = 3650 * 24 * 60 * 60


class Namespace:
    """The keys of one application: ``{prefix}:{key}``; ``session:{hash}`` and ``lock:{key}`` for sessions and locks.

    Settings refuse a colon in the prefix, so no prefix can be the beginning of another one's keys: the keys of
    ``a`` begin with ``a:``, those of ``ab`` do not, and ``a:b`` is not a prefix.
    """

    def __init__(self, prefix: str) -> None:
        if not prefix or _SEPARATOR in prefix:
            raise ValueError(f"a key prefix is not empty and has no {_SEPARATOR!r}: {prefix!r}")
        self.start = f"{prefix}{_SEPARATOR}".encode()

    def key(self, key: str) -> bytes:
        """The key in Redis: the prefix and 1 to 512 bytes of UTF-8, any characters.

        Raises:
            InvalidCacheKeyError: when it is not text, empty, too long, or holds a lone surrogate.
        """
        try:
            encoded = key.encode()
        except (AttributeError, UnicodeEncodeError):
            encoded = b""
        if encoded and len(encoded) <= MAXIMUM_KEY_SIZE:  # Before anything else, because every read comes by here.
            return self.start + encoded
        return self.start + _encode(key, "a cache key", shown=describe_key(key))

    def lock(self, key: str) -> bytes:
        """The key of a lock, apart from the value of the same name.

        Raises:
            InvalidCacheKeyError: as for ``key``.
        """
        return self.start + _LOCKS + _encode(key, "the key of a lock", shown=describe_key(key))

    def session(self, session_id: str) -> bytes:
        """The key of a session. It holds only the SHA-256 of the id, so neither Redis nor a log shows a live token.

        Raises:
            InvalidCacheKeyError: as for ``key``; the message does not show the id.
        """
        digest = hashlib.sha256(_encode(session_id, "a session id", shown="it")).hexdigest()
        return self.start + f"{_SESSIONS}{_SEPARATOR}{digest}".encode()

    def pattern(self, pattern: str) -> bytes:
        """The glob for SCAN: only what the caller wrote is a pattern, the prefix is literal.

        Raises:
            InvalidCacheKeyError: as for ``key``.
        """
        return escape_glob(self.start) + _encode(pattern, "a key pattern", shown=describe_key(pattern))

    def without_prefix(self, redis_key: bytes) -> str | None:
        """The caller's key, or nothing when another program wrote a key here that is not UTF-8."""
        try:
            return redis_key.removeprefix(self.start).decode()
        except UnicodeDecodeError:
            return None

    def describe(self, redis_key: bytes) -> str:
        """The key as messages and logs show it; all sessions look alike."""
        key = redis_key.removeprefix(self.start).decode(errors="replace")
        return "a session" if _SESSION_KEY.fullmatch(key) else f"the key {describe_key(key)}"


def describe_key(key: object) -> str:
    """The key as messages and logs show it: quoted, escaped and cut."""
    if not isinstance(key, str):
        return f"({type(key).__name__})"
    return repr(key) if len(key) <= _SHOWN_CHARACTERS else f"{key[:_SHOWN_CHARACTERS]!r}…"


def escape_glob(literal: bytes) -> bytes:
    """The same bytes, read literally in a Redis glob pattern."""
    return re.sub(rb"([*?\[\]\\^])", rb"\\\1", literal)


def _encode(text: str, what: str, *, shown: str) -> bytes:
    if not isinstance(text, str):
        raise InvalidCacheKeyError(f"{what} is text, not {type(text).__name__}")
    try:
        encoded = text.encode()
    except UnicodeEncodeError:
        raise InvalidCacheKeyError(f"{what} is UTF-8 text, and {shown} holds a lone surrogate") from None
    if not encoded:
        raise InvalidCacheKeyError(f"{what} is not empty")
    if len(encoded) > MAXIMUM_KEY_SIZE:
        raise InvalidCacheKeyError(
            f"{what} has at most {MAXIMUM_KEY_SIZE} bytes, and {shown} has {len(encoded)}; hash what is longer"
        )
    return encoded


def to_milliseconds(ttl: TimeToLive) -> int:
    """Whole milliseconds, rounded to the nearest.

    Raises:
        InvalidTimeToLiveError: for anything but a number of seconds or a timedelta, and outside the limits.
    """
    seconds: object = ttl.total_seconds() if isinstance(ttl, timedelta) else ttl
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise InvalidTimeToLiveError(
            f"a time to live is a number of seconds or a timedelta, not {type(ttl).__name__}; "
            "every cache entry needs one"
        )
    # Written so that NaN, which compares false with everything, is refused too.
    if not SHORTEST_SECONDS <= seconds <= LONGEST_SECONDS:
        shown = str(seconds) if isinstance(seconds, float) or abs(seconds) < 10**18 else "a huge number"
        raise InvalidTimeToLiveError(
            f"a time to live is at least {SHORTEST_SECONDS} s and at most {LONGEST_SECONDS} s (ten years), not {shown}"
        )
    return round(seconds * 1000)


def shorten(milliseconds: int, share: float) -> int:
    """A random number of milliseconds: at most this many, and at most the share less."""
    return max(1, milliseconds - int(random.random() * share * milliseconds))  # noqa: S311  (no secret)
