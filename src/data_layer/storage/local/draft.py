"""A file on its way into the storage."""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace

from data_layer.errors import ContentMismatchError, FileTooLargeError, StorageUnavailableError
from data_layer.storage.conditions import Condition
from data_layer.storage.local.attributes import Attributes, Sidecars, attach, locked
from data_layer.storage.local.folder import TEMPORARY, StorageFolder, create_file, start_writeback, write_all
from data_layer.storage.local.reader import Reader
from data_layer.storage.metadata import Description
from data_layer.storage.port import HashedBytes

_ATTEMPTS = 100


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a draft will be published, as what, and on which condition.

    Attributes:
        key: The key.
        segments: The same, split.
        description: What is stored beside it.
        sha256: What its content must have; None: anything.
        condition: What must be in place.
    """

    key: str
    segments: tuple[str, ...]
    description: Description
    sha256: str | None = None
    condition: Condition = field(default_factory=Condition)


class Draft:
    """A file being written: invisible until ``commit``, gone after ``discard``, used by one thread at a time.

    Durable in this order: the bytes and attributes reach the disk, then the name does.
    """

    def __init__(self, folder: StorageFolder, destination: Destination, max_size: int) -> None:
        self._folder = folder
        self._destination = destination
        self._max_size = max_size
        self._name = secrets.token_hex(16)
        self._size = 0
        self._hash = hashlib.sha256()
        self._known_hash: str | None = None
        self._resources = ExitStack()
        self._abandoned = False
        self._published = False

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return self._size

    def store(self, content: bytes | HashedBytes) -> None:
        """Write, publish and let go of a file that is at hand as a whole."""
        try:
            self.open()
            if isinstance(content, HashedBytes):
                self._known_hash = content.sha256
                self._append(content.content)
            else:
                self.write([content])
            self.commit()
        finally:
            self.discard()

    def open(self) -> None:
        """Create the temporary file."""
        self._temporary_folder = self._resources.enter_context(self._folder.own(TEMPORARY))
        self._descriptor = create_file(self._temporary_folder, self._name)
        self._resources.callback(os.close, self._descriptor)
        self._resources.callback(self._remove_temporary_file)

    def write(self, chunks: Iterable[bytes]) -> None:
        """Append to the file.

        Raises:
            FileTooLargeError: it would be larger than a file may be.
        """
        for chunk in chunks:
            self._append(chunk)
            start_writeback(self._descriptor, self._size - len(chunk), len(chunk))
            self._hash.update(chunk)

    def _append(self, chunk: bytes) -> None:
        self._size += len(chunk)
        if self._size > self._max_size:
            raise FileTooLargeError(
                f"The file for {self._destination.key!r} is larger than {self._max_size} bytes (MAX_FILE_SIZE)"
            )
        write_all(self._descriptor, chunk)

    @property
    def _sha256(self) -> str:
        return self._known_hash or self._hash.hexdigest()

    def commit(self) -> None:
        """Put the file in its place, durably, unless it was abandoned meanwhile.

        Raises:
            ContentMismatchError: the content is another than was announced.
            FileExistsInStorageError: its condition does not hold.
            FileChangedInStorageError: the same.
        """
        if self._destination.sha256 not in {None, self._sha256}:
            raise ContentMismatchError(
                f"The content for {self._destination.key!r} has another SHA-256 than it should have"
            )
        attributes = self._attributes(stamp(self._descriptor))
        if not attach(self._descriptor, attributes):
            self._commit_with_sidecar(attributes)
            return
        os.fsync(self._descriptor)
        # A writer with a condition must be alone from looking to publishing; the others need not wait for each other.
        with locked(self._folder, self._destination.key, shared=self._destination.condition.is_none):
            self._require_condition()
            self._publish()

    def abandon(self) -> None:
        """Forbid publishing from now on; may be called from another thread."""
        self._abandoned = True

    def discard(self) -> None:
        """Let go of everything; an unpublished file disappears."""
        self._resources.close()

    def _commit_with_sidecar(self, attributes: Attributes) -> None:
        key, segments = self._destination.key, self._destination.segments
        sidecars = Sidecars(self._folder)
        with locked(self._folder, key):
            self._require_condition()
            current = self._folder.status(segments)
            kept = [version for version in sidecars.read(key) if current and version.describes(current)]
            if current:
                attributes = replace(attributes, modified=stamp(self._descriptor, after=current.st_mtime_ns))
            os.fsync(self._descriptor)
            sidecars.write(key, [*kept, attributes])
            self._publish()

    def _attributes(self, modified: int) -> Attributes:
        described = self._destination.description
        return Attributes(
            self._size,
            modified,
            self._sha256,
            described.content_type,
            described.metadata,
            described.content_encoding,
            described.cache_control,
        )

    def _require_condition(self) -> None:
        target = self._destination
        if target.condition.is_none:
            return
        if target.condition.if_match is None:
            holds = self._folder.status(target.segments) is None
        else:
            try:
                current = Reader(self._folder, target.key, target.segments).information().etag
            except (FileNotFoundError, NotADirectoryError):
                holds = False
            else:
                holds = current == target.condition.if_match
        if not holds:
            raise target.condition.failure(target.key)

    def _publish(self) -> None:
        for _ in range(_ATTEMPTS):
            # A folder that is still empty may be removed by a concurrent delete before this file is in it.
            with suppress(FileNotFoundError):
                self._move_into_place()
                return
        raise StorageUnavailableError(
            f"The file for {self._destination.key!r} could not be put in its place: its folder or its temporary file "
            "was removed again and again by something else"
        )

    def _move_into_place(self) -> None:
        *folders, name = self._destination.segments
        with self._folder.opened(folders, create=True) as folder:
            if self._abandoned:
                return
            os.rename(self._name, name, src_dir_fd=self._temporary_folder, dst_dir_fd=folder)
            self._published = True
            os.fsync(folder)

    def _remove_temporary_file(self) -> None:
        if not self._published:
            with suppress(OSError):  # Already removed, or a disk that fails: the next `initialize` tries again.
                os.unlink(self._name, dir_fd=self._temporary_folder)


def stamp(descriptor: int, *, after: int = 0) -> int:
    """Set the modification time of a file to now, but later than ``after``; returns what the disk kept, in ns.

    Whole microseconds, because that is what a datetime holds; some disks keep only every second one.
    """
    moment = max(time.time_ns() // 1000 * 1000, after // 1000 * 1000 + 1000)
    while True:
        os.utime(descriptor, ns=(moment, moment))
        modified = os.fstat(descriptor).st_mtime_ns
        if modified > after:
            return modified
        moment += 1_000_000_000
