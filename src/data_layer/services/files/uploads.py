"""Direct uploads: clients send files straight to the storage, which become visible after they were verified."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

from data_layer.entities import StoredFile
from data_layer.entities.enums import FileState
from data_layer.errors import (
    ConflictError,
    ContentMismatchError,
    FileNotFoundInStorageError,
    FileTooLargeError,
    InvalidFileError,
    InvalidValueError,
    NotFoundError,
)
from data_layer.repositories.unit_of_work import Transactions
from data_layer.schemas.files import Attachment, DirectUpload, FileView
from data_layer.services.files.backends import StorageBackends, require_announced_size, upload_key
from data_layer.services.files.ingest import FileIngest, SaveRequest, new_reference
from data_layer.services.files.owners import Owner, require_owner
from data_layer.services.files.removal import FileRemoval, leaving_rest_to_cleanup
from data_layer.storage.arguments import check_sha256
from data_layer.storage.threads import FileThreads
from data_layer.storage.validation import Inspector, receive
from data_layer.storage.validation.inspector import canonical_type, decide_type


class DirectUploads:
    """Begins and completes direct uploads.

    What arrives waits under a key that cannot be read. It is stored again once it is verified, from the bytes that were
    verified: the signed URL may still work, and what a client sends later changes nothing any more.
    """

    def __init__(
        self,
        transactions: Transactions,
        backends: StorageBackends,
        *,
        ingest: FileIngest,
        removal: FileRemoval,
        inspector: Inspector,
        threads: FileThreads,
        expires_in: timedelta,
    ) -> None:
        self._transactions = transactions
        self._backends = backends
        self._ingest = ingest
        self._removal = removal
        self._inspector = inspector
        self._threads = threads
        self._expires_in = expires_in

    async def begin(self, request: SaveRequest, *, content_type: str, size: int, sha256: str | None) -> DirectUpload:
        """Reserve a place and sign a URL for it.

        Raises:
            FileTooLargeError: the announced size is more than a file may have.
            FileTypeNotAllowedError: files of the announced type may not be stored.
            InvalidValueError: the size or the hash make no sense.
        """
        limits = self._inspector.limits
        if size < 1:
            raise InvalidValueError("size must be the number of bytes that will be sent, 1 at least", field="size")
        if size > limits.max_file_size:
            raise FileTooLargeError(f"the file is larger than {limits.max_file_size} bytes (MAX_FILE_SIZE)")
        announced = decide_type(canonical_type(content_type), content_type, limits.allowed_types)
        key = upload_key()
        signed = await self._backends.storage.signed_url(
            key, method="PUT", expires_in=self._expires_in, content_type=announced, size=size
        )
        pending = StoredFile(
            owner_id=request.owner_id,
            backend=self._backends.kind,
            key=key,
            state=FileState.PENDING,
            content_type=announced,
            size=size,
            original_size=size,
            sha256=check_sha256(sha256),
            expires_at=signed.expires_at,
        )
        reference = new_reference(pending.id, request)
        async with self._transactions() as tx:
            tx.files.add_object(pending)
            tx.files.add(reference)
        return DirectUpload(
            id=reference.id,
            url=signed.url,
            method=signed.method,
            headers=dict(signed.headers),
            expires_at=signed.expires_at,
        )

    async def complete(self, file_id: UUID, *, owner_id: Owner) -> FileView:
        """Verify what has arrived and make it visible. Repeating it is harmless.

        Raises:
            NotFoundError: there is no such upload, or it was given up.
            FileNotFoundInStorageError: nothing has arrived yet; it may be tried again until the URL expires.
            InvalidFileError: what has arrived may not be stored; it was removed, and the upload is over.
            ContentMismatchError: it is not what was announced; likewise.
            FileTooLargeError: it is larger than was announced; likewise.
        """
        async with self._transactions() as tx:
            view = require_owner(await tx.files.view(file_id), owner_id)
            pending = await tx.files.object_of(file_id)
        if pending.state is not FileState.PENDING:
            return view
        if pending.expires_at is not None and pending.expires_at + _PATIENCE < datetime.now(UTC):
            raise NotFoundError(f"the upload {file_id} was not completed in time; begin another one")
        try:
            stored = await self._verify_and_store(view, pending)
        except (InvalidFileError, ContentMismatchError, FileTooLargeError):
            with leaving_rest_to_cleanup(files=1):
                await self._removal.abandon([pending.id])
            raise
        except ConflictError:
            return await self._completed_by_another(file_id)
        with leaving_rest_to_cleanup(files=1):
            await self._removal.abandon([pending.id])
        return stored

    async def _verify_and_store(self, view: FileView, pending: StoredFile) -> FileView:
        storage = self._backends.of(pending.backend)
        try:
            async with storage.open(pending.key) as file:
                require_announced_size(file.information.size, pending.size)
                async with receive(file.chunks, pending.size, self._threads) as received:
                    if pending.sha256 is not None and received.sha256 != pending.sha256:
                        raise ContentMismatchError("the content has another SHA-256 than was announced")
                    inspected = await self._inspector.inspect(received, pending.content_type)
                    request = SaveRequest(
                        view.owner_id, view.file_name, _attachment(view), view.expires_at, (view.id, pending.id)
                    )
                    return await self._ingest.store(inspected, request)
        except FileNotFoundInStorageError as error:
            raise FileNotFoundInStorageError(f"nothing has arrived yet for the upload {view.id}") from error

    async def _completed_by_another(self, file_id: UUID) -> FileView:
        async with self._transactions() as tx:
            view = await tx.files.view(file_id)
        if view.state is not FileState.STORED:
            raise NotFoundError(f"the upload {file_id} was given up; begin another one")
        return view


_PATIENCE = timedelta(hours=1)
"""How long after its URL has expired an upload can still be completed."""


def _attachment(view: FileView) -> Attachment | None:
    ids = {name: getattr(view, name) for name in Attachment.model_fields}
    return Attachment(**ids) if any(ids.values()) else None
