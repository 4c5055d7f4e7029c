"""The way of a file into the storage and the table: validated before, stored outside, recorded inside a transaction."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from uuid import UUID

from uuid_utils.compat import uuid7

from data_layer.concurrency import uninterrupted
from data_layer.entities import FileReference
from data_layer.entities.enums import FileEncoding
from data_layer.entities.validation import new_values
from data_layer.errors import (
    ConflictError,
    DamagedFileError,
    FileNotFoundInStorageError,
    MissingReferenceError,
)
from data_layer.observability.log import get_log
from data_layer.repositories.numbered_rows import Values
from data_layer.repositories.saved_files import NewObject
from data_layer.repositories.unit_of_work import Transactions, UnitOfWork
from data_layer.schemas.files import Attachment, FileView
from data_layer.services.files.backends import Place, StorageBackends, new_place, original_key, require_size
from data_layer.services.files.packing import is_packable, pack
from data_layer.services.files.removal import leaving_rest_to_cleanup, recorded_or_discarded
from data_layer.services.files.thumbnails import ThumbnailMaker
from data_layer.storage.threads import FileThreads
from data_layer.storage.validation import InspectedFile, Inspector, ReceivedFile

log = get_log(__name__)

_WORTH_ASKING = 1024 * 1024
"""Bytes from which the database is asked first whether the owner has them already; fewer are quicker stored in vain."""


@dataclass(frozen=True, slots=True)
class SaveRequest:
    """What a caller wants to be stored for whom. ``pending`` are the ids of a direct upload: its file, its object."""

    owner_id: UUID | None
    file_name: str | None = None
    attached_to: Attachment | None = None
    expires_at: datetime | None = None
    pending: tuple[UUID, UUID] | None = None


class FileIngest:
    """Stores inspected files."""

    def __init__(
        self,
        transactions: Transactions,
        backends: StorageBackends,
        inspector: Inspector,
        threads: FileThreads,
        thumbnails: ThumbnailMaker,
    ) -> None:
        self._transactions = transactions
        self._backends = backends
        self._inspector = inspector
        self._threads = threads
        self._thumbnails = thumbnails

    async def store(self, file: InspectedFile, request: SaveRequest) -> FileView:
        """Store a file once for its owner and record who refers to it.

        Raises:
            MissingReferenceError: the row that it is to be attached to does not exist.
            ConflictError: the direct upload was completed or given up by someone else meanwhile.
            StorageError: it could not be stored; nothing of it is left.
            CommitUnknownError: it may be recorded or not; what is left over, ``storage cleanup`` finds.
        """
        if file.content.size >= _WORTH_ASKING:
            await self._threads.run(_hash, file.content)
            same = await self._refer_to_same(file, request)
            if same is not None:
                return await self._restore(file, same)
        packed, encoding = await self._pack(file)
        place = self._new_place(file, packed, encoding, request)
        reference = _reference(request)  # Checked before anything is stored.
        try:
            await self._backends.put(place, packed)
        except BaseException:
            await uninterrupted(self._discard(place.key))
            raise
        new = self._new_object(file, place)
        view = await recorded_or_discarded(
            self._record(new, reference, request),
            is_kept=lambda view: view.key == new.key,  # Or the owner has the same bytes already.
            discard=partial(self._discard, new.key),
        )
        return view if view.key == new.key else await self._restore(file, view)

    async def _refer_to_same(self, file: InspectedFile, request: SaveRequest) -> FileView | None:
        """Add a reference to the same bytes, if the owner has them already."""
        # The object may be marked as deleted between looking for it and referring to it.
        with suppress(MissingReferenceError):
            async with self._transactions() as tx:
                found = await tx.files.find_same(request.owner_id, file.content.sha256, file.content_type)
                return None if found is None else await self._refer(tx, found, request)
        return None

    async def _restore(self, file: InspectedFile, view: FileView) -> FileView:
        """Store bytes again that are lost or damaged: otherwise they would never come back."""
        try:
            require_size(view, await self._backends.of(view.backend).stat(view.key))
        except (FileNotFoundInStorageError, DamagedFileError) as error:
            packed, encoding = await self._pack(file)
            if encoding == view.encoding and packed.size == view.stored_size:
                log.warning("file_stored_again", key=view.key, reason=error.code)
                await self._backends.put(view, packed)
                if not view.thumbnails and self._inspector.makes_thumbnails(file):
                    async with self._transactions() as tx:
                        await tx.stored_files.begin_thumbnails(view.key)
                        view = await tx.files.view(view.id)
                    self._thumbnails.add(view.key)
        return view

    async def _pack(self, file: InspectedFile) -> tuple[ReceivedFile, FileEncoding | None]:
        if not is_packable(file.content, file.content_type):
            return file.content, None
        return await self._threads.run(pack, file.content)

    def _new_place(
        self, file: InspectedFile, packed: ReceivedFile, encoding: FileEncoding | None, request: SaveRequest
    ) -> Place:
        key = original_key(new_place(), file.content_type)
        return Place(self._backends.kind, key, request.owner_id, file.content_type, encoding, packed.size)

    def _new_object(self, file: InspectedFile, place: Place) -> NewObject:
        image = file.image
        return NewObject(
            id=uuid7(),
            owner_id=place.owner_id,
            backend=place.backend,
            key=place.key,
            content_type=place.content_type,
            encoding=place.encoding,
            size=place.stored_size,
            original_size=file.content.size,
            sha256=file.content.sha256,
            width=image.width if image else None,
            height=image.height if image else None,
            frame_count=image.frame_count if image else None,
            image_format=image.image_format if image else None,
            dominant_color=image.dominant_color if image else None,
            thumbnails_pending=self._inspector.makes_thumbnails(file),
        )

    async def _record(self, new: NewObject, reference: Values, request: SaveRequest) -> FileView:
        view = await (self._save(new, reference) if request.pending is None else self._complete(new, request))
        log.info("file_saved", file_id=str(view.id), content_type=view.content_type, size=view.size)
        if view.thumbnails_pending:
            self._thumbnails.add(view.key)
        return view

    async def _save(self, new: NewObject, reference: Values) -> FileView:
        """Record a new file in one round trip."""
        async with self._transactions() as tx:
            saved = tx.files.save(new, reference)
        if saved.key != new.key:
            async with self._transactions() as tx:
                return await tx.files.view(reference["id"])
        return _view(new, reference, saved.created_at)

    async def _complete(self, new: NewObject, request: SaveRequest) -> FileView:
        """Record what a direct upload has stored."""
        async with self._transactions() as tx:
            object_id, _ = await tx.files.record(new)
            return await self._refer(tx, object_id, request)

    async def _refer(self, tx: UnitOfWork, object_id: UUID, request: SaveRequest) -> FileView:
        if request.pending is not None:
            file_id, pending = request.pending
            if not await tx.files.point_to(file_id, pending=pending, stored=object_id):
                raise ConflictError("the upload was completed or given up by someone else")
            return await tx.files.view(file_id)
        reference = new_reference(object_id, request)
        tx.files.add(reference)
        return await tx.files.view(reference.id)

    async def _discard(self, key: str) -> None:
        """Remove what was stored and not recorded. What fails stays as an orphaned file."""
        with leaving_rest_to_cleanup(key=key):
            await self._backends.storage.delete(key)


def _hash(file: ReceivedFile) -> str:
    return file.sha256


def new_reference(object_id: UUID, request: SaveRequest) -> FileReference:
    """A new file that refers to an object."""
    return FileReference(file_id=object_id, **_reference(request))


def _reference(request: SaveRequest) -> Values:
    """The values of a new file, but for the object that it refers to.

    Raises:
        InvalidValueError: one cannot be stored.
    """
    attached = request.attached_to
    return new_values(
        FileReference,
        id=uuid7(),
        owner_id=request.owner_id,
        file_name=request.file_name,
        expires_at=request.expires_at,
        project_id=attached and attached.project_id,
        code_id=attached and attached.code_id,
        image_id=attached and attached.image_id,
    )


def _view(stored: NewObject, reference: Values, created_at: datetime) -> FileView:
    """What the database would answer for a file that nobody else refers to yet."""
    return FileView(
        **reference,
        key=stored.key,
        backend=stored.backend,
        state=stored.state,
        content_type=stored.content_type,
        encoding=stored.encoding,
        size=stored.original_size,
        stored_size=stored.size,
        sha256=stored.sha256,
        image_format=stored.image_format,
        width=stored.width,
        height=stored.height,
        frame_count=stored.frame_count,
        dominant_color=stored.dominant_color,
        thumbnails=(),
        thumbnails_pending=stored.thumbnails_pending,
        reference_count=1,
        public_name=None,
        created_at=created_at,
    )
