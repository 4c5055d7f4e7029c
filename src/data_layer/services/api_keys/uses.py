"""Uses of API keys, collected here and written to the database in batches."""

from __future__ import annotations

import time
from collections.abc import Callable
from uuid import UUID

from data_layer.concurrency import RegularFlush
from data_layer.errors import DataLayerError
from data_layer.observability.log import get_log
from data_layer.repositories.unit_of_work import Transactions

log = get_log(__name__)

FLUSH_SECONDS = 10.0
"""How often it is written; so much is lost when the process is killed."""

_RETRY_SECONDS = 1.0


class KeyUses:
    """Remembers when each key was used last, until that is written."""

    def __init__(self, transactions: Transactions, clock: Callable[[], float] = time.monotonic) -> None:
        self._transactions = transactions
        self._clock = clock
        self._last: dict[UUID, float] = {}
        self._flusher = RegularFlush(
            self.flush,
            DataLayerError,
            self._note_delay,
            self._note_loss,
            seconds=FLUSH_SECONDS,
            retry_seconds=_RETRY_SECONDS,
            name="api-key-uses",
        )

    def note(self, key_id: UUID) -> None:
        """Remember that a key was used now."""
        self._last[key_id] = self._clock()

    def start(self) -> None:
        """Write in the background from now on. Harmless when it has begun."""
        self._flusher.start()

    async def flush(self) -> None:
        """Write what was collected. What cannot be written is kept for the next time.

        Raises:
            DatabaseError: when it cannot be written.
        """
        collected, self._last = self._last, {}
        if not collected:
            return
        now = self._clock()
        try:
            async with self._transactions() as tx:
                await tx.api_keys.record_use([(key_id, now - at) for key_id, at in collected.items()])
        except BaseException:
            self._last = collected | self._last
            raise

    async def close(self) -> None:
        """Stop, and write what is left; what cannot be written is lost, and logged."""
        await self._flusher.close()

    def _note_delay(self, error: DataLayerError) -> None:
        log.warning("api_key_uses_delayed", keys=len(self._last), reason=str(error))

    def _note_loss(self, error: DataLayerError) -> None:
        log.warning("api_key_uses_lost", keys=len(self._last), reason=str(error))
