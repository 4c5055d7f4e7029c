"""``ObjectStorage``: what S3 and Azure Blob Storage have in common."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from datetime import timedelta
from itertools import islice
from secrets import token_hex
from typing import Literal

import obstore
from obstore.store import ObjectStore

from data_layer.errors import (
    FileExistsInStorageError,
    FileNotFoundInStorageError,
    NotInitializedError,
    NotSupportedByStorageError,
    StorageMissingError,
    StoragePermissionError,
    StorageRefusedError,
    StorageUnavailableError,
)
from data_layer.observability.log import get_log
from data_layer.storage.arguments import (
    Condition,
    Description,
    check_age,
    check_handler,
    check_integer,
    check_keys,
    check_range,
    check_sha256,
)
from data_layer.storage.keys import split_key, split_prefix
from data_layer.storage.object_store import files
from data_layer.storage.object_store.failures import translated, translated_for_operators
from data_layer.storage.object_store.files import PART_SIZE, Upload
from data_layer.storage.object_store.listing import STAGING, Page, measure, remove_staging, walk
from data_layer.storage.port import (
    FileContent,
    FileInformation,
    ListedFile,
    OpenFile,
    StorageStatistics,
    UnusableKeyHandler,
    ignore_unusable_key,
)
from data_layer.storage.threads import FileThreads

_THREADS = 8
_DELETED_AT_ONCE = 256  # Azure takes no more in one request.
_PARALLEL_DELETIONS = 16

ConditionKind = Literal["create", "replace", "copy"]
"""To store only what is new, to replace one version, and to copy only to a free key: a server may keep only some."""

_logger = get_log(__name__)


class ObjectStorage(ABC):
    """Files in a bucket or container. Subclasses say where it is, how it is made, and what its addresses are."""

    backend: str
    one_request = PART_SIZE
    """Bytes in memory that are uploaded in one request."""

    def __init__(self, *, max_file_size: int) -> None:
        self._max_file_size = max_file_size
        self._opened: tuple[ObjectStore, FileThreads] | None = None
        self._probe_left: str | None = None

    @abstractmethod
    def connect(self, *, anonymously: bool = False) -> ObjectStore:
        """A client; nothing is sent yet. ``anonymously``: without credentials, as a stranger would come."""

    @abstractmethod
    async def _require_conditions(self, kind: ConditionKind) -> None:
        """Refuse conditions that the server would ignore."""

    @abstractmethod
    def pages(self, prefix: str) -> AsyncGenerator[Page]:
        """The objects whose keys begin with this, in the order of the keys' bytes, those included that no key names."""

    @abstractmethod
    def url(self, key: str) -> str:
        """The address of a file; see `StorageUrls.url`."""

    async def initialize(self) -> None:
        """Connect, and see that the bucket or container is there and may be listed.

        A server that cannot be reached does not make this fail: it may come back, and `check` reports it.

        Raises:
            StoragePermissionError: the credentials are refused.
            StorageMissingError: the bucket or container does not exist.
            StorageRefusedError: the server refuses it for another reason, such as the wrong region.
        """
        if self._opened is None:
            self._opened = self.connect(), FileThreads(_THREADS)
        try:
            with translated_for_operators("list its files"):
                async for _ in obstore.list(self._store, STAGING, chunk_size=1):
                    break
        except (StoragePermissionError, StorageMissingError, StorageRefusedError, NotSupportedByStorageError):
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
        # One that could not be removed is used again: a storage that removes nothing gets one and not thousands.
        key = self._probe_left or f"{STAGING}/probe-{token_hex(8)}"
        with translated_for_operators("write a file to prove that it can"):
            await obstore.put_async(self._store, key, key.encode())
            self._probe_left = key
            try:
                result = await obstore.get_async(self._store, key)
                if bytes(await result.bytes_async()) != key.encode():
                    raise StorageUnavailableError("the storage gave back other bytes than were written")
            finally:
                await self.remove_objects([key])
                self._probe_left = None

    async def statistics(self) -> StorageStatistics:
        """Count the files; takes as long as listing them all."""
        return await measure(self.pages(""))

    async def remove_abandoned_uploads(self, *, older_than: timedelta) -> int:
        """Remove what broken uploads left behind; see `StorageAdministration.remove_abandoned_uploads`."""
        check_age(older_than, field="older_than")
        return await remove_staging(self.pages(f"{STAGING}/"), self.remove_objects, older_than)

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
        """Store a file; see `Storage.upload`."""
        split_key(key)
        description = Description.checked(content_type, metadata, content_encoding, cache_control)
        condition = Condition(overwrite, if_match)
        store, threads = self._parts
        if not condition.is_none:
            await self._require_conditions("create" if condition.if_match is None else "replace")
        upload = Upload(
            store,
            key,
            description,
            condition,
            sha256=check_sha256(sha256),
            max_size=self._max_file_size if max_size is None else check_integer(max_size, field="max_size"),
            one_request=self.one_request,
            threads=threads,
        )
        await upload.run(content)
        _logger.debug("file_uploaded", key=key, size=upload.size, content_type=content_type)
        return self.url(key)

    async def download(self, key: str) -> bytes:
        """The whole file, in memory; see `Storage.download`."""
        split_key(key)
        return await files.download(self._store, key)

    @asynccontextmanager
    async def open(self, key: str, *, start: int = 0, end: int | None = None) -> AsyncIterator[OpenFile]:
        """Read a file in chunks; see `Storage.open`."""
        split_key(key)
        check_range(start, end)
        information, chunks = await files.open_file(self._store, key, start, end)
        async with aclosing(chunks):
            yield OpenFile(information, chunks)

    async def stat(self, key: str) -> FileInformation:
        """Everything that is known about a file; see `Storage.stat`."""
        split_key(key)
        return await files.stat(self._store, key)

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
        await self.remove_objects([key])

    async def delete_many(self, keys: Iterable[str]) -> None:
        """Remove files, many in one request; see `Storage.delete_many`."""
        rest = check_keys(keys)
        for key in rest:
            split_key(key)
        pending = iter(rest)
        while some := list(islice(pending, _DELETED_AT_ONCE)):
            await self.remove_objects(some)

    async def remove_objects(self, keys: Sequence[str], store: ObjectStore | None = None) -> None:
        """Remove objects under any keys, our own included, with this client or another one."""
        target = store or self._store
        try:
            with translated(keys[0], "delete"):
                await obstore.delete_async(target, list(keys))
        except FileNotFoundInStorageError:  # Azure stops at the first that is not there.
            if len(keys) > 1:
                await in_turns(lambda key: self.remove_objects([key], store), keys)

    def list(
        self, prefix: str = "", *, on_unusable_key: UnusableKeyHandler = ignore_unusable_key
    ) -> AsyncGenerator[ListedFile]:
        """The files whose keys begin with ``prefix``; see `Storage.list`."""
        split_prefix(prefix)
        check_handler(on_unusable_key, field="on_unusable_key")
        return walk(self.pages(prefix), prefix, on_unusable_key)

    async def copy(self, source: str, target: str, *, overwrite: bool = True) -> None:
        """Store a file under a second key; see `StorageMoves.copy`."""
        split_key(source)
        split_key(target)
        condition = Condition(overwrite)
        if source == target:
            await self.stat(source)
            if not overwrite:
                raise condition.failure(target)
            return
        if not overwrite:
            await self._require_conditions("copy")
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

    @property
    def _store(self) -> ObjectStore:
        return self._parts[0]

    @property
    def _parts(self) -> tuple[ObjectStore, FileThreads]:
        if self._opened is None:
            raise NotInitializedError("the storage is not open: await its initialize() first")
        return self._opened


async def in_turns(work: Callable[[str], Awaitable[None]], keys: Iterable[str]) -> None:
    """Do something with each key, with a few at a time."""
    turn = asyncio.Semaphore(_PARALLEL_DELETIONS)

    async def do(key: str) -> None:
        async with turn:
            await work(key)

    await asyncio.gather(*map(do, keys))
