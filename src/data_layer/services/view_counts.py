"""Views of projects, codes and images, collected here and written to the database in batches."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from data_layer.concurrency import RegularFlush
from data_layer.entities import GeneratedCode, GeneratedImage, Project
from data_layer.errors import CommitUnknownError, DataLayerError
from data_layer.observability.log import get_log
from data_layer.repositories.unit_of_work import Transactions
from data_layer.repositories.view_counts import Viewed, Views

log = get_log(__name__)

FLUSH_SECONDS = 10.0
"""How often they are written; so many are lost when the process is killed."""


_KINDS: tuple[Viewed, ...] = (Project, GeneratedCode, GeneratedImage)
_MOST_ROWS = 50_000
_SOON = 5_000
_BATCH = 1_000


@dataclass(slots=True)
class _Seen:
    count: int = 0
    last: float = 0.0


class ViewCounts:
    """Counts views in memory, so that reading waits for no write and no cached project becomes invalid by being read.

    Several processes add up exactly, because each adds what it has counted. Counters are late by ``FLUSH_SECONDS``, and
    in cached views by their time to live as well. What is counted while the database cannot be written to is kept, for
    at most 50,000 rows; of a commit whose outcome is unknown nothing is counted again.
    """

    def __init__(self, transactions: Transactions, clock: Callable[[], float] = time.monotonic) -> None:
        self._transactions = transactions
        self._clock = clock
        self._seen: dict[tuple[Viewed, UUID], _Seen] = {}
        self._lost = 0
        self._flushing = asyncio.Lock()
        self._flusher = RegularFlush(
            self.flush,
            DataLayerError,
            self._note_delay,
            self._note_loss,
            seconds=FLUSH_SECONDS,
            retry_seconds=FLUSH_SECONDS,
            name="view-counts",
        )

    def count(self, kind: Viewed, row_id: UUID) -> None:
        """Count one view of a row."""
        seen = self._seen.get((kind, row_id))
        if seen is None:
            if len(self._seen) >= _MOST_ROWS:
                self._lost += 1
                return
            seen = self._seen[kind, row_id] = _Seen()
        seen.count += 1
        seen.last = self._clock()
        if len(self._seen) >= _SOON:
            self._flusher.wake()

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
        async with self._flushing:
            lost, self._lost = self._lost, 0
            if lost:
                log.warning("views_lost", views=lost, reason="more rows were viewed than can wait to be written")
            collected, self._seen = self._seen, {}
            for kind in _KINDS:
                rows = [(key, seen) for key, seen in collected.items() if key[0] is kind]
                for start in range(0, len(rows), _BATCH):
                    batch = rows[start : start + _BATCH]
                    await self._write(kind, batch, collected)

    async def _write(
        self, kind: Viewed, batch: list[tuple[tuple[Viewed, UUID], _Seen]], collected: dict[tuple[Viewed, UUID], _Seen]
    ) -> None:
        now = self._clock()
        views = [Views(row_id, seen.count, now - seen.last) for (_, row_id), seen in batch]
        try:
            async with self._transactions() as tx:
                await tx.view_counts.add(kind, views)
        except CommitUnknownError as error:
            log.warning("views_uncertain", rows=len(batch), reason=str(error))
        except DataLayerError:
            self._keep(collected)
            raise
        for key, _ in batch:
            del collected[key]

    def _keep(self, unwritten: dict[tuple[Viewed, UUID], _Seen]) -> None:
        """Put back what could not be written, together with what was counted meanwhile."""
        for key, old in unwritten.items():
            seen = self._seen.setdefault(key, _Seen())
            seen.count += old.count
            seen.last = max(seen.last, old.last)

    def _note_delay(self, error: DataLayerError) -> None:
        log.warning("views_delayed", rows=len(self._seen), reason=str(error))

    def _note_loss(self, error: DataLayerError) -> None:
        log.warning("views_lost", rows=len(self._seen), reason=str(error))
