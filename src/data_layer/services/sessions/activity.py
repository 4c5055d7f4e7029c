"""Requests in sessions, collected here and written to the database in batches."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from uuid import UUID

from data_layer.concurrency import RegularFlush
from data_layer.errors import DataLayerError
from data_layer.observability.log import get_log
from data_layer.repositories.sessions import Lifetime
from data_layer.repositories.unit_of_work import Transactions
from data_layer.schemas.sessions import ActiveSession
from data_layer.services.sessions.copies import NearCopy

log = get_log(__name__)

FLUSH_SECONDS = 10.0
"""How often it is written; so much is lost when the process is killed."""

_BATCH = 1000
_SOON = 5000
_RETRY_SECONDS = 1.0
# The expiry is moved in steps of this part of SESSION_TTL, because each move costs an entry in its index.
_STEPS = 60


class Activity:
    """Counts requests, and lets the expiry of a session slide with the last one.

    Killing the process loses what it has not written: some requests are not counted, and ``last_active_at`` is older by
    ``FLUSH_SECONDS`` at most. No session ends early by that: near its expiry it is written before the answer.
    """

    def __init__(
        self, transactions: Transactions, lifetime: Lifetime, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._transactions = transactions
        self._lifetime = lifetime
        self._clock = clock
        self._waiting: list[NearCopy] = []
        self._flusher = RegularFlush(
            self.flush,
            DataLayerError,
            self._note_delay,
            self._note_loss,
            seconds=FLUSH_SECONDS,
            retry_seconds=_RETRY_SECONDS,
            name="session-activity",
        )

    def note(self, copy: NearCopy, now: float) -> None:
        """Count a request."""
        copy.requests += 1
        copy.last_request = now
        if not copy.is_noted:
            copy.is_noted = True
            self._waiting.append(copy)
            if len(self._waiting) == _SOON:
                self._flusher.wake()

    def note_session(self, session: ActiveSession, now: float) -> None:
        """Count a request in a session without a copy here."""
        self.note(NearCopy(session, now), now)

    def start(self) -> None:
        """Write in the background from now on. Harmless when it has begun."""
        self._flusher.start()

    async def close(self) -> None:
        """Stop, and write what is left; what cannot be written is lost, and logged."""
        await self._flusher.close()

    async def flush(self) -> None:
        """Write what was collected. What cannot be written is kept for the next time.

        Raises:
            DatabaseError: when it cannot be written.
        """
        collected = self._collect()
        ids = list(collected)
        step = self._lifetime.idle / _STEPS
        for start in range(0, len(ids), _BATCH):
            batch = ids[start : start + _BATCH]
            now = self._clock()
            seen = [
                (copy.session.id, copy.requests, now - copy.last_request) for copy in map(collected.get, batch) if copy
            ]
            try:
                async with self._transactions() as tx:
                    await tx.sessions.record_activity(seen, self._lifetime, step=step)
            except BaseException:
                self._waiting += (collected[session_id] for session_id in ids[start:])
                raise

    async def write_now(self, session_id: UUID, *, requests: int = 1) -> datetime | None:
        """Record requests and slide the expiry at once; the new expiry, or ``None`` if the session has ended.

        Raises:
            DatabaseError: when it cannot be written.
        """
        async with self._transactions() as tx:
            return await tx.sessions.record_activity([(session_id, requests, 0.0)], self._lifetime, step=0.0)

    def _collect(self) -> dict[UUID, NearCopy]:
        """What was noted since the last time, once for each session, taken out of the copies."""
        waiting, self._waiting = self._waiting, []
        collected: dict[UUID, NearCopy] = {}
        for copy in waiting:
            total = collected.setdefault(copy.session.id, NearCopy(copy.session, copy.usable_until))
            total.requests += copy.requests
            total.last_request = max(total.last_request, copy.last_request)
            total.is_noted = True
            copy.requests, copy.is_noted = 0, False
        return collected

    def _note_delay(self, error: DataLayerError) -> None:
        log.warning("session_activity_delayed", sessions=len(self._waiting), reason=str(error))

    def _note_loss(self, error: DataLayerError) -> None:
        log.warning("session_activity_lost", sessions=len(self._waiting), reason=str(error))
