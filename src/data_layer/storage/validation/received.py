"""Taking in what is uploaded: counted and hashed on arrival, in memory while it is small, else in a nameless file."""

from __future__ import annotations

import hashlib
import tempfile
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, BinaryIO, cast

from data_layer.errors import FileTooLargeError
from data_layer.storage.content import BATCH_SIZE, batches

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from data_layer.storage.port import FileContent
    from data_layer.storage.threads import FileThreads

IN_MEMORY = 8 * 1024 * 1024
"""Bytes up to which a file is held in memory."""


class ReceivedFile:
    """The bytes of one file that has arrived, and their SHA-256. It is read by one thread at a time."""

    def __init__(self, content: bytes | BinaryIO, size: int, sha256: str) -> None:
        self._content = content
        self.size = size
        self.sha256 = sha256

    @classmethod
    def of_bytes(cls, content: bytes) -> ReceivedFile:
        """What was in memory anyway."""
        return cls(content, len(content), hashlib.sha256(content).hexdigest())

    def read(self) -> bytes:
        """Everything."""
        if isinstance(self._content, bytes):
            return self._content
        return self.read_part(0, self.size)

    def read_part(self, start: int, size: int) -> bytes:
        """At most ``size`` bytes from ``start``."""
        if isinstance(self._content, bytes):
            return self._content[start : start + size]
        self._content.seek(start)
        return self._content.read(size)

    def to_upload(self) -> bytes | BinaryIO:
        """The content in a form that storages take."""
        if not isinstance(self._content, bytes):
            self._content.seek(0)
        return self._content


@asynccontextmanager
async def receive(content: FileContent, max_size: int, threads: FileThreads) -> AsyncIterator[ReceivedFile]:
    """Read everything that arrives; what does not fit into memory waits in a file without a name, gone at the end.

    Raises:
        FileTooLargeError: there is more than ``max_size`` bytes; reading stops there.
        InvalidValueError: the content is of none of the types that can be uploaded.
    """
    if isinstance(content, bytes):
        _check_size(len(content), max_size)
        yield await threads.run(ReceivedFile.of_bytes, content)
        return
    with tempfile.SpooledTemporaryFile(IN_MEMORY, prefix="data-layer-") as file:
        digest, size = hashlib.sha256(), 0

        def take(chunks: list[bytes]) -> None:
            for chunk in chunks:
                digest.update(chunk)
                file.write(chunk)

        async with aclosing(batches(content, threads)) as source:
            async for batch in source:
                size += sum(map(len, batch))
                _check_size(size, max_size)
                await threads.run(take, batch)
        small = size <= BATCH_SIZE
        file.seek(0)
        yield ReceivedFile(file.read() if small else cast("BinaryIO", file), size, digest.hexdigest())


def _check_size(size: int, max_size: int) -> None:
    if size > max_size:
        raise FileTooLargeError(f"The file is larger than {max_size} bytes (MAX_FILE_SIZE)")
