"""The ``Storage`` port: what every backend does with files, and the values that travel through it."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import BinaryIO, Literal, Protocol


class HashedBytes:
    """Bytes and their SHA-256 in hexadecimal, which storages believe instead of computing it once more.

    Without one it is computed once, when it is first asked for: by the thread that stores the bytes, not by the one of
    the event loop.
    """

    __slots__ = ("_sha256", "content")

    def __init__(self, content: bytes, sha256: str | None = None) -> None:
        self.content = content
        self._sha256 = sha256

    @property
    def sha256(self) -> str:
        """The hash; the first use may take as long as hashing takes."""
        if self._sha256 is None:
            self._sha256 = hashlib.sha256(self.content).hexdigest()
        return self._sha256


FileContent = bytes | HashedBytes | AsyncIterable[bytes] | BinaryIO | Path
"""What can be uploaded: bytes, an asynchronous stream of them, a file that is open for reading, or a file's path."""

SignedMethod = Literal["GET", "PUT"]
"""What a signed URL allows: to read a file, or to store one."""


@dataclass(frozen=True, slots=True)
class FileInformation:
    """Everything that is known about one stored file.

    Attributes:
        key: The name under which it is stored.
        size: Its length in bytes.
        content_type: The media type that it was stored with.
        sha256: The SHA-256 of its bytes, in hexadecimal. None where nobody said it: for a file that another program
            put there, or that came through a signed URL, and on S3 and Azure for a stream of more than 8 MiB that was
            uploaded without ``sha256``, because its metadata travels before its bytes.
        created_at: When these bytes were stored, in UTC; overwriting a file creates it again. S3 and Azure keep whole
            seconds.
        etag: An opaque text, without quotes, that changes whenever the bytes do.
        metadata: What the caller stored beside it.
        content_encoding: How the stored bytes are encoded, for example ``gzip``: a browser undoes it, ``download``
            and ``open`` do not. None: not at all.
        cache_control: How browsers and a CDN may keep it, as the header of this name says; None: not said.
    """

    key: str
    size: int
    content_type: str
    sha256: str | None
    created_at: datetime
    etag: str
    metadata: Mapping[str, str]
    content_encoding: str | None = None
    cache_control: str | None = None


@dataclass(frozen=True, slots=True)
class ListedFile:
    """What a listing says about a file without opening it; ``size`` is in bytes, ``created_at`` in UTC."""

    key: str
    size: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class OpenFile:
    """One version of a file, open for reading: ``chunks`` are bytes of exactly the version that is described."""

    information: FileInformation
    chunks: AsyncIterator[bytes]


@dataclass(frozen=True, slots=True)
class SignedUrl:
    """Permission to do one thing with one file, until it expires. Anyone who has it can use it: never store or log it.

    Attributes:
        url: The address to send the request to.
        method: The HTTP method to use; a GET may also be a HEAD on the local storage.
        headers: What else the request must carry, exactly so; empty for GET.
        expires_at: When it stops working, in UTC.
    """

    url: str
    method: SignedMethod
    headers: Mapping[str, str]
    expires_at: datetime

    def __str__(self) -> str:
        return self.url


@dataclass(frozen=True, slots=True)
class StorageStatistics:
    """How full the storage is. Sizes are in bytes; ``free_size`` is None where the backend has no limit to report.

    ``unusable_count`` counts objects under keys that no file of ours can have, put there by something else;
    ``unusable_keys`` names the first of them.
    """

    file_count: int
    total_size: int
    free_size: int | None
    unusable_count: int = 0
    unusable_keys: tuple[str, ...] = ()


UnusableKeyHandler = Callable[[ListedFile], None]
"""Is given each object of a listing whose key no file of ours can have, such as ``a//b``."""


class UnusableKeys:
    """Counts the keys that no file of ours can have, and keeps the first of them."""

    _KEPT = 100

    def __init__(self) -> None:
        self.count = 0
        self._first: list[str] = []

    @property
    def names(self) -> tuple[str, ...]:
        """The first of them, written so that they can be shown."""
        return tuple(self._first)

    def add(self, file: ListedFile) -> None:
        """Count one."""
        self.count += 1
        if len(self._first) < self._KEPT:
            self._first.append(ascii(file.key)[1:-1])


def ignore_unusable_key(_file: ListedFile) -> None:
    """Leave it out without a word."""


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
        self,
        content: FileContent,
        key: str,
        content_type: str,
        *,
        metadata: Mapping[str, str] | None = None,
        content_encoding: str | None = None,
        cache_control: str | None = None,
        sha256: str | None = None,
        overwrite: bool = True,
        if_match: str | None = None,
        max_size: int | None = None,
    ) -> str:
        """Store a file durably, in place of one that has the key already, and return its URL.

        A failed or cancelled upload leaves what was there before. Cancelled at its very last step, or failed with
        `StorageUnavailableError` because the answer of a server did not arrive, it may have been carried out, whole.

        Args:
            content: The bytes, or where to read them. A stream is read once and never held in memory as a whole.
            key: The name to store it under.
            content_type: The media type to give it, for example ``image/png``.
            metadata: Free values to keep beside it, such as its owner: names of lower-case letters, digits and ``_``,
                together at most 1024 bytes (counted percent-encoded, as they travel in headers).
            content_encoding: How the bytes are encoded already, for example ``gzip``; they are stored as they come.
            cache_control: How browsers and a CDN may keep the file, for example ``public, max-age=31536000``.
            sha256: The SHA-256 that the content must have, in hexadecimal. It is verified before the file becomes
                visible.
            overwrite: False stores the file only if the key is free.
            if_match: Stores the file only in place of the version with this ETag (`FileInformation.etag`).
            max_size: Bytes that there may be, instead of MAX_FILE_SIZE: for what the application makes itself, such as
                archives. From 80 GB on S3 takes larger parts, and they are held in memory.

        Raises:
            FileTooLargeError: there is more content than one file may have.
            StorageFullError: the storage is full.
            InvalidValueError: the content type, the metadata or another value breaks a rule.
            ContentMismatchError: the content has another SHA-256 than it must have.
            FileExistsInStorageError: the key is taken, and ``overwrite`` is False.
            FileChangedInStorageError: no file has the ETag ``if_match`` (any more); or the parts of this upload
                were discarded, because another one to the same key ended first.
            NotSupportedByStorageError: the server ignores such conditions, as some that resemble S3 do; or one was set
                for more than 64 MiB, which S3 and Azure take in parts.
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

    async def delete(self, key: str) -> None:
        """Remove a file and its metadata. Nothing happens where there is none, so repeating it is harmless."""
        ...

    async def delete_many(self, keys: Iterable[str]) -> None:
        """Remove files, many in one request where the backend can; like ``delete``, harmless to repeat.

        The keys are checked before anything is removed. When it fails, some may be removed and others not.
        """
        ...

    def list(
        self, prefix: str = "", *, on_unusable_key: UnusableKeyHandler = ignore_unusable_key
    ) -> AsyncGenerator[ListedFile]:
        """The files whose keys begin with ``prefix``, read as they are asked for, in the order of the keys' bytes.

        Something else may have put objects there whose keys break the rules, such as ``a//b`` or ``a/``. They go to
        ``on_unusable_key`` and do not end the listing.

        Files that come or go during the listing may or may not be in it; every other file is, once.
        """
        ...


class StorageMoves(Protocol):
    """Files that get another key, without their bytes travelling through this process.

    Raises, from every method, what `Storage` raises, and:
        FileNotFoundInStorageError: no file has the source key.
        FileExistsInStorageError: the target key is taken, and ``overwrite`` is False.
        NotSupportedByStorageError: ``overwrite`` is False, and the server ignores such a condition.
    """

    async def copy(self, source: str, target: str, *, overwrite: bool = True) -> None:
        """Store a file under a second key, with its metadata. Copying it onto itself changes nothing."""
        ...

    async def move(self, source: str, target: str, *, overwrite: bool = True) -> None:
        """Give a file another key. One that is interrupted leaves the source, and perhaps the target too, whole."""
        ...


class StorageUrls(Protocol):
    """The addresses of files."""

    def url(self, key: str) -> str:
        """The address of a file, whether it exists or not; the CDN's if one is set. It grants no right to read it."""
        ...

    async def signed_url(
        self,
        key: str,
        *,
        method: SignedMethod = "GET",
        expires_in: timedelta,
        content_type: str | None = None,
        content_disposition: str | None = None,
        content_encoding: str | None = None,
        cache_control: str | None = None,
        size: int | None = None,
    ) -> SignedUrl:
        """Permission to read or to store one file for a while, whether it exists or not.

        Args:
            key: The file.
            method: GET to read it, PUT to store it in place of what may be there.
            expires_in: How long it works, one second to seven days. Clocks that differ by a minute do no harm.
            content_type: GET: the media type that the answer will have instead of the stored one. PUT: the media type
                that must be sent and will be stored.
            content_disposition: GET only: what browsers do with the answer, such as
                ``attachment; filename="page.html"``.
            content_encoding: GET only: how the stored bytes are encoded, whatever is stored beside them.
            cache_control: GET only: how the answer may be kept, whatever is stored beside it.
            size: PUT only: the exact number of bytes that may be sent. S3 and the local storage refuse others; on Azure
                nothing can be signed about it, so look at what was stored.

        Raises:
            InvalidStorageKeyError: the key breaks a rule.
            InvalidValueError: another value does.
            NotSupportedByStorageError: what the storage was opened with cannot sign this, such as a connection string
                with a shared access signature.
            StorageUnavailableError: the credentials that sign could not be fetched.
        """
        ...


class StorageAdministration(Protocol):
    """What the owner of a storage does with it, and its users do not."""

    async def create(self, *, allow_public: bool = False) -> Sequence[str]:
        """Make the folder, bucket or container, private; harmless when it is there.

        Returns what could not be learned or set, because the server does not know it or refuses to say: one line each.

        Raises:
            PublicStorageError: everybody can read or list it, and ``allow_public`` is False.
            StorageUnavailableError: it cannot be made; the message names the place, for operators.
            StoragePermissionError: the credentials do not allow it.
        """
        ...

    async def initialize(self) -> None:
        """Make the storage object ready for use; harmless when it is.

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
            StorageFullError: the storage is full.
        """
        ...

    async def remove_abandoned_uploads(self, *, older_than: timedelta) -> int:
        """Remove what uploads that were broken off left behind, invisible to everyone; returns how many.

        Args:
            older_than: Younger ones may still be going on, in this process or another.

        Azure keeps no list of them and discards them itself within a week; there the answer is 0.
        """
        ...

    async def statistics(self) -> StorageStatistics:
        """Count the files; takes as long as listing them all."""
        ...


class StorageBackend(Storage, StorageMoves, StorageUrls, StorageAdministration, Protocol):
    """All sides of a storage: what the composition root holds, and what an adapter implements."""
