"""Files of the local storage, for those who hold a signed URL: what S3 and Azure do by themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from data_layer.errors import FileNotFoundInStorageError, InvalidSignatureError
from data_layer.services.files.packing import unpack
from data_layer.services.files.places import UPLOADS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from data_layer.storage import FileInformation, Storage
    from data_layer.storage.signing.local import Grant, LocalUrlSigner


class LocalFileServer:
    """Verifies signed URLs, reads for them and stores for them. ``max_file_size`` is in bytes."""

    def __init__(self, storage: Storage, signer: LocalUrlSigner, *, max_file_size: int) -> None:
        self._storage = storage
        self._signer = signer
        self.max_file_size = max_file_size

    def verify(self, method: str, key: str, query: Mapping[str, str], *, content_type: str | None = None) -> Grant:
        """What a signed URL allows.

        Raises:
            InvalidSignatureError: nothing.
        """
        grant = self._signer.verify(method, key, query, content_type=content_type)
        if grant.method == "PUT" and not key.startswith(UPLOADS):
            raise InvalidSignatureError("Files are stored by direct uploads only")
        return grant

    async def stat(self, key: str) -> FileInformation:
        """What is known about a file; one that was not verified yet is not there.

        Raises:
            FileNotFoundInStorageError: there is none.
        """
        if key.startswith(UPLOADS):
            raise FileNotFoundInStorageError(f"No file is stored under {key!r}")
        return await self._storage.stat(key)

    async def read(self, key: str, *, start: int, end: int, decoded: bool) -> AsyncIterator[bytes]:
        """The bytes of a file from ``start`` up to ``end``, or all of them, decompressed."""
        if decoded:
            async with self._storage.open(key) as file:
                async for chunk in unpack(file.chunks, None):
                    yield chunk
            return
        async with self._storage.open(key, start=start, end=end) as file:
            async for chunk in file.chunks:
                yield chunk

    async def write(self, key: str, content: AsyncIterator[bytes], content_type: str) -> None:
        """Store a direct upload.

        Raises:
            FileTooLargeError: there is more than a file may have.
        """
        await self._storage.upload(content, key, content_type)
