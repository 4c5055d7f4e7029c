"""Sessions in Redis: what one process has read from the database, others need not read again.

A copy is believed only where ``watermark`` vouches for it, so nothing here has to be removed in time, and Redis may
hold, lose or bring back what it likes. It is sealed with a key that Redis does not know, and the seal covers whose copy
it is, so who can write to Redis cannot make somebody of it whom they are not.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from pydantic import ValidationError

from data_layer.errors import CacheError
from data_layer.observability.log import get_log
from data_layer.repositories.sessions import FoundSession
from data_layer.schemas.base import View
from data_layer.schemas.sessions import ActiveSession
from data_layer.services.sessions.hashing import TokenHasher

if TYPE_CHECKING:
    from data_layer.cache import Cache

log = get_log(__name__)

_PREFIX = "session-copy:"
# The database answers in a millisecond, so Redis is not waited for much longer.
_PATIENCE_SECONDS = 0.25
_PAUSE_SECONDS = 1.0
_LONGEST_SECONDS = 3600.0


class _SealedCopy(View):
    """What Redis holds: a copy in JSON, and what proves that one of our processes has written it for this key."""

    content: str
    seal: str


class _SharedCopy(View):
    """What is known of a session."""

    session: ActiveSession
    expires_at: float
    as_of: int
    server: str


class SharedCopies:
    """Copies by the hash of a token, or by the id of a session. No failure of Redis is anybody's failure.

    Args:
        cache: where they are shared.
        hasher: makes the seals.
        clock: seconds that never go back.
    """

    def __init__(self, cache: Cache, hasher: TokenHasher, clock: Callable[[], float] = time.monotonic) -> None:
        self._cache = cache
        self._hasher = hasher
        self._clock = clock
        self._paused_until = float("-inf")

    async def read(self, key: str) -> FoundSession | None:
        """The copy, if there is one and Redis answers."""
        if self._clock() < self._paused_until:
            return None
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                sealed = await self._cache.get(_PREFIX + key, _SealedCopy)
        except (CacheError, TimeoutError) as error:
            self._pause(error)
            return None
        copy = None if sealed is None else self._unseal(key, sealed)
        return None if copy is None else FoundSession(copy.session, copy.expires_at, 0.0, copy.as_of, copy.server)

    async def write(self, key: str, found: FoundSession) -> None:
        """Keep a copy for as long as the session has left, an hour at most."""
        if self._clock() < self._paused_until or found.seconds_left < 1:
            return
        copy = _SharedCopy(session=found.session, expires_at=found.expires_at, as_of=found.as_of, server=found.server)
        content = copy.model_dump_json()
        sealed = _SealedCopy(content=content, seal=self._hasher.hash(f"{key}\0{content}"))
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await self._cache.set(_PREFIX + key, sealed, min(found.seconds_left, _LONGEST_SECONDS))
        except (CacheError, TimeoutError) as error:
            self._pause(error)

    async def remove(self, keys: Iterable[str]) -> None:
        """Remove copies that nobody needs any more."""
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await self._cache.delete_many([_PREFIX + key for key in keys])
        except (CacheError, TimeoutError) as error:
            self._pause(error)

    def _unseal(self, key: str, sealed: _SealedCopy) -> _SharedCopy | None:
        """What is in it, or nothing if the seal is not one of ours."""
        seals = self._hasher.hashes(f"{key}\0{sealed.content}")
        if not any(hmac.compare_digest(seal.encode(), sealed.seal.encode()) for seal in seals):
            log.warning("session_copy_refused", reason="its seal is wrong: another secret, or somebody wrote to Redis")
            return None
        try:
            return _SharedCopy.model_validate_json(sealed.content)
        except ValidationError:  # By another version of ours.
            return None

    def _pause(self, error: Exception) -> None:
        """Leave Redis alone for a moment, so that its trouble does not slow every request down."""
        if self._clock() >= self._paused_until:
            log.warning("session_copies_paused", reason=str(error) or "no answer in time")
        self._paused_until = self._clock() + _PAUSE_SECONDS
