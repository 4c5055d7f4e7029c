"""``LocalStorage``: the ``Storage`` port on a folder."""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from datetime import timedelta
from itertools import islice
from pathlib import Path

from data_layer.errors import (
    FileNotFoundInStorageError,
    InvalidStorageKeyError,
    NotInitializedError,
    StorageError,
    StorageFullError,
    StorageUnavailableError,
)
from data_layer.observability.log import get_log
from data_layer.storage.arguments import (
    Condition,
    Description,
    check_age,
    check_flag,
    check_handler,
    check_integer,
    check_keys,
    check_range,
    check_sha256,
)
from data_layer.storage.content import BATCH_SIZE, batches
from data_layer.storage.keys import is_key, split_key, split_prefix
from data_layer.storage.local.attributes import KeyLock, Sidecars
from data_layer.storage.local.files import AtomicFileWriter, Copy, Destination, Reader
from data_layer.storage.local.folder import TEMPORARY, StorageFolder, create_file, read_all, write_all
from data_layer.storage.local.listing import measure, walk
from data_layer.storage.port import (
    FileContent,
    FileInformation,
    HashedBytes,
    ListedFile,
    OpenFile,
    SignedMethod,
    SignedUrl,
    StorageStatistics,
    UnusableKeyHandler,
    ignore_unusable_key,
)
from data_layer.storage.signing.local import LocalUrlSigner
from data_layer.storage.signing.request import HeaderOverrides, SigningRequest
from data_layer.storage.threads import FileThreads

_THREADS = 32
_LISTED_AT_ONCE = 500
_MAX_TEMPORARY_AGE = 3600.0  # Younger ones may be another process's work.
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NOT_NAMEABLE = frozenset({errno.ENAMETOOLONG, errno.EILSEQ})
_NOT_THERE = frozenset({errno.ENOENT, errno.ENOTDIR}) | _NOT_NAMEABLE
_IN_THE_WAY = frozenset({errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY, errno.EEXIST})

_logger = get_log(__name__)


class LocalStorage:
    """Files in a folder on a local disk, or on one that several machines share.

    A file is written to a temporary name, synced, renamed, and its folder synced: when ``upload`` returns, the file
    outlives a power failure. All file operations run in threads of their own. `data_layer.storage.local` says what
    is on the disk. Runs on Linux and macOS.

    One thing is narrower than on an object store: a key cannot continue another one. Where ``a`` is a file, ``a/b``
    is refused with `InvalidStorageKeyError`, and the other way round.
    """

    def __init__(self, folder: Path, *, max_file_size: int, signer: LocalUrlSigner | None = None) -> None:
        """Nothing is touched before ``initialize``.

        Args:
            folder: Where the files are; LOCAL_STORAGE_PATH.
            max_file_size: Bytes that one file may have; MAX_FILE_SIZE.
            signer: Makes addresses; by default with a secret that nobody else knows, so that nobody else verifies them.
        """
        self._folder = StorageFolder(folder.absolute())
        self._max_file_size = max_file_size
        self._signer = signer or LocalUrlSigner([secrets.token_hex(32)])
        self._open_threads: FileThreads | None = None

    async def initialize(self) -> None:
        """Make the folder if it is missing, for the owner only, and remove what killed uploads left behind.

        Raises:
            StorageUnavailableError: the folder cannot be made or used; the message names it.
            StorageFullError: there is no room for it.
        """
        threads = self._open_threads or FileThreads(_THREADS)
        try:
            with _translated_for_operators(f"make the folder {str(self._folder.root)!r}"):
                await threads.run(self._folder.create)
                removed = await threads.run(self._folder.remove_old_temporary_files, _MAX_TEMPORARY_AGE)
        except BaseException:
            await threads.close()
            self._folder.close()
            raise
        self._open_threads = threads
        _logger.info("storage_initialized", backend="local", temporary_files_removed=removed)

    async def close(self) -> None:
        """Wait for the file operations that are running; what comes later is refused."""
        threads, self._open_threads = self._open_threads, None
        if threads is not None:
            await threads.close()
            self._folder.close()

    async def create(self, *, allow_public: bool = False) -> Sequence[str]:
        """Make the folder; see `StorageAdministration.create`. What is stored in it only its owner can read."""
        check_flag(allow_public, field="allow_public")
        with _translated_for_operators(f"make the folder {str(self._folder.root)!r}"):
            await asyncio.to_thread(self._folder.create)
        return ()

    async def remove_abandoned_uploads(self, *, older_than: timedelta) -> int:
        """Remove the temporary files of uploads that were broken off."""
        check_age(older_than, field="older_than")
        with _translated_for_operators("remove what broken uploads left behind"):
            return await self._threads.run(self._folder.remove_old_temporary_files, older_than.total_seconds())

    async def check(self) -> None:
        """Write a tiny file, read it back and remove it."""
        with _translated_for_operators("write a file to prove that it can"):
            await self._threads.run(_probe, self._folder)

    async def statistics(self) -> StorageStatistics:
        """Count the files; takes as long as listing them all."""
        with _translated_for_operators("count its files"):
            return await self._threads.run(measure, self._folder)

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
        """Store a file durably; see `Storage.upload`."""
        destination = Destination(
            key,
            split_key(key),
            Description.checked(content_type, metadata, content_encoding, cache_control),
            check_sha256(sha256),
            Condition(overwrite, if_match),
        )
        writer = AtomicFileWriter(
            self._folder,
            destination,
            self._max_file_size if max_size is None else check_integer(max_size, field="max_size"),
        )
        if isinstance(content, bytes | HashedBytes):
            with _translated_for_writing(key):
                await self._threads.run_until_cancelled(writer.abandon, writer.store, content)
        else:
            await self._store_stream(writer, content, key)
        _logger.debug("file_uploaded", key=key, size=writer.size, content_type=content_type)
        return self._signer.url(key)

    async def download(self, key: str) -> bytes:
        """The whole file, in memory; see `Storage.download`."""
        reader = Reader(self._folder, key, split_key(key))
        with _translated_for_reading(key):
            return await self._threads.run(reader.content)

    @asynccontextmanager
    async def open(self, key: str, *, start: int = 0, end: int | None = None) -> AsyncIterator[OpenFile]:
        """Read a file in chunks; see `Storage.open`."""
        check_range(start, end)
        reader = Reader(self._folder, key, split_key(key))
        try:
            with _translated_for_reading(key):
                information = await self._threads.run(reader.open)
            limit = information.size if end is None else min(end, information.size)
            yield OpenFile(information, self._chunks(reader, key, start, limit))
        finally:
            reader.close()

    async def stat(self, key: str) -> FileInformation:
        """Everything that is known about a file; see `Storage.stat`."""
        reader = Reader(self._folder, key, split_key(key))
        with _translated_for_reading(key):
            return await self._threads.run(reader.information)

    async def exists(self, key: str) -> bool:
        """Whether a file has this key."""
        segments = split_key(key)
        with _translated_for_reading(key):
            return await self._threads.run(self._folder.status, segments) is not None

    async def delete(self, key: str) -> None:
        """Remove a file, its metadata, and the folders that it leaves empty; see `Storage.delete`."""
        segments = split_key(key)
        with _translated_for_writing(key):
            existed = await self._threads.run(_delete, self._folder, key, segments)
        if existed:
            _logger.debug("file_deleted", key=key)

    async def delete_many(self, keys: Iterable[str]) -> None:
        """Remove files, one after the other; see `Storage.delete_many`."""
        rest = check_keys(keys)
        for key in rest:
            split_key(key)
        for key in rest:
            await self.delete(key)

    async def copy(self, source: str, target: str, *, overwrite: bool = True) -> None:
        """Store a file under a second key; see `StorageMoves.copy`."""
        job = Copy(self._folder, (source, split_key(source)), (target, split_key(target)), Condition(overwrite))
        with _translated_for_writing(target), _translated_for_reading(source):
            await self._threads.run_until_cancelled(job.abandon, job.copy)

    async def move(self, source: str, target: str, *, overwrite: bool = True) -> None:
        """Give a file another key, without touching its bytes where it can be done; see `StorageMoves.move`."""
        job = Copy(self._folder, (source, split_key(source)), (target, split_key(target)), Condition(overwrite))
        with _translated_for_writing(target), _translated_for_reading(source):
            if await self._threads.run_until_cancelled(job.abandon, job.move):
                await self._threads.run(_delete, self._folder, source, split_key(source))

    async def list(
        self, prefix: str = "", *, on_unusable_key: UnusableKeyHandler = ignore_unusable_key
    ) -> AsyncGenerator[ListedFile]:
        """The files whose keys begin with ``prefix``; see `Storage.list`."""
        check_handler(on_unusable_key, field="on_unusable_key")
        files = walk(self._folder, *split_prefix(prefix))
        try:
            with _translated_for_operators(f"list {prefix!r}"):
                while some := await self._threads.run(_take, files):
                    for file in some:
                        if is_key(file.key):
                            yield file
                        else:
                            on_unusable_key(file)
        finally:
            files.close()

    def url(self, key: str) -> str:
        """The address under which the service serves a file; see `StorageUrls.url`."""
        split_key(key)
        return self._signer.url(key)

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
        """Permission to read or store one file through the service; see `StorageUrls.signed_url`."""
        request = SigningRequest.checked(
            key,
            method,
            expires_in,
            HeaderOverrides(content_type, content_disposition, content_encoding, cache_control),
            size,
        )
        return self._signer.sign(request)

    @property
    def _threads(self) -> FileThreads:
        if self._open_threads is None:
            raise NotInitializedError("the storage is not open: await its initialize() first")
        return self._open_threads

    async def _store_stream(self, writer: AtomicFileWriter, content: FileContent, key: str) -> None:
        threads = self._threads
        try:
            with _translated_for_writing(key):
                await threads.run(writer.open)
            async with aclosing(batches(content, threads)) as source:
                async for batch in source:
                    with _translated_for_writing(key):
                        await threads.run(writer.write, batch)
                    batch.clear()
            with _translated_for_writing(key):
                await threads.run_until_cancelled(writer.abandon, writer.commit)
        finally:
            try:
                await threads.run(writer.discard)
            except NotInitializedError:  # Closed meanwhile: there are no threads left to do it.
                writer.discard()

    async def _chunks(self, reader: Reader, key: str, start: int, end: int) -> AsyncIterator[bytes]:
        for position in range(start, end, BATCH_SIZE):
            with _translated_for_reading(key):
                chunk = await self._threads.run(reader.read, position, min(BATCH_SIZE, end - position))
            yield chunk


def _delete(folder: StorageFolder, key: str, segments: tuple[str, ...]) -> bool:
    if folder.status(segments) is None:
        existed = False
    else:
        with KeyLock(folder, key, shared=True):
            existed = _unlink(folder, segments)
    Sidecars(folder).remove(key, segments)
    if existed:
        folder.remove_empty_folders(segments[:-1])
    return existed


def _unlink(folder: StorageFolder, segments: tuple[str, ...]) -> bool:
    try:
        with folder.opened(segments[:-1]) as inner:
            os.unlink(segments[-1], dir_fd=inner)
            os.fsync(inner)
    except (FileNotFoundError, NotADirectoryError):  # Another task deleted it first.
        return False
    return True


def _take(files: Iterator[ListedFile]) -> tuple[ListedFile, ...]:
    return tuple(islice(files, _LISTED_AT_ONCE))


def _probe(folder: StorageFolder) -> None:
    name = f"probe-{secrets.token_hex(8)}"
    with folder.own(TEMPORARY) as temporary:
        descriptor = create_file(temporary, name)
        try:
            write_all(descriptor, name.encode())
            os.fsync(descriptor)
            if read_all(descriptor, 0, len(name)) != name.encode():
                raise StorageUnavailableError("the storage gave back other bytes than were written; check its disk")
        finally:
            os.close(descriptor)
            os.unlink(name, dir_fd=temporary)


@contextmanager
def _translated_for_reading(key: str) -> Iterator[None]:
    """Turn errors of the operating system into errors of the storage, while a file is read."""
    try:
        yield
    except OSError as error:
        if error.errno in _NOT_THERE:
            raise FileNotFoundInStorageError(f"no file is stored under {key!r}") from error
        raise _unavailable_or_full(error, f"read {key!r}") from error


@contextmanager
def _translated_for_writing(key: str) -> Iterator[None]:
    """Turn errors of the operating system into errors of the storage, while a file is written or removed."""
    try:
        yield
    except OSError as error:
        if error.errno in _IN_THE_WAY:
            raise InvalidStorageKeyError(
                f"the storage key {key!r} cannot be used: it, or a part of it, is the name of something else in the "
                "storage folder (a folder of other files, a file, or a symbolic link, which is never followed)"
            ) from error
        if error.errno in _NOT_NAMEABLE:
            raise InvalidStorageKeyError(
                f"the storage key {key!r} cannot be used: the disk does not take such a name ({error.strerror})"
            ) from error
        raise _unavailable_or_full(error, f"write {key!r}") from error


@contextmanager
def _translated_for_operators(action: str) -> Iterator[None]:
    """Turn errors of the operating system into errors of the storage, while it is looked after."""
    try:
        yield
    except OSError as error:
        raise _unavailable_or_full(error, action) from error


def _unavailable_or_full(error: OSError, action: str) -> StorageError:
    if error.errno in _NO_ROOM:
        return StorageFullError(
            f"there is no room to {action} ({error.strerror}): free some space, or raise the quota or the limit "
            "on file sizes"
        )
    return StorageUnavailableError(
        f"the storage could not {action} ({error.strerror}): see that the folder LOCAL_STORAGE_PATH exists, belongs "
        "to the user that runs this, and can be written to"
    )
