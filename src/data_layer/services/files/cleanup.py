"""Removing what nobody needs: in batches that each stand for themselves, so that it can be stopped and begun again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from datetime import UTC, datetime, timedelta

from data_layer.repositories.unit_of_work import Transactions
from data_layer.schemas.base import Value
from data_layer.services.files.backends import EXPORTS, FILES, UPLOADS, StorageBackends
from data_layer.services.files.check import FileCheck
from data_layer.services.files.removal import FileRemoval
from data_layer.storage import ListedFile, UnusableKeys

_BATCH = 500


class CleanupReport(Value):
    """What was removed, or would be.

    Attributes:
        applied: Whether it really was removed.
        expired: Files whose time is over.
        abandoned: Direct uploads that were not completed.
        half_deleted: Objects whose removal had been interrupted.
        unreferenced: Objects that nothing has referred to for long enough.
        orphans: Objects that no row knows, where files, uploads and exports are; elsewhere only on request.
        orphan_size: What the orphans take, in bytes.
        unusable: Objects under keys that no file of ours can have; they stay, as something else put them there.
        broken_uploads: Invisible rests of broken uploads, as far as the backend lists them.
    """

    applied: bool
    expired: int = 0
    abandoned: int = 0
    half_deleted: int = 0
    unreferenced: int = 0
    orphans: int = 0
    orphan_size: int = 0
    broken_uploads: int = 0
    unusable: int = 0


class FileCleanup:
    """One cleaning up. ``older_than`` keeps it away from what is being worked on."""

    def __init__(
        self,
        transactions: Transactions,
        backends: StorageBackends,
        removal: FileRemoval,
        *,
        older_than: timedelta,
        apply: bool,
        everywhere: bool,
        on_progress: Callable[[str, int], None],
    ) -> None:
        self._transactions = transactions
        self._backends = backends
        self._removal = removal
        self._older_than = older_than
        self._apply = apply
        self._prefixes = ("",) if everywhere else (EXPORTS, FILES, UPLOADS)
        self._on_progress = on_progress
        self._unusable = UnusableKeys()

    async def run(self) -> CleanupReport:
        """Go through everything once; what comes first makes more for what comes later."""
        report = await self._clean(self._orphans)
        if not self._apply:
            return report
        broken = await self._backends.storage.remove_abandoned_uploads(older_than=self._older_than)
        return report.model_copy(update={"broken_uploads": broken})

    async def run_quickly(self) -> CleanupReport:
        """What the table knows, and what direct uploads and exports left, without a list of the whole storage."""
        return await self._clean(self._orphans_of_few)

    async def _clean(self, find_orphans: Callable[[], Awaitable[tuple[int, int]]]) -> CleanupReport:
        expired = await self._expired()
        abandoned = await self._abandoned()
        half_deleted = await self._half_deleted()
        unreferenced = await self._unreferenced()
        orphans, orphan_size = await find_orphans()
        return CleanupReport(
            applied=self._apply,
            expired=expired,
            abandoned=abandoned,
            half_deleted=half_deleted,
            unreferenced=unreferenced,
            orphans=orphans,
            orphan_size=orphan_size,
            unusable=self._unusable.count,
        )

    async def _expired(self) -> int:
        if not self._apply:
            async with self._transactions() as tx:
                return await tx.files.count_expired()
        done = 0
        while True:
            async with self._transactions() as tx:
                objects = await tx.files.remove_expired(_BATCH)
            if not objects:
                return done
            # Nobody can have begun to use these through the expired file, so they need not wait.
            await self._removal.remove(set(objects))
            done += len(objects)
            self._on_progress("expired", done)

    async def _abandoned(self) -> int:
        if not self._apply:
            async with self._transactions() as tx:
                return len(await tx.stored_files.abandoned(older_than=self._older_than, limit=1_000_000))
        done = 0
        while True:
            async with self._transactions() as tx:
                ids = await tx.stored_files.abandoned(older_than=self._older_than, limit=_BATCH)
            abandoned = await self._removal.abandon(ids) if ids else 0
            if not abandoned:
                return done
            done += abandoned
            self._on_progress("abandoned", done)

    async def _half_deleted(self) -> int:
        done = 0
        while True:
            async with self._transactions() as tx:
                limit = _BATCH if self._apply else 1_000_000
                marked = await tx.stored_files.half_deleted(older_than=self._older_than, limit=limit)
            done += len(marked)
            if not marked or not self._apply:
                return done
            await self._removal.finish(marked)
            self._on_progress("half_deleted", done)

    async def _unreferenced(self) -> int:
        done = 0
        after = None
        while True:
            async with self._transactions() as tx:
                page = await tx.stored_files.unreferenced(older_than=self._older_than, after=after, limit=_BATCH)
                # What is removed may be the file of a row that holds its key, also another owner's.
                held = await tx.stored_files.used_in_rows([file.key for file in page])
            free = [file.id for file in page if file.key not in held]
            if self._apply:
                await self._removal.remove(free)
            done += len(free)
            if len(page) < _BATCH:
                return done
            after = (page[-1].updated_at, page[-1].id)
            self._on_progress("unreferenced", done)

    async def _orphans(self) -> tuple[int, int]:
        check = FileCheck(self._transactions, self._backends, deep=False, young_for=self._older_than)
        young_until = datetime.now(UTC) - self._older_than
        count = size = 0
        batch: list[ListedFile] = []
        self._unusable = check.unusable
        async with aclosing(check.merged(self._backends.kind)) as found:
            async for _, listed, record, held in found:
                if listed is None or record is not None or held or listed.created_at > young_until:
                    continue
                if listed.key.startswith(self._prefixes):
                    batch.append(listed)
                if len(batch) == _BATCH:
                    count, size = await self._remove_orphans(batch, count, size)
                    batch = []
        return await self._remove_orphans(batch, count, size)

    async def _orphans_of_few(self) -> tuple[int, int]:
        """Orphans where there are never many objects at once."""
        young_until = datetime.now(UTC) - self._older_than
        count = size = 0
        batch: list[ListedFile] = []
        for prefix in (EXPORTS, UPLOADS):
            async with aclosing(self._backends.storage.list(prefix, on_unusable_key=self._unusable.add)) as found:
                async for listed in found:
                    if listed.created_at <= young_until:
                        batch.append(listed)
                    if len(batch) == _BATCH:
                        count, size = await self._remove_orphans(batch, count, size)
                        batch = []
        return await self._remove_orphans(batch, count, size)

    async def _remove_orphans(self, batch: Sequence[ListedFile], count: int, size: int) -> tuple[int, int]:
        keys = [file.key for file in batch]
        if not keys:
            return count, size
        async with self._transactions() as tx:
            known = await tx.stored_files.known(keys) | await tx.stored_files.used_in_rows(keys)
        orphans = [file for file in batch if file.key not in known]
        if self._apply:
            await self._backends.storage.delete_many([file.key for file in orphans])
        count += len(orphans)
        self._on_progress("orphans", count)
        return count, size + sum(file.size for file in orphans)
