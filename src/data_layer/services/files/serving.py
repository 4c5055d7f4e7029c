"""Files of the local storage, for those who hold a signed URL: what S3 and Azure do by themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from data_layer.errors import FileNotFoundInStorageError, InvalidSignatureError
from data_layer.services.files.packing import unpack
from data_layer.services.files.places import UPLOADS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from datetime import datetime

    from data_layer.storage import Storage
    from data_layer.storage.signing.local import LocalUrlSigner


@dataclass(frozen=True, slots=True)
class ServedFile:
    """A file that may be read, and how: ``content_disposition`` and ``expires_at`` are those of the signed URL."""

    key: str
    size: int
    etag: str
    created_at: datetime
    content_type: str
    content_encoding: str | None
    content_disposition: str | None
    expires_at: datetime


class LocalFileServer:
    """Verifies signed URLs, reads for them and stores for them. ``max_file_size`` is in bytes."""

    def __init__(self, storage: Storage, signer: LocalUrlSigner, *, max_file_size: int) -> None:
        self._storage = storage
        self._signer = signer
        self.max_file_size = max_file_size

    async def find(self, method: str, key: str, query: Mapping[str, str]) -> ServedFile:
        """The file that a signed URL allows to read. One that was not verified yet is not there.

        Raises:
            InvalidSignatureError: the URL allows nothing.
            FileNotFoundInStorageError: there is no such file.
        """
        grant = self._signer.verify(method, key, query)
        if key.startswith(UPLOADS):
            raise FileNotFoundInStorageError(f"No file is stored under {key!r}")
        file = await self._storage.stat(key)
        return ServedFile(
            key=key,
            size=file.size,
            etag=file.etag,
            created_at=file.created_at,
            content_type=grant.content_type or file.content_type,
            content_encoding=file.content_encoding,
            content_disposition=grant.content_disposition,
            expires_at=grant.expires_at,
        )

    async def read(self, file: ServedFile, *, start: int, end: int, decoded: bool) -> AsyncIterator[bytes]:
        """The bytes of a file from ``start`` up to ``end``, or all of them, decompressed."""
        if decoded:
            async with self._storage.open(file.key) as stored:
                async for chunk in unpack(stored.chunks, None):
                    yield chunk
            return
        async with self._storage.open(file.key, start=start, end=end) as stored:
            async for chunk in stored.chunks:
                yield chunk

    def allow_upload(self, key: str, query: Mapping[str, str], content_type: str | None) -> str:
        """The content type to store a direct upload with.

        Raises:
            InvalidSignatureError: the URL does not allow to send a file, or not this one.
        """
        grant = self._signer.verify("PUT", key, query, content_type=content_type)
        if not key.startswith(UPLOADS):
            raise InvalidSignatureError("Files are stored by direct uploads only")
        return grant.content_type or "application/octet-stream"

    async def store(self, key: str, content: AsyncIterator[bytes], content_type: str) -> None:
        """Store a direct upload that is allowed.

        Raises:
            FileTooLargeError: there is more than a file may have.
        """
        await self._storage.upload(content, key, content_type)
