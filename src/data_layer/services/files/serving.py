"""Files over HTTP: local ones for those who hold a signed URL, as S3 and Azure serve them, and public ones for all."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from data_layer.entities.enums import FileState, StorageKind
from data_layer.errors import FileNotFoundInStorageError, InvalidSignatureError, NotFoundError
from data_layer.repositories.stored_objects import ObjectRecord
from data_layer.repositories.unit_of_work import Transactions
from data_layer.services.files.backends import UPLOADS, StorageBackends, require_announced_size, require_size
from data_layer.services.files.packing import unpack
from data_layer.storage import Storage
from data_layer.storage.signing.local import LocalUrlSigner

_PUBLIC_NAME = re.compile(r"[A-Za-z0-9_-]{22}\.[a-z0-9]{1,8}", re.ASCII)


@dataclass(frozen=True, slots=True)
class ServedFile:
    """A file that may be read, and how: ``content_disposition`` and ``expires_at`` are those of the signed URL.

    One without ``expires_at`` never changes, and may be cached for ever.

    ``original_size`` is what comes out when it is decompressed, where that is known.
    """

    key: str
    size: int
    etag: str
    created_at: datetime
    content_type: str
    content_encoding: str | None
    content_disposition: str | None
    expires_at: datetime | None
    original_size: int | None = None
    backend: StorageKind | None = None


class FileServer(Protocol):
    """Reads what was found."""

    def read(self, file: ServedFile, *, start: int, end: int, decoded: bool) -> AsyncGenerator[bytes]:
        """The bytes of a file from ``start`` up to ``end``, or all of them, decompressed. Close it if you stop."""


@dataclass(frozen=True, slots=True)
class PermittedUpload:
    """A direct upload that may be stored: where, as what, and how many bytes it must have."""

    key: str
    content_type: str
    size: int

    def require_length(self, length: int) -> None:
        """Refuse what is announced as too large, before it has arrived.

        Raises:
            FileTooLargeError: it is.
        """
        require_announced_size(length, self.size, is_complete=False)


class LocalFileServer:
    """Verifies signed URLs, reads for them and stores for them.

    Of a file that is in the table, its row says what it is, and not what the disk remembers: a copy of the folder may
    have lost that.
    """

    def __init__(self, transactions: Transactions, storage: Storage, signer: LocalUrlSigner) -> None:
        self._transactions = transactions
        self._storage = storage
        self._signer = signer

    async def find(self, method: str, key: str, query: Mapping[str, str]) -> ServedFile:
        """The file that a signed URL allows to read. One that was not verified yet is not there.

        Raises:
            InvalidSignatureError: the URL allows nothing.
            FileNotFoundInStorageError: there is no such file.
            DamagedFileError: it has another size than was saved.
        """
        grant = self._signer.verify(method, key, query)
        row = await self._record(key)
        if key.startswith(UPLOADS) or (row is not None and row.state is not FileState.STORED):
            raise FileNotFoundInStorageError(f"no file is stored under {key!r}")
        file = await self._storage.stat(key)
        headers = grant.headers
        content_type, encoding = file.content_type, headers.content_encoding or file.content_encoding
        if row is not None:
            require_size(row, file)
            content_type, encoding = row.content_type, row.encoding
        return ServedFile(
            key=key,
            size=file.size,
            etag=file.etag,
            created_at=file.created_at,
            content_type=headers.content_type or content_type,
            content_encoding=encoding,
            content_disposition=headers.content_disposition,
            expires_at=grant.expires_at,
            original_size=None if row is None else row.original_size,
        )

    def read(self, file: ServedFile, *, start: int, end: int, decoded: bool) -> AsyncGenerator[bytes]:
        """The bytes of a file from ``start`` up to ``end``, or all of them, decompressed. Close it if you stop."""
        return _read(self._storage, file, start, end, decoded=decoded)

    async def allow_upload(self, key: str, query: Mapping[str, str], content_type: str | None) -> PermittedUpload:
        """What a signed URL allows to send, as long as the upload is not completed.

        Raises:
            InvalidSignatureError: the URL does not allow to send a file, or not this one, or no longer.
        """
        grant = self._signer.verify("PUT", key, query, content_type=content_type)
        row = await self._record(key) if key.startswith(UPLOADS) else None
        if row is None or row.state is not FileState.PENDING:
            raise InvalidSignatureError("only a direct upload that is not completed yet takes a file")
        return PermittedUpload(key, grant.headers.content_type or row.content_type, row.size)

    async def store(self, upload: PermittedUpload, content: AsyncIterator[bytes]) -> None:
        """Store a direct upload that is allowed.

        Raises:
            FileTooLargeError: there are more bytes than were announced; reading stops there.
            ContentMismatchError: there are fewer.
        """
        await self._storage.upload(_exactly(content, upload.size), upload.key, upload.content_type)

    async def _record(self, key: str) -> ObjectRecord | None:
        async with self._transactions() as tx:
            return (await tx.stored_files.records([key])).get(key)


class PublicFileServer:
    """Finds files by their public names, and reads them wherever they are stored."""

    def __init__(self, transactions: Transactions, backends: StorageBackends) -> None:
        self._transactions = transactions
        self._backends = backends

    async def find(self, name: str) -> ServedFile:
        """The file with a public name. Its ETag depends on its bytes only, and stays when they move.

        Raises:
            NotFoundError: there is none.
            FileNotFoundInStorageError: its bytes are missing.
            DamagedFileError: it has another size than was saved.
        """
        if _PUBLIC_NAME.fullmatch(name) is None:
            raise NotFoundError("no file has this address")
        async with self._transactions() as tx:
            view = await tx.files.public_view(name)
        require_size(view, await self._backends.of(view.backend).stat(view.key))
        return ServedFile(
            key=view.key,
            size=view.stored_size,
            etag=f"{view.sha256}-{view.encoding.value}" if view.encoding else str(view.sha256),
            created_at=view.created_at,
            content_type=view.content_type,
            content_encoding=view.encoding,
            content_disposition="inline",
            expires_at=None,
            original_size=view.size,
            backend=view.backend,
        )

    def read(self, file: ServedFile, *, start: int, end: int, decoded: bool) -> AsyncGenerator[bytes]:
        """The bytes of a file from ``start`` up to ``end``, or all of them, decompressed. Close it if you stop."""
        storage = self._backends.storage if file.backend is None else self._backends.of(file.backend)
        return _read(storage, file, start, end, decoded=decoded)


async def _read(storage: Storage, file: ServedFile, start: int, end: int, *, decoded: bool) -> AsyncGenerator[bytes]:
    if decoded:
        async with storage.open(file.key) as stored:
            async for chunk in unpack(stored.chunks, file.original_size):
                yield chunk
        return
    async with storage.open(file.key, start=start, end=end) as stored:
        async for chunk in stored.chunks:
            yield chunk


async def _exactly(content: AsyncIterator[bytes], size: int) -> AsyncIterator[bytes]:
    arrived = 0
    async for chunk in content:
        arrived += len(chunk)
        require_announced_size(arrived, size, is_complete=False)
        yield chunk
    require_announced_size(arrived, size)
