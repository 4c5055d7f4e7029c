"""The ``Storage`` port: what every backend does with files, and the values that travel through it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager
    from datetime import datetime

FileContent = bytes | AsyncIterable[bytes] | BinaryIO | Path
"""What can be uploaded: bytes, an asynchronous stream of them, a file that is open for reading, or a file's path."""


@dataclass(frozen=True, slots=True)
class FileInformation:
    """Everything that is known about one stored file.

    Attributes:
        key: The name under which it is stored.
        size: Its length in bytes.
        content_type: The media type that it was stored with.
        sha256: The SHA-256 of its bytes, in hexadecimal; None for a file that another program put there.
        created_at: When these bytes were stored, in UTC; overwriting a file creates it anew.
        etag: An opaque text, without quotes, that changes whenever the bytes do.
        metadata: What the caller stored beside it.
    """

    key: str
    size: int
    content_type: str
    sha256: str | None
    created_at: datetime
    etag: str
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ListedFile:
    """What a listing tells about a file without opening it; ``size`` is in bytes, ``created_at`` in UTC."""

    key: str
    size: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class OpenFile:
    """One version of a file, open for reading: ``chunks`` are bytes of exactly the version that is described."""

    information: FileInformation
    chunks: AsyncIterator[bytes]


@dataclass(frozen=True, slots=True)
class StorageStatistics:
    """How full the storage is. Sizes are in bytes; ``free_size`` is None where the backend has no limit to report."""

    file_count: int
    total_size: int
    free_size: int | None


class Storage(Protocol):
    """Files under keys.

    A key is 1 to 1024 bytes of UTF-8 in Unicode's NFC form: segments of at most 255 bytes, separated by ``/``. Keys
    are compared as they are, so ``A`` and ``a`` are two files; a disk that ignores letter case makes them one, so
    do not let keys differ in nothing else. `data_layer.storage.keys` has every rule.

    A file and its metadata are one thing: a reader gets the old ones or the new ones, whole. Of several writers of
    one key the last wins.

    Raises, from every method that is given a key:
        InvalidStorageKeyError: the key breaks a rule; nothing was touched.
        StorageUnavailableError: the backend failed or refused.
    """

    async def upload(
        self, content: FileContent, key: str, content_type: str, *, metadata: Mapping[str, str] | None = None
    ) -> str:
        """Store a file durably, in place of one that has the key already, and return its URL.

        A failed or cancelled upload leaves what was there before; cancelled at its very last step it may have been
        carried out, whole.

        Args:
            content: The bytes, or where to read them. A stream is read once and never held in memory as a whole.
            key: The name to store it under.
            content_type: The media type to give it, for example ``image/png``.
            metadata: Free values to keep beside it: names of lower-case letters, digits and ``_``, together at most
                1024 bytes (counted percent-encoded, as they travel in headers).

        Raises:
            FileTooLargeError: there is more content than one file may have.
            StorageFullError: there is no room left.
            InvalidValueError: the content type or the metadata break a rule.
        """
        ...

    async def download(self, key: str) -> bytes:
        """The whole file, in memory; use ``open`` for one that may be large.

        Raises:
            FileNotFoundInStorageError: no file has this key.
        """
        ...

    def open(self, key: str, *, start: int = 0, end: int | None = None) -> AbstractAsyncContextManager[OpenFile]:
        """Read a file, or the bytes from ``start`` up to ``end`` (exclusive), in chunks and in flat memory.

        Limits beyond the end are cut to it. Overwriting or deleting the file does not disturb the reading.

        Raises:
            FileNotFoundInStorageError: no file has this key.
            InvalidValueError: a limit is negative.
        """
        ...

    async def stat(self, key: str) -> FileInformation:
        """Everything that is known about a file.

        Raises:
            FileNotFoundInStorageError: no file has this key.
        """
        ...

    async def exists(self, key: str) -> bool:
        """Whether a file has this key."""
        ...

    async def delete(self, key: str) -> bool:
        """Remove a file and its metadata; whether there was one. Repeating it is harmless."""
        ...

    def list(self, prefix: str = "") -> AsyncGenerator[ListedFile]:
        """The files whose keys begin with ``prefix``, read as they are asked for, in the order of the keys' bytes.

        Files that come or go during the listing may or may not be in it; every other file is, once.
        """
        ...

    def url(self, key: str) -> str:
        """The address of a file, whether it exists or not. It grants no right to read it."""
        ...


class StorageAdministration(Protocol):
    """What the owner of a storage does with it, and its users do not."""

    async def initialize(self) -> None:
        """Make the storage ready for use; harmless when it is.

        Raises:
            StorageUnavailableError: it cannot be made ready; the message names the place, for operators.
        """
        ...

    async def close(self) -> None:
        """Finish what is under way and let go of everything; harmless when closed."""
        ...

    async def check(self) -> None:
        """Prove that files can be written, by writing a tiny one and removing it.

        Raises:
            StorageUnavailableError: they cannot.
            StorageFullError: there is no room left.
        """
        ...

    async def statistics(self) -> StorageStatistics:
        """Count the files; takes as long as listing them all."""
        ...


class StorageBackend(Storage, StorageAdministration, Protocol):
    """Both sides of a storage: what the composition root holds, and what an adapter implements."""
