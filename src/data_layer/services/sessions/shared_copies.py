"""Sessions in Redis: what one process has read from the database, others need not read again.

A copy is believed only where ``coverage`` vouches for it, so nothing here has to be removed in time, and Redis may
hold, lose or bring back what it likes.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from data_layer.errors import CacheError
from data_layer.observability.log import get_log
from data_layer.repositories.sessions import FoundSession
from data_layer.schemas.base import View
from data_layer.schemas.sessions import ActiveSession

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from data_layer.cache import Cache

log = get_log(__name__)

_PREFIX = "session-copy:"
# The database answers in a millisecond, so Redis is not waited for much longer.
_PATIENCE_SECONDS = 0.25
_PAUSE_SECONDS = 1.0
_LONGEST_SECONDS = 3600.0


class _SharedCopy(View):
    """What Redis holds for a session."""

    session: ActiveSession
    expires_at: float
    as_of: int
    server: str


class SharedCopies:
    """Copies by the hash of a token, or by the id of a session. No failure of Redis is anybody's failure."""

    def __init__(self, cache: Cache, clock: Callable[[], float] = time.monotonic) -> None:
        self._cache = cache
        self._clock = clock
        self._paused_until = float("-inf")

    async def read(self, key: str) -> FoundSession | None:
        """The copy, if there is one and Redis answers."""
        if self._clock() < self._paused_until:
            return None
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                copy = await self._cache.get(_PREFIX + key, _SharedCopy)
        except (CacheError, TimeoutError) as error:
            self._pause(error)
            return None
        return None if copy is None else FoundSession(copy.session, copy.expires_at, 0.0, copy.as_of, copy.server)

    async def write(self, key: str, found: FoundSession) -> None:
        """Keep a copy for as long as the session has left, an hour at most."""
        if self._clock() < self._paused_until or found.seconds_left < 1:
            return
        copy = _SharedCopy(session=found.session, expires_at=found.expires_at, as_of=found.as_of, server=found.server)
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await self._cache.set(_PREFIX + key, copy, min(found.seconds_left, _LONGEST_SECONDS))
        except (CacheError, TimeoutError) as error:
            self._pause(error)

    async def remove(self, keys: Iterable[str]) -> None:
        """Remove copies that nobody needs any more."""
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await self._cache.delete_many([_PREFIX + key for key in keys])
        except (CacheError, TimeoutError) as error:
            self._pause(error)

    def _pause(self, error: Exception) -> None:
        """Leave Redis alone for a moment, so that its trouble does not slow every request down."""
        if self._clock() >= self._paused_until:
            log.warning("session_copies_paused", reason=str(error) or "no answer in time")
        self._paused_until = self._clock() + _PAUSE_SECONDS
