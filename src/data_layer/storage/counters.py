"""Counting what a storage does: operations, bytes, errors and time, for statistics."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Coroutine,
    Iterator,
)
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any, BinaryIO, cast

from data_layer.errors import DataLayerError, FileNotFoundInStorageError
from data_layer.observability.metrics.counters import Durations
from data_layer.storage.port import (
    FileContent,
    HashedBytes,
    ListedFile,
    OpenFile,
    StorageBackend,
)

StorageObserver = Callable[[str, float, str | None], None]
"""Called after each operation with its name, seconds, and the code of an error."""

_LIMITS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)

OPERATIONS = (
    *("check", "copy", "delete", "delete_many", "download", "exists"),
    *("list", "move", "open", "signed_url", "stat", "upload"),
)
"""The names of everything that is counted."""


class OperationFigures:
    """One kind of operation since the process began: how long each took, and how often it failed, by error code."""

    def __init__(self) -> None:
        self.durations = Durations(_LIMITS)
        self.errors: Counter[str] = Counter()


class StorageCounters:
    """What one backend has done since the process began. Used by one event loop."""

    def __init__(self, backend: str) -> None:
        self.backend = backend
        self.bytes_in = 0
        self.bytes_out = 0
        self.observer: StorageObserver | None = None
        self.operations = {name: OperationFigures() for name in OPERATIONS}

    @contextmanager
    def measured(self, operation: str) -> Iterator[None]:
        """Count one operation; what is not there is an answer and no error."""
        started, code = time.perf_counter(), None
        figures = self.operations[operation]
        try:
            yield
        except FileNotFoundInStorageError:
            raise
        except DataLayerError as error:
            code = error.code
            figures.errors[code] += 1
            raise
        finally:
            seconds = time.perf_counter() - started
            if self.observer is not None:
                self.observer(operation, seconds, code)
            figures.durations.note(seconds)


def counted(storage: StorageBackend, counters: StorageCounters) -> StorageBackend:
    """The same storage, whose operations are counted."""
    return cast("StorageBackend", _CountedStorage(storage, counters))


class _CountedStorage:
    """Passes every call on to a storage, and counts those of ``OPERATIONS``.

    Only operations of which more than the time is counted, or that do not simply return, have a method here.
    """

    def __init__(self, storage: StorageBackend, counters: StorageCounters) -> None:
        self._storage = storage
        self._counters = counters

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._storage, name)
        if name in OPERATIONS:
            method = self._measured(name, method)
        setattr(self, name, method)
        return method

    async def upload(self, content: FileContent, *arguments: Any, **options: Any) -> str:
        with self._counters.measured("upload"):
            return await self._storage.upload(self._counting(content), *arguments, **options)

    async def download(self, key: str) -> bytes:
        with self._counters.measured("download"):
            content = await self._storage.download(key)
        self._counters.bytes_out += len(content)
        return content

    @asynccontextmanager
    async def open(self, *arguments: Any, **options: Any) -> AsyncIterator[OpenFile]:
        with self._counters.measured("open"):
            async with self._storage.open(*arguments, **options) as file:
                yield replace(file, chunks=self._read(file.chunks))

    async def list(self, *arguments: Any, **options: Any) -> AsyncGenerator[ListedFile]:
        with self._counters.measured("list"):
            async with aclosing(self._storage.list(*arguments, **options)) as files:
                async for file in files:
                    yield file

    def _measured(self, name: str, method: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Any]:
        @wraps(method)
        async def call(*arguments: Any, **options: Any) -> Any:
            with self._counters.measured(name):
                return await method(*arguments, **options)

        return call

    def _counting(self, content: FileContent) -> FileContent:
        if isinstance(content, bytes):
            self._counters.bytes_in += len(content)
            return content
        if isinstance(content, HashedBytes):
            self._counters.bytes_in += len(content.content)
            return content
        if isinstance(content, AsyncIterable):
            return self._taken(content)
        if isinstance(content, Path):
            self._counters.bytes_in += content.stat().st_size if content.is_file() else 0
            return content
        return cast("BinaryIO", _CountedFile(content, self._counters)) if hasattr(content, "read") else content

    async def _taken(self, chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
        async for chunk in chunks:
            self._counters.bytes_in += len(chunk)
            yield chunk

    async def _read(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for chunk in chunks:
            self._counters.bytes_out += len(chunk)
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
