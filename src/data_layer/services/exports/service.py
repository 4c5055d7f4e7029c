"""What can be done with exports of everything about a person."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from uuid import UUID

from data_layer.concurrency import cancel_and_wait
from data_layer.entities import Export
from data_layer.entities.enums import ExportStatus, FileState
from data_layer.errors import NotFoundError
from data_layer.repositories.stored_objects import ObjectRecord
from data_layer.repositories.unit_of_work import Transactions, UnitOfWork
from data_layer.schemas.actors import Actor
from data_layer.schemas.exports import ExportView
from data_layer.services.accounts.dependencies import load_authorized
from data_layer.services.arguments import checks_arguments
from data_layer.services.exports.worker import ExportWorker, export_entry
from data_layer.services.files.backends import StorageBackends, headers_of, require_size
from data_layer.services.permissions import Permission, as_of_now, is_allowed, require
from data_layer.storage import OpenFile, SignedUrl
from data_layer.storage.validation import content_disposition

_FILE_NAME = "export.zip"


@checks_arguments
class ExportService:
    """Archives of everything about a person, ``data.exports``, which one of the serving processes makes.

    ``data.personal_data.export`` makes the same archive for a caller that waits for it.

    Args:
        transactions: where the jobs are.
        backends: where the archives are.
        worker: makes them.
    """

    def __init__(self, transactions: Transactions, backends: StorageBackends, worker: ExportWorker) -> None:
        self._transactions = transactions
        self._backends = backends
        self._worker = worker

    async def start(self, actor: Actor, user_id: UUID) -> ExportView:
        """Have an archive made, or return the export of this person that waits or runs already.

        It can be had for seven days, or until a later one is complete. A mail says when it is ready.

        Args:
            actor: the person.
            user_id: the person.

        Raises:
            PermissionDeniedError: for anybody else, or an account that is not active.
            NotFoundError: the account does not exist.
        """
        async with self._transactions() as tx:
            # Two requests at the same moment come one after the other; an account that is being erased is gone first.
            await load_authorized(tx, actor, Permission.EXPORT_ACCOUNT, user_id)
            export = await tx.exports.unfinished(user_id)
            if export is None:
                export = Export(user_id=user_id)
                tx.exports.add(export)
                await tx.flush()
                tx.add(export_entry(user_id, export.id, "Asked for an export of everything about a person"))
            view = _shown(export)
        self._worker.grown.set()
        return view

    async def get(self, actor: Actor, export_id: UUID) -> ExportView:
        """An export, and how far it is.

        Raises:
            NotFoundError: the actor has none with this id.
        """
        async with self._transactions() as tx:
            return _shown(await _own(tx, actor, export_id))

    async def list(
        self, actor: Actor, user_id: UUID, *, limit: int = 100, after: UUID | None = None
    ) -> Sequence[ExportView]:
        """A page of the exports of a person, the newest first.

        Args:
            actor: the person.
            user_id: the person.
            limit: the length of the page, 1000 at most.
            after: the id of the last one of the page before.

        Raises:
            PermissionDeniedError: for anybody else.
        """
        require(actor, Permission.EXPORT_ACCOUNT, owner=user_id)
        async with self._transactions() as tx:
            require(await as_of_now(tx, actor), Permission.EXPORT_ACCOUNT, owner=user_id)
            exports = await tx.exports.list(user_id=user_id, order_by="-id", limit=limit, after=after)
            return [_shown(export) for export in exports]

    async def delete(self, actor: Actor, export_id: UUID) -> None:
        """Delete an export with its archive; one that waits or runs is given up.

        Raises:
            NotFoundError: the actor has none with this id.
        """
        async with self._transactions() as tx:
            export = await _own(tx, actor, export_id)
            await tx.exports.remove(export)
            tx.add(export_entry(export.user_id, export_id, "Deleted an export of everything about a person"))

    async def signed_url(self, actor: Actor, export_id: UUID, *, expires_in: timedelta) -> SignedUrl:
        """Permission to download an archive for a while, which is written down. Never store it.

        Args:
            actor: the person.
            export_id: which one.
            expires_in: how long it works, one second to seven days; no longer than the archive can be had.

        Raises:
            NotFoundError: the actor has none with this id, it is not complete, or has expired.
        """
        export, record = await self._record(actor, export_id)
        left = (export.expires_at or datetime.now(UTC)) - datetime.now(UTC)
        return await self._backends.of(record.backend).signed_url(
            record.key,
            expires_in=max(min(expires_in, left), timedelta(seconds=1)),
            content_disposition=content_disposition("attachment", _FILE_NAME),
            **headers_of(record),
        )

    @asynccontextmanager
    async def open(self, actor: Actor, export_id: UUID) -> AsyncIterator[OpenFile]:
        """Read an archive in chunks, which is written down.

        Raises:
            NotFoundError: see ``signed_url``.
            FileNotFoundInStorageError: the storage has lost it.
            DamagedFileError: the storage has another one.
        """
        _, record = await self._record(actor, export_id)
        async with self._backends.of(record.backend).open(record.key) as file:
            require_size(record, file.information)
            yield file

    async def make_due(self) -> int:
        """Make the archives that are due now, without a process that serves; how many were completed."""
        return await self._worker.make_due()

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Make archives inside the block. Any number of processes may do the same; none makes what another one makes.

        Leaving the block interrupts an archive that is being made, and hands it to another process.
        """
        stopping = asyncio.Event()
        task = asyncio.create_task(self._worker.run(stopping), name="exports")
        try:
            yield
        finally:
            stopping.set()
            await cancel_and_wait(task)

    async def _record(self, actor: Actor, export_id: UUID) -> tuple[ExportView, ObjectRecord]:
        async with self._transactions() as tx:
            export = await _own(tx, actor, export_id)
            view = _shown(export)
            if view.status is not ExportStatus.DONE or export.storage_key is None:
                raise NotFoundError(f"the export {export_id} has no archive: it is {view.status}; start another one")
            record = (await tx.stored_files.records([export.storage_key])).get(export.storage_key)
            if record is None or record.state is not FileState.STORED:
                raise NotFoundError(f"the archive of the export {export_id} is gone; start another one")
            tx.add(export_entry(export.user_id, export_id, "Downloaded an export of everything about a person"))
            return view, record


async def _own(tx: UnitOfWork, actor: Actor, export_id: UUID) -> Export:
    export = await tx.exports.find_one(id=export_id)
    actor = await as_of_now(tx, actor)
    if export is None or not is_allowed(actor, Permission.EXPORT_ACCOUNT, owner=export.user_id):
        raise NotFoundError(f"no export has the id {export_id}")
    return export


def _shown(export: Export) -> ExportView:
    view = ExportView.model_validate(export)
    if view.status is ExportStatus.DONE and view.expires_at is not None and view.expires_at <= datetime.now(UTC):
        return view.model_copy(update={"status": ExportStatus.EXPIRED})
    return view
