"""Copying everything from one backend to another while the service runs.

Each object is copied under its key, verified, and only then do the rows say that it is in the new backend; the service
reads each file where its row says, so it must be configured with both backends meanwhile. What was done already is
found done, so it can be stopped and begun again. Objects in the old backend stay as they are.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace

from data_layer.concurrency import cancel_and_wait
from data_layer.entities.enums import StorageKind
from data_layer.errors import ContentMismatchError, DamagedFileError, FileNotFoundInStorageError
from data_layer.observability.log import get_log
from data_layer.repositories.stored_objects import ObjectRecord
from data_layer.repositories.unit_of_work import Transactions
from data_layer.schemas.base import Value
from data_layer.services.files.backends import EXPORTS, FILES, UPLOADS, StorageBackends, headers_of, require_size
from data_layer.storage import FileInformation, ListedFile, StorageBackend

log = get_log(__name__)
_BATCH = 100
_AT_ONCE = 8


class MigrationReport(Value):
    """What was done.

    Attributes:
        copied: Objects that were copied and verified.
        size: Their bytes.
        present: Objects that had been copied before.
        moved: Objects whose rows now say that they are in the new backend.
        vanished: Objects that were deleted while they were copied.
        orphans: Objects that were left behind, because they are in no row any more.
        missing: Keys that rows say are in the old backend, where they are not.
        damaged: Keys whose objects have another size than their rows say; they were not copied.
    """

    source: str
    target: str
    copied: int
    size: int
    present: int
    moved: int
    vanished: int
    orphans: int
    missing: tuple[str, ...]
    damaged: tuple[str, ...] = ()


class FileMigration:
    """One migration from a backend to another."""

    def __init__(
        self, transactions: Transactions, backends: StorageBackends, *, source: StorageKind, target: StorageKind
    ) -> None:
        self._transactions = transactions
        self._kinds = (source, target)
        self._source = backends.of(source)
        self._target = backends.of(target)
        self._copied = self._size = self._present = self._moved = self._vanished = self._orphans = 0
        self._damaged: list[str] = []

    async def run(self, on_progress: Callable[[int], None]) -> MigrationReport:
        """Copy everything; ``on_progress`` is called after each batch with how many are done.

        Raises:
            ContentMismatchError: an object arrived with other bytes; it was not said to have moved.
        """
        batch: list[ListedFile] = []
        async with aclosing(self._source.list()) as files:
            async for listed in files:
                if not listed.key.startswith(UPLOADS):
                    batch.append(listed)
                if len(batch) == _BATCH:
                    await self._migrate(batch)
                    batch = []
                    on_progress(self._copied + self._present)
        await self._migrate(batch)
        on_progress(self._copied + self._present)
        return MigrationReport(
            source=self._kinds[0].value,
            target=self._kinds[1].value,
            copied=self._copied,
            size=self._size,
            present=self._present,
            moved=self._moved,
            vanished=self._vanished,
            orphans=self._orphans,
            missing=await self._left_behind(),
            damaged=tuple(self._damaged),
        )

    async def _migrate(self, listed: Sequence[ListedFile]) -> None:
        batch = await self._without_orphans(listed)
        async with self._transactions() as tx:
            records = await tx.stored_files.records([listed.key for listed in batch])
        slots = asyncio.Semaphore(_AT_ONCE)

        async def copy(listed: ListedFile) -> str | None:
            async with slots:
                return await self._copy(listed, records.get(listed.key))

        tasks = [asyncio.create_task(copy(listed)) for listed in batch]
        try:
            done = await asyncio.gather(*tasks)
        finally:
            await cancel_and_wait(*tasks)
        await self._say_moved([key for key in done if key is not None])

    async def _without_orphans(self, batch: Sequence[ListedFile]) -> Sequence[ListedFile]:
        """Without saved files that are in no row: copied once, and deleted since from where their row said they are."""
        saved = [listed.key for listed in batch if listed.key.startswith((EXPORTS, FILES))]
        async with self._transactions() as tx:
            unknown = set(saved) - await tx.stored_files.known(saved)
            orphans = unknown - await tx.stored_files.used_in_rows(unknown)
        self._orphans += len(orphans)
        return [listed for listed in batch if listed.key not in orphans]

    async def _copy(self, listed: ListedFile, record: ObjectRecord | None) -> str | None:
        """Copy one object and verify it; its key, unless it was deleted meanwhile or is damaged.

        Of an object that the table knows, its row says what it is: a copy may have lost what stood beside it.
        """
        try:
            async with self._source.open(listed.key) as file:
                information = file.information
                if record is not None:
                    require_size(record, information)
                    information = replace(information, **headers_of(record))
                if await self._is_present(information):
                    self._present += 1
                    return listed.key
                digest = hashlib.sha256()
                await self._target.upload(
                    _hashed(file.chunks, digest),
                    information.key,
                    information.content_type,
                    metadata=information.metadata,
                    content_encoding=information.content_encoding,
                    cache_control=information.cache_control,
                    sha256=information.sha256,
                    max_size=information.size,
                )
        except FileNotFoundInStorageError:
            self._vanished += 1
            return None
        except DamagedFileError as error:
            log.warning("damaged_file_not_copied", key=listed.key, reason=str(error))
            self._damaged.append(listed.key)
            return None
        await self._verify(information, digest.hexdigest())
        self._copied += 1
        self._size += information.size
        return listed.key

    async def _is_present(self, information: FileInformation) -> bool:
        """Whether the target has it already. Without a hash on both sides it is copied again."""
        try:
            there = await self._target.stat(information.key)
        except FileNotFoundInStorageError:
            return False
        same_hash = there.sha256 is not None and there.sha256 == information.sha256
        same_headers = (there.content_type, there.content_encoding, there.cache_control) == (
            *(information.content_type, information.content_encoding, information.cache_control),
        )
        return same_hash and same_headers and there.size == information.size

    async def _verify(self, information: FileInformation, sha256: str) -> None:
        """The target has checked a hash that was known before; otherwise what has arrived is read back."""
        there = await self._target.stat(information.key)
        arrived = there.sha256 if information.sha256 is not None else None
        if arrived is None:
            arrived = await _hash_of(self._target, information.key)
        if there.size != information.size or arrived != sha256:
            raise ContentMismatchError(f"{information.key!r} arrived with other bytes than were sent; try again")

    async def _say_moved(self, keys: Sequence[str]) -> None:
        source, target = self._kinds
        if not keys:
            return
        async with self._transactions() as tx:
            known = await tx.stored_files.known(keys)
            moved = await tx.stored_files.move_to(keys, source=source, target=target)
            gone = await tx.stored_files.not_in(known, target)
        self._moved += moved
        # Deleted between the copy and now: the copy is an orphan. A row goes after its object does.
        gone |= {key for key in keys if key not in known and not await self._source.exists(key)}
        await self._target.delete_many(sorted(gone))
        self._vanished += len(gone)

    async def _left_behind(self) -> tuple[str, ...]:
        """What rows say is in the old backend still, and is not there."""
        missing: list[str] = []
        after = ""
        while True:
            async with self._transactions() as tx:
                page = await tx.stored_files.page(after=after, backend=self._kinds[0], limit=_BATCH)
            left = [record.key for record in page if not record.key.startswith(UPLOADS)]
            missing += [key for key in left if not await self._source.exists(key)]
            if len(page) < _BATCH:
                return tuple(missing)
            after = page[-1].key


async def _hashed(chunks: AsyncIterator[bytes], digest: hashlib._Hash) -> AsyncIterator[bytes]:
    async for chunk in chunks:
        digest.update(chunk)
        yield chunk


async def _hash_of(storage: StorageBackend, key: str) -> str:
    digest = hashlib.sha256()
    async with storage.open(key) as file:
        async for chunk in file.chunks:
            digest.update(chunk)
    return digest.hexdigest()
