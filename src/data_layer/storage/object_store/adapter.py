"""``ObjectStorage``: what S3 and Azure Blob Storage have in common."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from contextlib import asynccontextmanager, suppress
from itertools import islice
from secrets import token_hex
from typing import TYPE_CHECKING

import obstore

from data_layer.errors import (
    FileExistsInStorageError,
    FileNotFoundInStorageError,
    InvalidValueError,
    NotInitializedError,
    StorageMissingError,
    StoragePermissionError,
    StorageUnavailableError,
)
from data_layer.observability.log import get_log
from data_layer.storage.conditions import Condition
from data_layer.storage.keys import split_key, split_prefix
from data_layer.storage.metadata import Description, check_sha256
from data_layer.storage.object_store import reading
from data_layer.storage.object_store.failures import translated, translated_for_operators
from data_layer.storage.object_store.listing import STAGING, measure, remove_staging, walk
from data_layer.storage.object_store.uploads import PART_SIZE, Upload
from data_layer.storage.threads import FileThreads

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
    from datetime import timedelta

    from obstore.store import ObjectStore

    from data_layer.storage.port import FileContent, FileInformation, ListedFile, OpenFile, StorageStatistics

_THREADS = 8
_DELETED_AT_ONCE = 256  # Azure takes no more in one request.
_PARALLEL_DELETIONS = 16

_logger = get_log(__name__)


class ObjectStorage(ABC):
    """Files in a bucket or container. Subclasses say where it is, how it is made, and what its addresses are."""

    backend: str
    one_request = PART_SIZE
    """Bytes in memory that are uploaded in one request."""

    def __init__(self, *, max_file_size: int) -> None:
        self._max_file_size = max_file_size
        self._opened: tuple[ObjectStore, FileThreads] | None = None

    @abstractmethod
    def connect(self, *, anonymously: bool = False) -> ObjectStore:
        """A client; nothing is sent yet. ``anonymously``: without credentials, as a stranger would come."""

    @abstractmethod
    async def _require_conditions(self, *, of_copies: bool = False) -> None:
        """Refuse conditions that the server would ignore."""

    @abstractmethod
    def url(self, key: str) -> str:
        """The address of a file; see `StorageUrls.url`."""

    async def initialize(self) -> None:
        """Connect, and see that the bucket or container is there and may be listed.

        A server that cannot be reached is no reason to fail: it may come back, and `check` tells.

        Raises:
            StoragePermissionError: the credentials are refused.
            StorageMissingError: the bucket or container does not exist.
        """
        if self._opened is None:
            self._opened = self.connect(), FileThreads(_THREADS)
        try:
            with translated_for_operators("list its files"):
                async for _ in obstore.list(self._store, STAGING, chunk_size=1):
                    break
        except (StoragePermissionError, StorageMissingError):
            await self.close()
            raise
        except StorageUnavailableError as error:
            _logger.warning("storage_unavailable", backend=self.backend, reason=str(error))
        _logger.info("storage_initialized", backend=self.backend)

    async def close(self) -> None:
        """Let go of the connections; requests that are under way go on to their end."""
        opened, self._opened = self._opened, None
        if opened is not None:
            await opened[1].close()

    async def check(self) -> None:
        """Write a tiny file, read it back and remove it."""
        key = f"{STAGING}/probe-{token_hex(8)}"
        with translated_for_operators("write a file to prove that it can"):
            await obstore.put_async(self._store, key, key.encode())
            result = await obstore.get_async(self._store, key)
            if bytes(await result.bytes_async()) != key.encode():
                raise StorageUnavailableError("The storage gave back other bytes than were written")
            await obstore.delete_async(self._store, key)

    async def statistics(self) -> StorageStatistics:
        """Count the files; takes as long as listing them all."""
        return await measure(self._store)

    async def remove_abandoned_uploads(self, *, older_than: timedelta) -> int:
        """Remove what broken uploads left behind; see `StorageAdministration.remove_abandoned_uploads`."""
        return await remove_staging(self._store, older_than)

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
    ) -> str:
        """Store a file; see `Storage.upload`."""
        split_key(key)
        description = Description.checked(content_type, metadata, content_encoding, cache_control)
        condition = Condition(overwrite, if_match)
        store, threads = self._parts
        if not condition.is_none:
            await self._require_conditions()
        upload = Upload(
            store,
            key,
            description,
            condition,
            sha256=check_sha256(sha256),
            max_size=self._max_file_size,
            one_request=self.one_request,
            threads=threads,
        )
        await upload.run(content)
        _logger.debug("file_uploaded", key=key, size=upload.size, content_type=content_type)
        return self.url(key)

    async def download(self, key: str) -> bytes:
        """The whole file, in memory; see `Storage.download`."""
        split_key(key)
        return await reading.download(self._store, key)

    @asynccontextmanager
    async def open(self, key: str, *, start: int = 0, end: int | None = None) -> AsyncIterator[OpenFile]:
        """Read a file in chunks; see `Storage.open`."""
        split_key(key)
        if start < 0 or (end is not None and end < 0):
            raise InvalidValueError(f"A range of bytes cannot be negative, like {start} to {end}", field="range")
        yield await reading.open_file(self._store, key, start, end)

    async def stat(self, key: str) -> FileInformation:
        """Everything that is known about a file; see `Storage.stat`."""
        split_key(key)
        return await reading.stat(self._store, key)

    async def exists(self, key: str) -> bool:
        """Whether a file has this key."""
        split_key(key)
        try:
            with translated(key, "look for"):
                await obstore.head_async(self._store, key)
        except FileNotFoundInStorageError:
            return False
        return True

    async def delete(self, key: str) -> None:
        """Remove a file; see `Storage.delete`."""
        split_key(key)
        with suppress(FileNotFoundInStorageError), translated(key, "delete"):
            await obstore.delete_async(self._store, key)

    async def delete_many(self, keys: Iterable[str]) -> None:
        """Remove files, many in one request; see `Storage.delete_many`."""
        rest = list(keys)
        for key in rest:
            split_key(key)
        pending = iter(rest)
        while some := list(islice(pending, _DELETED_AT_ONCE)):
            try:
                with translated(some[0], "delete many files, among them"):
                    await obstore.delete_async(self._store, some)
            except FileNotFoundInStorageError:  # Azure stops at the first that is not there.
                await self._delete_each(some)

    def list(self, prefix: str = "") -> AsyncGenerator[ListedFile]:
        """The files whose keys begin with ``prefix``; see `Storage.list`."""
        return walk(self._store, *split_prefix(prefix))

    async def copy(self, source: str, target: str, *, overwrite: bool = True) -> None:
        """Store a file under a second key; see `StorageMoves.copy`."""
        split_key(source)
        split_key(target)
        if source == target:
            await self.stat(source)
            if not overwrite:
                raise Condition(overwrite=False).failure(target)
            return
        if not overwrite:
            await self._require_conditions(of_copies=True)
        condition = Condition(overwrite)
        try:
            with translated(source, f"copy to {target!r} the file", condition):
                await obstore.copy_async(self._store, source, target, overwrite=overwrite)
        except FileExistsInStorageError:
            raise condition.failure(target) from None

    async def move(self, source: str, target: str, *, overwrite: bool = True) -> None:
        """Give a file another key; see `StorageMoves.move`."""
        await self.copy(source, target, overwrite=overwrite)
        if source != target:
            await self.delete(source)

    async def _delete_each(self, keys: Iterable[str]) -> None:
        turn = asyncio.Semaphore(_PARALLEL_DELETIONS)

        async def delete(key: str) -> None:
            async with turn:
                await self.delete(key)

        await asyncio.gather(*map(delete, keys))

    @property
    def _store(self) -> ObjectStore:
        return self._parts[0]

    @property
    def _parts(self) -> tuple[ObjectStore, FileThreads]:
        if self._opened is None:
            raise NotInitializedError("The storage is not open: await its initialize() first")
        return self._opened
