"""Make the archives that people have asked for.

1. *Claim*, one transaction: the job is this process's for 40 seconds, renewed every 10 with how far it is.
2. *Make*, outside any transaction: the archive goes into the storage, under a new key, while it is made. It is never
   in memory as a whole.
3. *Finish*, one transaction: the job is done, the object is recorded, the mail is queued, the former archive expires.

| the process dies at | what follows |
| --- | --- |
| 1 | nothing has happened |
| 2 | another process makes it from the beginning when the lease has ended |
| 2, after the storage has the whole archive | the same; the object is in no row, and maintenance removes it |
| 3 | the same, unless it was committed: then it is done |

A job that no process finishes in four attempts has failed. One that ends with its process is put back at once.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from uuid import UUID

from uuid_utils.compat import uuid7

from data_layer.concurrency import Backoff, cancel_and_wait, is_set_within, jittered, uninterrupted
from data_layer.context import new_correlation_id, request_context
from data_layer.entities import AuditLog, StoredFile
from data_layer.entities.enums import AuditAction, ExportStatus, FileState, MailKind
from data_layer.errors import (
    CommitUnknownError,
    DatabaseError,
    DataLayerError,
    NotFoundError,
    PermissionDeniedError,
)
from data_layer.observability.log import get_log
from data_layer.repositories.exports import ClaimedExport, is_other_of
from data_layer.repositories.unit_of_work import Transactions, UnitOfWork
from data_layer.services.accounts.addresses import is_placeholder
from data_layer.services.files.backends import StorageBackends, export_key, headers_of
from data_layer.services.files.removal import leaving_rest_to_cleanup
from data_layer.services.mails.queue import MailQueue
from data_layer.services.transfer.personal import ExportProgress, PersonalArchives

log = get_log(__name__)

KEPT_FOR = timedelta(days=7)
"""How long an archive can be had."""

CONTENT_TYPE = "application/zip"
LEASE = timedelta(seconds=40)
_RENEW_SECONDS = 10.0
_POLL_SECONDS = 2.0
_MOST_ATTEMPTS = 4
_FIRST_PAUSE = 3.0  # 3, 6 and 12 seconds, each half of it at least.
_PIECE_SECONDS = 600.0
"""For how long one piece may be made: a project with thousands of versions, the files of which are read."""

_LARGEST = 10_000 * 8 * 2**20
"""Bytes of an archive: as many as S3 takes in parts of 8 MiB."""

_FAILURE_BATCH = 100
_STOPPED = "the process that made it stopped again and again; start another export, or ask the operator"


class ExportWorker:
    """Work the queue off, see the module.

    Args:
        transactions: where the queue is.
        backends: where archives are stored.
        archives: makes them.
        mails: where people are informed.
    """

    def __init__(
        self, transactions: Transactions, backends: StorageBackends, archives: PersonalArchives, mails: MailQueue
    ) -> None:
        self._transactions = transactions
        self._backends = backends
        self._archives = archives
        self._mails = mails
        self.grown = asyncio.Event()
        """Set when this process has queued a job, so that it begins at once."""

    async def run(self, stopping: asyncio.Event) -> None:
        """Make archives, one after the other, until ``stopping`` is set."""
        outage = Backoff(1.0, 60.0, jitter=0.3)
        while not stopping.is_set():
            self.grown.clear()
            try:
                await self.make_due(stopping)
            except Exception as error:  # noqa: BLE001  (whatever it was: the queue is looked at again later)
                code = error.code if isinstance(error, DataLayerError) else type(error).__name__
                log.warning("export_queue_unavailable", code=code)
                await is_set_within(stopping, outage.next())
            else:
                outage.reset()
                if not stopping.is_set():
                    await is_set_within(self.grown, jittered(_POLL_SECONDS))

    async def make_due(self, stopping: asyncio.Event | None = None) -> int:
        """Make everything that is due, or until ``stopping`` is set; how many archives were completed."""
        done = 0
        with request_context(correlation_id=new_correlation_id(), source="exports"):
            await self._abandon()
            while (stopping is None or not stopping.is_set()) and (export := await self._claim()) is not None:
                done += await self._make(export)
        return done

    async def _claim(self) -> ClaimedExport | None:
        async with self._transactions() as tx:
            return await tx.exports.claim(LEASE, most=_MOST_ATTEMPTS)

    async def _abandon(self) -> None:
        """Fail the jobs whose processes died each time."""
        async with self._transactions() as tx:
            for export_id, user_id in await tx.exports.abandon(_STOPPED, most=_MOST_ATTEMPTS, limit=_FAILURE_BATCH):
                tx.add(export_entry(user_id, export_id, "Failed to export everything about a person", is_success=False))
                log.error("export_failed", export=export_id, reason=_STOPPED)

    async def _make(self, export: ClaimedExport) -> bool:
        """Make one archive; whether it was completed."""
        progress = ExportProgress()
        try:
            row = await self._while_renewed(export, progress)
            return row is not None and await uninterrupted(self._record(export, row, progress))
        except asyncio.CancelledError:
            await uninterrupted(self._hand_back(export))
            raise
        except Exception as error:  # noqa: BLE001  (whatever it was, the person gets to know)
            await self._settle_failure(export, error)
            return False

    async def _while_renewed(self, export: ClaimedExport, progress: ExportProgress) -> StoredFile | None:
        """Store the archive, and renew the lease meanwhile; None if the job was removed, or another process has it."""
        writing = asyncio.create_task(self._write(export, progress), name="export")
        try:
            while not (await asyncio.wait([writing], timeout=_RENEW_SECONDS))[0]:
                if not await self._renew(export, progress):
                    log.info("export_abandoned", export=export.id)
                    return None
            return writing.result()
        finally:
            await cancel_and_wait(writing)

    async def _renew(self, export: ClaimedExport, progress: ExportProgress) -> bool:
        """Keep the job; False if it was removed, or another process has it."""
        try:
            async with self._transactions() as tx:
                return await tx.exports.renew(export, LEASE, progress.counted())
        except DatabaseError as error:
            # While the database is away nobody else takes the job either.
            log.warning("export_lease_not_renewed", export=export.id, code=error.code)
            return True

    async def _write(self, export: ClaimedExport, progress: ExportProgress) -> StoredFile:
        """Store the archive while it is made; what is to be recorded of it."""
        row = StoredFile(
            owner_id=export.user_id,
            backend=self._backends.kind,
            key=export_key(),
            content_type=CONTENT_TYPE,
            state=FileState.STORED,
            size=0,
            original_size=0,
        )
        digest = _Digest()
        metadata = {"owner": str(export.user_id)}
        try:
            async with aclosing(digest.of(_each_in_time(self._archives.pieces(export.user_id, progress)))) as pieces:
                await self._backends.storage.upload(
                    pieces, row.key, metadata=metadata, max_size=_LARGEST, **headers_of(row)
                )
        except BaseException:
            # A storage that did not answer may have it.
            await uninterrupted(self._discard(row.key))
            raise
        row.size = row.original_size = digest.size
        row.sha256 = digest.hexdigest()
        return row

    async def _record(self, export: ClaimedExport, row: StoredFile, progress: ExportProgress) -> bool:
        """Finish the job; what is not recorded is removed."""
        try:
            is_finished = await self._finish(export, row, progress)
        except CommitUnknownError:
            raise  # The object may be in a row; otherwise maintenance removes it.
        except Exception:
            await self._discard(row.key)
            raise
        if not is_finished:
            await self._discard(row.key)
        return is_finished

    async def _finish(self, export: ClaimedExport, row: StoredFile, progress: ExportProgress) -> bool:
        expires_at = datetime.now(UTC) + KEPT_FOR
        values = {"status": ExportStatus.DONE, "storage_key": row.key, "size": row.size, "expires_at": expires_at}
        async with self._transactions() as tx:
            if not await tx.exports.finish(export, progress.completed() | values):
                return False
            tx.files.add_object(row)
            await tx.exports.expire(is_other_of(export), limit=_FAILURE_BATCH)
            tx.add(export_entry(export.user_id, export.id, "Completed the export of everything about a person"))
            await self._inform(tx, export.user_id, expires_at)
        self._mails.grown.set()
        log.info("export_completed", export=export.id, size=row.size, attempts=export.attempts)
        return True

    async def _inform(self, tx: UnitOfWork, user_id: UUID, expires_at: datetime) -> None:
        user = await tx.users.get(user_id)
        if not is_placeholder(user.email):
            self._mails.add(tx, uuid7(), user_id, MailKind.EXPORT_READY, expires_at=expires_at)

    async def _settle_failure(self, export: ClaimedExport, error: Exception) -> None:
        code = error.code if isinstance(error, DataLayerError) else type(error).__name__
        is_final = isinstance(error, NotFoundError | PermissionDeniedError) or export.attempts >= _MOST_ATTEMPTS
        try:
            async with self._transactions() as tx:
                if not is_final:
                    pause = jittered(_FIRST_PAUSE * 2 ** (export.attempts - 1))
                    await tx.exports.postpone(export, timedelta(seconds=pause))
                elif await tx.exports.finish(export, {"status": ExportStatus.FAILED, "error": _reason(error)}):
                    what = "Failed to export everything about a person"
                    tx.add(export_entry(export.user_id, export.id, what, is_success=False, details=code))
        except DatabaseError as failure:
            # The lease ends by itself.
            log.warning("export_outcome_lost", export=export.id, code=failure.code)
        say = log.error if is_final else log.warning
        say("export_failed" if is_final else "export_postponed", export=export.id, code=code, attempts=export.attempts)

    async def _hand_back(self, export: ClaimedExport) -> None:
        """This process ends: another one need not wait for the end of the lease."""
        try:
            async with self._transactions() as tx:
                await tx.exports.postpone(export, timedelta(0))
        except DatabaseError as error:
            log.warning("export_outcome_lost", export=export.id, code=error.code)

    async def _discard(self, key: str) -> None:
        with leaving_rest_to_cleanup(key=key):
            await self._backends.storage.delete(key)


class _Digest:
    """The size and the SHA-256 of what passes."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self.size = 0

    async def of(self, pieces: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
        async with aclosing(pieces):
            async for piece in pieces:
                self._hash.update(piece)
                self.size += len(piece)
                yield piece

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


async def _each_in_time(pieces: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    """The same pieces; one that is not there in time is an error, so nothing waits forever."""
    async with aclosing(pieces):
        while True:
            async with asyncio.timeout(_PIECE_SECONDS):
                piece = await anext(pieces, None)
            if piece is None:
                return
            yield piece


def export_entry(
    user_id: UUID, export_id: UUID, description: str, *, is_success: bool = True, details: str | None = None
) -> AuditLog:
    """What happened to an export, for the audit trail."""
    return AuditLog.security_event(
        AuditAction.SECURITY_DATA_EXPORT,
        description,
        user_id=user_id,
        is_success=is_success,
        details=details,
        resource_type="export",
        resource_id=str(export_id),
    )


def _reason(error: Exception) -> str:
    """Why, for the person: without what only the operator should know."""
    match error:
        case NotFoundError() | PermissionDeniedError():
            return "the account is not active any more"
        case DataLayerError():
            return f"{error.code}: something that is needed for it failed; try again later"
        case _:
            return "something unexpected happened; try again later, or ask the operator"
