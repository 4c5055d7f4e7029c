"""Copies of sessions: what this process, and Redis, know of them without asking the database.

A copy is believed only where ``watermark`` vouches for it, so nothing here has to be removed in time, and Redis may
hold, lose or bring back what it likes.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from uuid import UUID

from pydantic import ValidationError

from data_layer.cache import Cache
from data_layer.errors import CacheError
from data_layer.observability.log import get_log
from data_layer.repositories.sessions import EndedSessions, FoundSession
from data_layer.schemas.base import View, share_field_names
from data_layer.schemas.sessions import ActiveSession
from data_layer.services.sessions.hashing import TokenHasher
from data_layer.services.sessions.watermark import Watermark
from data_layer.settings.security import SecuritySettings

_MOST_COPIES = 100_000
_MOST_REFUSALS = 1_000
_IDLE_SECONDS = 900.0
log = get_log(__name__)

_PREFIX = "session-copy:"
# The database answers in a millisecond, so Redis is not waited for much longer.
_PATIENCE_SECONDS = 0.25
_PAUSE_SECONDS = 1.0
_LONGEST_SECONDS = 3600.0


class NearCopy:
    """A session, until when it may be handed out unasked (by the clock of the process), and how it was used since.

    ``requests`` and ``last_request`` belong to ``Activity``.
    """

    __slots__ = ("is_noted", "last_request", "requests", "session", "usable_until")

    def __init__(self, session: ActiveSession, usable_until: float) -> None:
        self.session = session
        self.usable_until = usable_until
        self.requests = 0
        self.last_request = 0.0
        self.is_noted = False


class NearCopies:
    """Copies in this process, by the hash of a token or by the id of a session.

    Sessions are valid for weeks, but most are left after a while without an end: what nobody has used for a quarter of
    an hour is dropped while others are added. Where there are too many, the oldest are dropped first.

    Refusals are kept beside them for a moment: a client whose session has ended often sends many requests at once.
    """

    def __init__(self, most: int = _MOST_COPIES) -> None:
        self.by_key: dict[str, NearCopy] = {}
        self._keys: dict[UUID, set[str]] = {}
        self._refusals: dict[str, float] = {}
        self._most = most

    def put(self, key: str, copy: NearCopy, now: float) -> None:
        """Keep a copy, in place of any other under the key."""
        self._drop_idle(now)
        while len(self.by_key) >= self._most:
            self._drop(next(iter(self.by_key)))
        share_field_names(copy.session)
        copy.last_request = max(copy.last_request, now)
        self.by_key[key] = copy
        self._keys.setdefault(copy.session.id, set()).add(key)

    def refuse(self, key: str, until: float) -> None:
        """Remember that the database has refused a key."""
        while len(self._refusals) >= _MOST_REFUSALS:
            del self._refusals[next(iter(self._refusals))]
        self._refusals[key] = until

    def refuses(self, key: str, now: float) -> bool:
        """Whether the database has just refused a key, and no session has changed since as far as is known here."""
        until = self._refusals.get(key)
        if until is None or now < until:
            return until is not None
        del self._refusals[key]
        return False

    def forget(self, session_ids: Iterable[UUID]) -> None:
        """Drop all copies of sessions, and all refusals."""
        self._refusals.clear()
        for session_id in session_ids:
            for key in self._keys.pop(session_id, ()):
                self.by_key.pop(key, None)

    def clear(self) -> None:
        """Drop everything."""
        self._refusals.clear()
        self.by_key.clear()
        self._keys.clear()

    def _drop_idle(self, now: float) -> None:
        """Look at the two that were looked at longest ago: as one is added, at most half of all are idle in the end."""
        for key in list(islice(self.by_key, 2)):
            if self.by_key[key].last_request + _IDLE_SECONDS <= now:
                self._drop(key)
            else:
                self.by_key[key] = self.by_key.pop(key)

    def _drop(self, key: str) -> None:
        session_id = self.by_key.pop(key).session.id
        keys = self._keys[session_id]
        keys.discard(key)
        if not keys:
            del self._keys[session_id]


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
    """Copies in Redis, by the hash of a token or by the id of a session: what one process has read, others need not.

    A copy is sealed with a key that Redis does not know, and the seal covers whose copy it is; so write access to Redis
    is not enough to become somebody else. Failures of Redis are logged, and never raised.

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


class SessionCopies:
    """Copies of sessions in this process and in Redis, and until when they may be believed.

    They exist before the session service, because the transactions of all services forget here what they have ended.

    Args:
        cache: where copies are shared
        settings: the secrets
        clock: seconds that never go back
    """

    def __init__(
        self, cache: Cache, settings: SecuritySettings, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        seals = TokenHasher(settings.session_secret, settings.session_secret_previous, "session copy")
        self.near = NearCopies()
        self.shared = SharedCopies(cache, seals, clock)
        self.watermark = Watermark()

    async def forget(self, ended: Sequence[EndedSessions]) -> None:
        """After the commit: believe no copy of these sessions any more. Other processes learn of it by themselves."""
        ids = [session_id for sessions in ended for session_id in sessions.ids]
        hashes = [token_hash for sessions in ended for token_hash in sessions.hashes]
        self.watermark.abandon(ids)
        self.near.forget(ids)
        await self.shared.remove([*hashes, *map(str, ids)])
