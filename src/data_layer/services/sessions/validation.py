"""The way of every request: from a token to the session that it stands for."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import NamedTuple
from uuid import UUID

from data_layer.concurrency import SingleFlight
from data_layer.errors import DataLayerError, InvalidSessionError, InvalidValueError
from data_layer.repositories.sessions import FoundSession, Lifetime
from data_layer.repositories.unit_of_work import Transactions, UnitOfWork
from data_layer.schemas.sessions import ActiveSession
from data_layer.services.sessions.activity import FLUSH_SECONDS, Activity
from data_layer.services.sessions.copies import NearCopies, NearCopy, SharedCopies
from data_layer.services.sessions.hashing import TOKEN_LENGTH, TokenHasher
from data_layer.services.sessions.watermark import Watermark

Find = Callable[[UnitOfWork], Awaitable[FoundSession | None]]

# Later callers ask again, so that a slow answer is not an old one for them. A refusal counts for as long.
_SHARED_SECONDS = 0.25


@dataclass(slots=True)
class ValidationCounts:
    """How many were answered from where since the start; those that nobody could answer are ``failed``."""

    near: int = 0
    redis: int = 0
    database: int = 0
    refused: int = 0
    failed: int = 0


class _Found(NamedTuple):
    session: ActiveSession
    is_shared: bool


class SessionValidator:
    """Answers from a copy of this process, from Redis, or from the database: from the first that may be believed.

    Copies are believed as ``watermark`` says, and not close to their expiry: there the database slides it in time.
    """

    def __init__(
        self,
        transactions: Transactions,
        hasher: TokenHasher,
        watermark: Watermark,
        *,
        near: NearCopies,
        shared: SharedCopies,
        activity: Activity,
        lifetime: Lifetime,
        on_look_up: Callable[[], None] | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._transactions = transactions
        self._hasher = hasher
        self._watermark = watermark
        self._near = near
        self._shared = shared
        self._activity = activity
        self._on_look_up = on_look_up
        self._clock = clock
        # Activity is written well before a session could expire for want of it.
        self._margin = min(2 * FLUSH_SECONDS, lifetime.idle / 4)
        self._loads: SingleFlight[str, _Found] = SingleFlight("session", join_seconds=_SHARED_SECONDS, clock=clock)
        self.counts = ValidationCounts()

    async def by_token(self, token: str) -> ActiveSession:
        """The session of a token; see ``SessionService.validate``."""
        if not isinstance(token, str) or len(token) != TOKEN_LENGTH:  # type: ignore[redundant-expr]
            self.counts.refused += 1
            raise refused()
        key = self._hasher.hash(token)
        if (session := self._near_session(key)) is not None:
            return session
        hashes = self._hasher.hashes(token)
        return await self._look_up(key, lambda tx: tx.sessions.find_active(hashes))

    async def by_id(self, session_id: UUID) -> ActiveSession:
        """Validate a session by id; the caller has already authenticated."""
        if not isinstance(session_id, UUID):
            raise InvalidValueError(f"session_id must be a UUID, not {type(session_id).__name__}", field="session_id")
        key = str(session_id)
        if (session := self._near_session(key)) is not None:
            return session
        return await self._look_up(key, lambda tx: tx.sessions.find_active_by_id(session_id))

    async def close(self) -> None:
        """Wait for what is being looked up."""
        await self._loads.finish()

    def _near_session(self, key: str) -> ActiveSession | None:
        """The session that this process has a copy of. A change drops the copy, so only its age is to be looked at."""
        copy = self._near.by_key.get(key)
        now = self._clock()
        if copy is None or now >= copy.usable_until or now >= self._watermark.fresh_until:
            return None
        self.counts.near += 1
        self._activity.note(copy, now)
        return copy.session

    async def _look_up(self, key: str, find: Find) -> ActiveSession:
        """Load a session, once for concurrent callers; cancelling one does not disturb the others."""
        now = self._clock()
        if self._near.refuses(key, now):
            self.counts.refused += 1
            raise refused()
        if self._on_look_up is not None:
            self._on_look_up()
        try:
            session, is_shared = await self._loads.run(key, lambda: self._load(key, find))
        except InvalidSessionError:
            self.counts.refused += 1
            self._near.refuse(key, now + _SHARED_SECONDS)
            raise
        except DataLayerError:
            self.counts.failed += 1
            raise
        if is_shared:
            self.counts.redis += 1
        else:
            self.counts.database += 1
        self._activity.note_session(session, now)
        return session

    async def _load(self, key: str, find: Find) -> _Found:
        asked_at = self._clock()
        shared = await self._find_shared(key)
        found = shared or await self._find_stored(find)
        self._keep(key, found, asked_at)
        if shared is None:
            await self._shared.write(key, found)
        return _Found(found.session, is_shared=shared is not None)

    async def _find_shared(self, key: str) -> FoundSession | None:
        """What Redis holds, if it is to be believed."""
        if self._clock() >= self._watermark.fresh_until:
            return None
        found = await self._shared.read(key)
        now = self._clock()
        if found is None or not self._watermark.believes(now, found.as_of, found.server, found.session.id):
            return None
        found = replace(found, seconds_left=found.expires_at - self._watermark.database_time(now))
        return found if found.seconds_left > self._margin else None

    async def _find_stored(self, find: Find) -> FoundSession:
        async with self._transactions() as tx:
            found = await find(tx)
        if found is None:
            raise refused()
        if found.seconds_left > self._margin:
            return found
        expires_at = await self._activity.write_now(found.session.id, requests=0)
        if expires_at is None:
            raise refused()
        gained = (expires_at - found.session.expires_at).total_seconds()
        return replace(
            found,
            session=found.session.model_copy(update={"expires_at": expires_at}),
            expires_at=found.expires_at + gained,
            seconds_left=found.seconds_left + gained,
        )

    def _keep(self, key: str, found: FoundSession, asked_at: float) -> None:
        """Keep a copy unless something is known that it may lack; what is learnt later drops it."""
        usable_until = asked_at + found.seconds_left - self._margin
        if usable_until > asked_at and self._watermark.vouches_for(found.session.id, found.as_of, found.server):
            self._near.put(key, NearCopy(found.session, usable_until), asked_at)


def refused() -> InvalidSessionError:
    """The one answer to every token that is not accepted."""
    return InvalidSessionError("the session is unknown or has ended; log in again")
