"""The way of a file into the storage and the table: validated before, stored outside, recorded inside a transaction."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar
from uuid import UUID

from uuid_utils.compat import uuid7

from data_layer.concurrency import settled, uninterrupted
from data_layer.entities import FileReference, StoredFile
from data_layer.entities.enums import FileEncoding, FileState
from data_layer.errors import (
    CommitUnknownError,
    ConflictError,
    DamagedFileError,
    FileNotFoundInStorageError,
    InvalidFileError,
    MissingReferenceError,
)
from data_layer.observability.log import get_log
from data_layer.repositories.unit_of_work import Transactions, UnitOfWork
from data_layer.schemas.files import Attachment, FileView, ThumbnailView
from data_layer.services.files.backends import (
    THUMBNAIL_TYPE,
    StorageBackends,
    headers_of,
    new_folder,
    original_key,
    require_size,
    thumbnail_key,
)
from data_layer.services.files.packing import is_packable, pack
from data_layer.services.files.removal import leaving_rest_to_cleanup
from data_layer.storage.threads import FileThreads
from data_layer.storage.validation import InspectedFile, Inspector, ReceivedFile, Thumbnail

log = get_log(__name__)
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class SaveRequest:
    """What a caller wants to be stored for whom. ``pending`` are the ids of a direct upload: its file, its object."""

    owner_id: UUID | None
    file_name: str | None = None
    attached_to: Attachment | None = None
    expires_at: datetime | None = None
    pending: tuple[UUID, UUID] | None = None


@dataclass(frozen=True, slots=True)
class _PendingObjects:
    """The rows of objects that were stored, or are about to be."""

    original: StoredFile
    thumbnails: list[StoredFile]

    @property
    def keys(self) -> list[str]:
        return [self.original.key, *(thumbnail.key for thumbnail in self.thumbnails)]


class FileIngest:
    """Stores inspected files."""

    def __init__(
        self, transactions: Transactions, backends: StorageBackends, inspector: Inspector, threads: FileThreads
    ) -> None:
        self._transactions = transactions
        self._backends = backends
        self._inspector = inspector
        self._threads = threads

    async def store(self, file: InspectedFile, request: SaveRequest) -> FileView:
        """Store a file once for its owner and record who refers to it.

        Raises:
            MissingReferenceError: the row that it is to be attached to does not exist.
            ConflictError: the direct upload was completed or given up by someone else meanwhile.
            StorageError: it could not be stored; nothing of it is left.
            CommitUnknownError: it may be recorded or not; what is left over, ``storage cleanup`` finds.
        """
        same = await self._refer_to_same(file, request)
        if same is not None:
            return await self._heal(file, same)
        packed, encoding = await self._pack(file)
        thumbnails = await self._thumbnails(file)
        objects = self._pending_objects(file, packed, encoding, thumbnails, request)
        try:
            await self._upload(objects, packed, thumbnails, request.owner_id)
        except BaseException:
            await uninterrupted(self._discard(objects.keys))
            raise
        return await self._record_or_discard(objects, request)

    async def _refer_to_same(self, file: InspectedFile, request: SaveRequest) -> FileView | None:
        """Add a reference to the same bytes, if the owner has them already."""
        # The object may be marked as deleted between looking for it and referring to it.
        with suppress(MissingReferenceError):
            async with self._transactions() as tx:
                found = await tx.files.find_same(request.owner_id, file.content.sha256, file.content_type)
                return None if found is None else await self._refer(tx, found, request)
        return None

    async def _heal(self, file: InspectedFile, view: FileView) -> FileView:
        """Store bytes again that are lost or damaged: otherwise they would never come back."""
        try:
            require_size(view, await self._backends.of(view.backend).stat(view.key))
        except (FileNotFoundInStorageError, DamagedFileError) as error:
            packed, encoding = await self._pack(file)
            if encoding == view.encoding and packed.size == view.stored_size:
                log.warning("file_stored_again", key=view.key, reason=error.code)
                await self._put(view, packed, view.owner_id)
        return view

    async def _pack(self, file: InspectedFile) -> tuple[ReceivedFile, FileEncoding | None]:
        if not is_packable(file.content, file.content_type):
            return file.content, None
        return await self._threads.run(pack, file.content)

    async def _thumbnails(self, file: InspectedFile) -> list[Thumbnail]:
        try:
            return await self._inspector.thumbnails(file)
        except InvalidFileError as error:  # The image itself is fine, and worth more than its thumbnails.
            log.warning("thumbnails_failed", reason=str(error))
            return []

    def _pending_objects(
        self,
        file: InspectedFile,
        packed: ReceivedFile,
        encoding: FileEncoding | None,
        thumbnails: list[Thumbnail],
        request: SaveRequest,
    ) -> _PendingObjects:
        folder = new_folder()
        image = file.image
        original = StoredFile(
            owner_id=request.owner_id,
            backend=self._backends.kind,
            key=original_key(folder, file.content_type),
            content_type=file.content_type,
            encoding=encoding,
            size=packed.size,
            original_size=file.content.size,
            sha256=file.content.sha256,
            width=image.width if image else None,
            height=image.height if image else None,
            frame_count=image.frame_count if image else None,
            image_format=image.image_format if image else None,
            dominant_color=image.dominant_color if image else None,
        )
        return _PendingObjects(original, [_thumbnail_row(original, folder, thumbnail) for thumbnail in thumbnails])

    async def _upload(
        self, objects: _PendingObjects, packed: ReceivedFile, thumbnails: list[Thumbnail], owner_id: UUID | None
    ) -> None:
        files = [packed, *(thumbnail.file for thumbnail in thumbnails)]
        try:
            async with asyncio.TaskGroup() as group:
                for row, file in zip([objects.original, *objects.thumbnails], files, strict=True):
                    group.create_task(self._put(row, file, owner_id))
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def _put(self, row: StoredFile | FileView, file: ReceivedFile, owner_id: UUID | None) -> None:
        await self._backends.of(row.backend).upload(
            file.to_upload(),
            row.key,
            metadata={"owner": str(owner_id)} if owner_id else None,
            sha256=file.sha256,
            **headers_of(row),
        )

    async def _record_or_discard(self, objects: _PendingObjects, request: SaveRequest) -> FileView:
        """Once begun, the recording ends, also for a caller that is cancelled: only so it is known what to discard."""
        recording = asyncio.ensure_future(self._record(objects, request))
        cancellation = await settled(recording)
        error = recording.exception()
        if error is None:
            view = recording.result()
            if view.key != objects.original.key:  # Somebody was quicker with the same bytes.
                await uninterrupted(self._discard(objects.keys))
        elif not isinstance(error, CommitUnknownError):
            await uninterrupted(self._discard(objects.keys))
        if cancellation is not None:
            raise cancellation
        return recording.result()

    async def _record(self, objects: _PendingObjects, request: SaveRequest) -> FileView:
        view = await (self._save(objects, request) if request.pending is None else self._complete(objects, request))
        log.info("file_saved", file_id=str(view.id), content_type=view.content_type, size=view.size)
        return view

    async def _save(self, objects: _PendingObjects, request: SaveRequest) -> FileView:
        """Record a new file in one round trip."""
        original = objects.original
        original.state = FileState.STORED
        reference = new_reference(original.id, request)
        async with self._transactions() as tx:
            saved = tx.files.save(original, objects.thumbnails, reference)
        if saved.key != original.key:
            async with self._transactions() as tx:
                return await tx.files.view(reference.id)
        return _view(objects, reference, saved.created_at)

    async def _complete(self, objects: _PendingObjects, request: SaveRequest) -> FileView:
        """Record what a direct upload has stored."""
        async with self._transactions() as tx:
            object_id, key = await tx.files.record(objects.original)
            if key == objects.original.key:
                for thumbnail in objects.thumbnails:
                    tx.files.add_object(thumbnail)
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

    async def _discard(self, keys: list[str]) -> None:
        """Remove what was stored and not recorded. What fails stays as an orphaned file."""
        with leaving_rest_to_cleanup(files=len(keys)):
            await self._backends.storage.delete_many(keys)


def new_reference(object_id: UUID, request: SaveRequest) -> FileReference:
    """A new file that refers to an object."""
    attached = request.attached_to.model_dump(exclude_none=True) if request.attached_to else {}
    return FileReference(
        file_id=object_id,
        owner_id=request.owner_id,
        file_name=request.file_name,
        expires_at=request.expires_at,
        **attached,
    )


def _view(objects: _PendingObjects, reference: FileReference, created_at: datetime) -> FileView:
    """What the database would answer for a file that nobody else refers to yet."""
    original = objects.original
    return FileView(
        id=reference.id,
        owner_id=reference.owner_id,
        file_name=reference.file_name,
        key=original.key,
        backend=original.backend,
        state=original.state,
        content_type=original.content_type,
        encoding=original.encoding,
        size=original.original_size,
        stored_size=original.size,
        sha256=original.sha256,
        image_format=original.image_format,
        width=original.width,
        height=original.height,
        frame_count=original.frame_count,
        dominant_color=original.dominant_color,
        thumbnails=tuple(sorted(map(ThumbnailView.model_validate, objects.thumbnails), key=_width_of)),
        reference_count=1,
        project_id=reference.project_id,
        code_id=reference.code_id,
        image_id=reference.image_id,
        expires_at=reference.expires_at,
        public_name=reference.public_name,
        created_at=created_at,
    )


def _width_of(thumbnail: ThumbnailView) -> int:
    return thumbnail.width


def _thumbnail_row(original: StoredFile, folder: str, thumbnail: Thumbnail) -> StoredFile:
    file = thumbnail.file
    return StoredFile(
        id=uuid7(),
        parent_id=original.id,
        owner_id=original.owner_id,
        backend=original.backend,
        key=thumbnail_key(folder, thumbnail.size),
        state=FileState.STORED,
        content_type=THUMBNAIL_TYPE,
        size=file.size,
        original_size=file.size,
        sha256=file.sha256,
        width=thumbnail.width,
        height=thumbnail.height,
        image_format="WEBP",
    )
