"""Comparing the table with the storage, both ways and in flat memory: all lists are read side by side, by key.

What is wrong with an object can be repaired when its bytes are still there in some form.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Generic, TypeVar

from data_layer.entities.enums import FileState, StorageKind
from data_layer.errors import ContentMismatchError, DamagedFileError, FileNotFoundInStorageError
from data_layer.observability.log import get_log
from data_layer.repositories.stored_objects import ObjectRecord
from data_layer.repositories.unit_of_work import Transactions
from data_layer.schemas.base import Value
from data_layer.services.files.backends import StorageBackends, headers_of
from data_layer.services.files.packing import pack, unpack
from data_layer.storage import FileContent, ListedFile, Storage, UnusableKeys
from data_layer.storage.validation import ReceivedFile

Item = TypeVar("Item")
_PAGE = 1000
_REPORTED_EVERY = 1000
_AT_ONCE = 8
log = get_log(__name__)


class Problem(StrEnum):
    """What can be wrong with one object."""

    MISSING = "missing"
    ORPHAN = "orphan"
    WRONG_SIZE = "wrong_size"
    WRONG_HASH = "wrong_hash"
    WRONG_HEADERS = "wrong_headers"


class Finding(Value):
    """One object with which something is wrong, or was until it was repaired; the sizes are in bytes."""

    problem: Problem
    backend: str
    key: str
    expected_size: int | None = None
    size: int | None = None
    is_repaired: bool = False


class CheckReport(Value):
    """What was compared and what was found.

    ``unrecorded`` objects are in order: a row holds their key, but nobody saved them as files. ``young`` ones are no
    orphans yet: an object is stored before it is recorded. ``unusable`` ones have keys that no file of ours can have,
    such as ``a//b``; something else put them there, and the first of them are named.
    """

    objects: int
    size: int
    recorded: int
    unrecorded: int
    young: int
    findings: tuple[Finding, ...]
    unusable: int = 0
    unusable_keys: tuple[str, ...] = ()

    @property
    def is_clean(self) -> bool:
        """Whether nothing is wrong, or everything was repaired."""
        return all(finding.is_repaired for finding in self.findings)


class FileCheck:
    """One comparison. ``young_for`` is how old an object must be before it can be an orphan."""

    def __init__(
        self,
        transactions: Transactions,
        backends: StorageBackends,
        *,
        deep: bool,
        young_for: timedelta,
        repair: FileRepair | None = None,
    ) -> None:
        self._transactions = transactions
        self._backends = backends
        self._deep = deep
        self._repair = repair
        self._young_until = datetime.now(UTC) - young_for
        self._objects = self._size = self._recorded = self._unrecorded = self._young = 0
        self._findings: list[Finding] = []
        self.unusable = UnusableKeys()

    async def run(self, on_progress: Callable[[int], None]) -> CheckReport:
        """Compare everything; ``on_progress`` is called every now and then with how many were seen."""
        for kind in self._backends.kinds:
            batch: list[tuple[str, ListedFile | None, ObjectRecord | None, bool]] = []
            async with aclosing(self.merged(kind)) as found:
                async for key, listed, record, held in found:
                    self._count(listed, record, held=held)
                    batch.append((key, listed, record, held))
                    if len(batch) == _AT_ONCE:
                        await self._look_at_all(kind, batch)
                        batch = []
                    if self._objects % _REPORTED_EVERY == 0:
                        on_progress(self._objects)
            await self._look_at_all(kind, batch)
        return CheckReport(
            objects=self._objects,
            size=self._size,
            recorded=self._recorded,
            unrecorded=self._unrecorded,
            young=self._young,
            findings=tuple(sorted(self._findings, key=lambda finding: (finding.backend, finding.key))),
            unusable=self.unusable.count,
            unusable_keys=self.unusable.names,
        )

    async def merged(
        self, kind: StorageKind
    ) -> AsyncGenerator[tuple[str, ListedFile | None, ObjectRecord | None, bool]]:
        """Each key once: what the storage lists, what the table records, and whether a row holds it as a text."""
        is_main = kind == self._backends.kind
        listing = _Stream(self._backends.of(kind).list(on_unusable_key=self.unusable.add), lambda file: file.key)
        records = _Stream(self._records(), lambda record: record.key)
        held = _Stream(self._keys_in_rows() if is_main else _nothing(), lambda key: key)
        streams = (listing, records, held)
        try:
            for stream in streams:
                await stream.advance()
            while keys := [stream.key for stream in streams if stream.key is not None]:
                key = min(keys)
                found = listing.item_of(key), records.item_of(key), held.item_of(key)
                yield key, found[0], found[1], found[2] is not None
                for stream in streams:
                    if stream.key == key:
                        await stream.advance()
        finally:
            for stream in streams:
                await stream.close()

    def _count(self, listed: ListedFile | None, record: ObjectRecord | None, *, held: bool) -> None:
        if listed is not None:
            self._objects += 1
            self._size += listed.size
            self._recorded += record is not None
            self._unrecorded += record is None and held

    async def _look_at_all(
        self, kind: StorageKind, batch: Iterable[tuple[str, ListedFile | None, ObjectRecord | None, bool]]
    ) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for key, listed, record, held in batch:
                    group.create_task(self._look(kind, key, listed, record, held=held))
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def _look(
        self, kind: StorageKind, key: str, listed: ListedFile | None, record: ObjectRecord | None, *, held: bool
    ) -> None:
        if record is not None and record.backend == kind and record.state is FileState.STORED:
            await self._look_at_record(kind, listed, record)
        elif record is None and held and listed is None:
            if not await self._backends.of(kind).exists(key):
                self._report(Problem.MISSING, kind, key)
        elif record is None and not held and listed is not None and kind == self._backends.kind:
            if listed.created_at > self._young_until:
                self._young += 1
            elif not await self._became_known(key):
                self._report(Problem.ORPHAN, kind, key, size=listed.size)

    async def _look_at_record(self, kind: StorageKind, listed: ListedFile | None, record: ObjectRecord) -> None:
        if listed is None:
            if not await self._is_there_or_gone(kind, record):
                self._report(Problem.MISSING, kind, record.key, expected=record.size)
        elif listed.size != record.size:
            await self._report_and_repair(Problem.WRONG_SIZE, kind, record, listed.size)
        elif self._deep and not await self._has_right_bytes(kind, record):
            await self._report_and_repair(Problem.WRONG_HASH, kind, record, listed.size)
        elif not await self._has_right_headers(kind, record):
            await self._report_and_repair(Problem.WRONG_HEADERS, kind, record, listed.size)

    async def _is_there_or_gone(self, kind: StorageKind, record: ObjectRecord) -> bool:
        """Ask again: it may have been stored, or deleted by its owner, while everything else was compared."""
        if await self._backends.of(kind).exists(record.key):
            return True
        async with self._transactions() as tx:
            row = await tx.stored_files.find_one(id=record.id)
        return row is None or row.state is not FileState.STORED or row.backend != kind

    async def _became_known(self, key: str) -> bool:
        async with self._transactions() as tx:
            return bool(await tx.stored_files.known([key]) or await tx.stored_files.used_in_rows([key]))

    async def _has_right_bytes(self, kind: StorageKind, record: ObjectRecord) -> bool:
        digest = hashlib.sha256()
        try:
            async with self._backends.of(kind).open(record.key) as file:
                chunks = unpack(file.chunks, record.original_size) if record.encoding else file.chunks
                async for chunk in chunks:
                    digest.update(chunk)
        except FileNotFoundInStorageError:
            return await self._is_there_or_gone(kind, record)
        except DamagedFileError:
            return False
        return digest.hexdigest() == record.sha256

    async def _has_right_headers(self, kind: StorageKind, record: ObjectRecord) -> bool:
        try:
            stored = await self._backends.of(kind).stat(record.key)
        except FileNotFoundInStorageError:
            return await self._is_there_or_gone(kind, record)
        return all(getattr(stored, name) == value for name, value in headers_of(record).items())

    async def _report_and_repair(self, problem: Problem, kind: StorageKind, record: ObjectRecord, size: int) -> None:
        is_repaired = (
            self._repair is not None
            and await self._repair.repair(kind, record)
            and await self._has_right_headers(kind, record)  # A server that cannot keep them cannot be repaired.
        )
        self._report(problem, kind, record.key, expected=record.size, size=size, is_repaired=is_repaired)

    def _report(
        self,
        problem: Problem,
        kind: StorageKind,
        key: str,
        *,
        expected: int | None = None,
        size: int | None = None,
        is_repaired: bool = False,
    ) -> None:
        self._findings.append(
            Finding(
                problem=problem,
                backend=kind.value,
                key=key,
                expected_size=expected,
                size=size,
                is_repaired=is_repaired,
            )
        )

    async def _records(self) -> AsyncGenerator[ObjectRecord]:
        after = ""
        while True:
            async with self._transactions() as tx:
                page = await tx.stored_files.page(after=after, limit=_PAGE)
            for record in page:
                yield record
            if len(page) < _PAGE:
                return
            after = page[-1].key

    async def _keys_in_rows(self) -> AsyncGenerator[str]:
        after = ""
        while True:
            async with self._transactions() as tx:
                page = await tx.stored_files.keys_in_rows(after=after, limit=10 * _PAGE)
            for key in page:
                yield key
            if len(page) < 10 * _PAGE:
                return
            after = page[-1]


class _Stream(Generic[Item]):
    """The next item of a sorted list, and its key; both None at the end."""

    def __init__(self, items: AsyncGenerator[Item], key_of: Callable[[Item], str]) -> None:
        self._items = items
        self._key_of = key_of
        self._item: Item | None = None
        self.key: str | None = None

    async def advance(self) -> None:
        self._item = await anext(self._items, None)
        self.key = None if self._item is None else self._key_of(self._item)

    def item_of(self, key: str) -> Item | None:
        return self._item if self.key == key else None

    async def close(self) -> None:
        await self._items.aclose()


async def _nothing() -> AsyncGenerator[str]:
    for key in list[str]():
        yield key


class FileRepair:
    """Store an object again as its row describes it, one at a time. What cannot be repaired stays as it is.

    A copy of a storage loses what stands beside the bytes (``rsync`` without ``-X``, ``tar`` without ``--xattrs``, an
    S3 copy that replaces metadata), and some tools decompress on the way. The hash in the row decides what the right
    bytes are.
    """

    def __init__(self, backends: StorageBackends) -> None:
        self._backends = backends

    async def repair(self, kind: StorageKind, record: ObjectRecord) -> bool:
        """Store the right bytes with the right headers; whether they were there."""
        storage = self._backends.of(kind)
        try:
            if record.encoding is None:
                async with storage.open(record.key) as file:
                    if file.information.size != record.size:
                        return False
                    await self._store(storage, record, file.chunks, record.sha256)
            else:
                packed = await _packed(storage, record)
                if packed is None:
                    return False
                await self._store(storage, record, packed, hashlib.sha256(packed).hexdigest())
        except (ContentMismatchError, DamagedFileError, FileNotFoundInStorageError):
            return False
        log.info("file_repaired", key=record.key, backend=kind.value)
        return True

    async def _store(self, storage: Storage, record: ObjectRecord, content: FileContent, sha256: str | None) -> None:
        metadata = {"owner": str(record.owner_id)} if record.owner_id else None
        await storage.upload(
            content,
            record.key,
            metadata=metadata,
            sha256=sha256,
            max_size=record.size,
            **headers_of(record),
        )


async def _packed(storage: Storage, record: ObjectRecord) -> bytes | None:
    """The compressed bytes, also where something decompressed them; None where neither is what was saved."""
    async with storage.open(record.key) as file:
        if file.information.size not in {record.size, record.original_size}:
            return None
        content = b"".join([chunk async for chunk in file.chunks])
    if len(content) == record.size:
        plain = b"".join([piece async for piece in unpack(_once(content), record.original_size)])
        return content if _has_hash(plain, record) else None
    if not _has_hash(content, record):
        return None
    packed, _ = await asyncio.to_thread(pack, ReceivedFile.of_bytes(content))
    # Another version of zlib may compress to another size, which the row does not know.
    return packed.read() if packed.size == record.size else None


def _has_hash(content: bytes, record: ObjectRecord) -> bool:
    return hashlib.sha256(content).hexdigest() == record.sha256


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content
