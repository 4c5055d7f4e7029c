"""Removing objects that nobody refers to any more: marked, then removed, then forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar
from uuid import UUID

from data_layer.concurrency import settled, uninterrupted
from data_layer.errors import CommitUnknownError, DataLayerError
from data_layer.observability.log import get_log
from data_layer.repositories.stored_objects import ObjectRecord
from data_layer.repositories.unit_of_work import Transactions, UnitOfWork
from data_layer.services.files.backends import StorageBackends

log = get_log(__name__)
Result = TypeVar("Result")


@contextmanager
def leaving_rest_to_cleanup(**which: object) -> Iterator[None]:
    """What was asked for is committed already: objects that cannot be removed now are no failure of it, but logged."""
    try:
        yield
    except DataLayerError as error:
        log.warning("file_removal_failed", **which, reason=str(error))


async def recorded_or_discarded(
    recording: Coroutine[Any, Any, Result],
    *,
    is_kept: Callable[[Result], bool],
    discard: Callable[[], Coroutine[Any, Any, None]],
) -> Result:
    """Record what was stored, or else discard it.

    Once begun, the recording ends, also for a caller that is cancelled: only so it is known what to discard.

    Args:
        recording: records it.
        is_kept: whether that is what the rows now say, by what was returned.
        discard: removes it from the storage.

    Raises:
        CommitUnknownError: it may be recorded or not; nothing is discarded.
    """
    task = asyncio.ensure_future(recording)
    cancellation = await settled(task)
    error = task.exception()
    if (error is None and not is_kept(task.result())) or (
        error is not None and not isinstance(error, CommitUnknownError)
    ):
        await uninterrupted(discard())
    if cancellation is not None:
        raise cancellation
    return task.result()


class FileRemoval:
    """Takes objects out of the storage and out of the table, in an order that can be interrupted anywhere."""

    def __init__(self, transactions: Transactions, backends: StorageBackends) -> None:
        self._transactions = transactions
        self._backends = backends

    async def remove_discarded(self, keys: Sequence[str]) -> None:
        """After a commit: remove the files whose keys were in rows that are gone. What fails stays for ``cleanup``."""
        with leaving_rest_to_cleanup(files=len(keys)):
            async with self._transactions() as tx:
                strangers = set(keys) - await tx.stored_files.known(keys) - await tx.stored_files.used_in_rows(keys)
                marked = await self._mark_deleted(tx, keys=keys)
            # What the table does not know was put there by hand or by the example data, for the row that held its key.
            for key in sorted(strangers):
                with leaving_rest_to_cleanup(key=key):
                    await self._backends.storage.delete(key)
            await self.finish(marked)

    async def remove(self, object_ids: Collection[UUID]) -> int:
        """Remove those of these objects that nobody refers to; how many objects went, thumbnails included."""
        async with self._transactions() as tx:
            marked = await self._mark_deleted(tx, ids=object_ids)
        await self.finish(marked)
        return len(marked)

    async def abandon(self, object_ids: Collection[UUID]) -> int:
        """Remove direct uploads that were not completed; how many."""
        async with self._transactions() as tx:
            marked = await tx.stored_files.abandon(object_ids)
        await self.finish(marked)
        return len(marked)

    async def finish(self, marked: Collection[ObjectRecord]) -> None:
        """Remove objects whose rows are marked as deleted, and then the rows."""
        if not marked:
            return
        await self._backends.delete((record.backend, record.key) for record in marked)
        async with self._transactions() as tx:
            await tx.stored_files.forget([record.id for record in marked])

    async def _mark_deleted(
        self, tx: UnitOfWork, *, ids: Collection[UUID] = (), keys: Collection[str] = ()
    ) -> Sequence[ObjectRecord]:
        """Mark what nothing refers to, and no row of its owner holds by its key. Other people's rows must attach it."""
        candidates = await tx.stored_files.removable(ids=ids, keys=keys)
        if not candidates:
            return []
        used: set[str] = set()
        for owner in {candidate.owner_id for candidate in candidates}:
            some = [candidate.key for candidate in candidates if candidate.owner_id == owner]
            used |= await tx.stored_files.used_in_rows(some, owner_id=owner)
        return await tx.stored_files.mark_deleted([c.id for c in candidates if c.key not in used])
