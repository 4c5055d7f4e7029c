"""Counting what a storage does: operations, bytes, errors and time, for whoever shows them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import BinaryIO, cast

from data_layer.errors import DataLayerError, FileNotFoundInStorageError
from data_layer.storage.port import (
    FileContent,
    FileInformation,
    ListedFile,
    OpenFile,
    SignedMethod,
    SignedUrl,
    StorageBackend,
    StorageStatistics,
    UnusableKeyHandler,
    ignore_unusable_key,
)

StorageObserver = Callable[[str, float, str | None], None]

"""Told of each operation that has ended: its name, seconds, and the code of an error."""

BUCKETS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, float("inf"))
"""Upper limits of the classes of durations, in seconds."""

OPERATIONS = (
    *("check", "copy", "delete", "delete_many", "download", "exists"),
    *("list", "move", "open", "signed_url", "stat", "upload"),
)
"""The names of everything that is counted."""


@dataclass(frozen=True, slots=True)
class OperationFigures:
    """One kind of operation since the process began.

    Attributes:
        count: How often it was tried.
        seconds: How long all of them took together.
        buckets: How many took at most as long as each of ``BUCKETS``.
        errors: How often it failed, by error code.
    """

    count: int
    seconds: float
    buckets: tuple[int, ...]
    errors: dict[str, int]


class StorageCounters:
    """What one backend has done since the process began. Used by one event loop."""

    def __init__(self, backend: str) -> None:
        self.backend = backend
        self.bytes_in = 0
        self.bytes_out = 0
        self.observer: StorageObserver | None = None
        self._counts: Counter[str] = Counter()
        self._seconds: Counter[str] = Counter()
        self._buckets: Counter[tuple[str, float]] = Counter()
        self._errors: Counter[tuple[str, str]] = Counter()

    @contextmanager
    def measured(self, operation: str) -> Iterator[None]:
        """Count one operation; what is not there is an answer and no error."""
        started, code = time.perf_counter(), None
        try:
            yield
        except FileNotFoundInStorageError:
            raise
        except DataLayerError as error:
            code = error.code
            self._errors[operation, code] += 1
            raise
        finally:
            seconds = time.perf_counter() - started
            if self.observer is not None:
                self.observer(operation, seconds, code)
            self._counts[operation] += 1
            self._seconds[operation] += seconds  # type: ignore[assignment]  # A Counter adds floats as well.
            self._buckets[operation, next(limit for limit in BUCKETS if seconds <= limit)] += 1

    def figures(self) -> dict[str, OperationFigures]:
        """All operations that were tried, by name."""
        return {name: self._figures(name) for name in sorted(self._counts)}

    def figures_of(self, operation: str) -> OperationFigures:
        """One of ``OPERATIONS``, which may not have been tried yet."""
        return self._figures(operation)

    def _figures(self, operation: str) -> OperationFigures:
        below, sums = 0, []
        for limit in BUCKETS:
            below += self._buckets[operation, limit]
            sums.append(below)
        errors = {code: count for (name, code), count in self._errors.items() if name == operation}
        return OperationFigures(self._counts[operation], float(self._seconds[operation]), tuple(sums), errors)


class CountedStorage:
    """A storage whose operations are counted; see `StorageBackend` for what they do."""

    def __init__(self, storage: StorageBackend, counters: StorageCounters) -> None:
        self._storage = storage
        self.counters = counters

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
        """Counted, with its bytes."""
        with self.counters.measured("upload"):
            return await self._storage.upload(
                self._counting(content),
                key,
                content_type,
                metadata=metadata,
                content_encoding=content_encoding,
                cache_control=cache_control,
                sha256=sha256,
                overwrite=overwrite,
                if_match=if_match,
            )

    async def download(self, key: str) -> bytes:
        """Counted, with its bytes."""
        with self.counters.measured("download"):
            content = await self._storage.download(key)
        self.counters.bytes_out += len(content)
        return content

    @asynccontextmanager
    async def open(self, key: str, *, start: int = 0, end: int | None = None) -> AsyncIterator[OpenFile]:
        """Counted until it is closed, with the bytes that were read."""
        with self.counters.measured("open"):
            async with self._storage.open(key, start=start, end=end) as file:
                yield replace(file, chunks=self._read(file.chunks))

    async def stat(self, key: str) -> FileInformation:
        """Counted."""
        with self.counters.measured("stat"):
            return await self._storage.stat(key)

    async def exists(self, key: str) -> bool:
        """Counted."""
        with self.counters.measured("exists"):
            return await self._storage.exists(key)

    async def delete(self, key: str) -> None:
        """Counted."""
        with self.counters.measured("delete"):
            await self._storage.delete(key)

    async def delete_many(self, keys: Iterable[str]) -> None:
        """Counted once, however many there are."""
        with self.counters.measured("delete_many"):
            await self._storage.delete_many(keys)

    async def list(
        self, prefix: str = "", *, on_unusable_key: UnusableKeyHandler = ignore_unusable_key
    ) -> AsyncGenerator[ListedFile]:
        """Counted once it has ended."""
        with self.counters.measured("list"):
            async for file in self._storage.list(prefix, on_unusable_key=on_unusable_key):
                yield file

    async def copy(self, source: str, target: str, *, overwrite: bool = True) -> None:
        """Counted."""
        with self.counters.measured("copy"):
            await self._storage.copy(source, target, overwrite=overwrite)

    async def move(self, source: str, target: str, *, overwrite: bool = True) -> None:
        """Counted."""
        with self.counters.measured("move"):
            await self._storage.move(source, target, overwrite=overwrite)

    def url(self, key: str) -> str:
        """Not counted: it asks nobody."""
        return self._storage.url(key)

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
        """Counted: it may have to fetch credentials."""
        with self.counters.measured("signed_url"):
            return await self._storage.signed_url(
                key,
                method=method,
                expires_in=expires_in,
                content_type=content_type,
                content_disposition=content_disposition,
                content_encoding=content_encoding,
                cache_control=cache_control,
                size=size,
            )

    async def create(self, *, allow_public: bool = False) -> Sequence[str]:
        """Not counted, like everything that only operators do."""
        return await self._storage.create(allow_public=allow_public)

    async def initialize(self) -> None:
        """Not counted."""
        await self._storage.initialize()

    async def close(self) -> None:
        """Not counted."""
        await self._storage.close()

    async def check(self) -> None:
        """Counted: it is a write."""
        with self.counters.measured("check"):
            await self._storage.check()

    async def remove_abandoned_uploads(self, *, older_than: timedelta) -> int:
        """Not counted."""
        return await self._storage.remove_abandoned_uploads(older_than=older_than)

    async def statistics(self) -> StorageStatistics:
        """Not counted: it is a listing of everything."""
        return await self._storage.statistics()

    def _counting(self, content: FileContent) -> FileContent:
        if isinstance(content, bytes):
            self.counters.bytes_in += len(content)
            return content
        if isinstance(content, AsyncIterable):
            return self._taken(content)
        if isinstance(content, Path):
            self.counters.bytes_in += content.stat().st_size if content.is_file() else 0
            return content
        return cast("BinaryIO", _CountedFile(content, self.counters)) if hasattr(content, "read") else content

    async def _taken(self, chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
        async for chunk in chunks:
            self.counters.bytes_in += len(chunk)
            yield chunk

    async def _read(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for chunk in chunks:
            self.counters.bytes_out += len(chunk)
            yield chunk


class _CountedFile:
    """A file whose bytes are counted when they are read."""

    def __init__(self, file: BinaryIO, counters: StorageCounters) -> None:
        self._file = file
        self._counters = counters

    def read(self, size: int = -1) -> bytes:
        content = self._file.read(size)
        self._counters.bytes_in += len(content)
        return content
