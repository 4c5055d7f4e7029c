"""One stored file on the local disk: written, read, copied and moved."""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace

from data_layer.errors import ContentMismatchError, FileTooLargeError, StorageUnavailableError
from data_layer.storage.arguments import Condition, Description
from data_layer.storage.content import BATCH_SIZE
from data_layer.storage.local.attributes import Attributes, KeyLock, Sidecars, attach, attached, information
from data_layer.storage.local.folder import TEMPORARY, StorageFolder, create_file, read_all, start_writeback, write_all
from data_layer.storage.port import FileInformation, HashedBytes

_ATTEMPTS = 100
_CLOSED = -1
KeyAndSegments = tuple[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a file will be published, as what, and on which condition.

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


class AtomicFileWriter:
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
        self._descriptor = _CLOSED
        self._abandoned = False
        self._published = False

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return self._size

    def store(self, content: bytes | HashedBytes) -> None:
        """Write, publish and close a file whose whole content is in memory."""
        try:
            self.open()
            if isinstance(content, bytes) and len(content) <= BATCH_SIZE:
                content = HashedBytes(content)  # It is done before the disk could begin.
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
        self._temporary_folder = self._folder.own(TEMPORARY)
        self._descriptor = create_file(self._temporary_folder.descriptor, self._name)

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
                f"the file for {self._destination.key!r} is larger than {self._max_size} bytes (MAX_FILE_SIZE)"
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
                f"the content for {self._destination.key!r} has another SHA-256 than it should have"
            )
        attributes = self._attributes(stamp(self._descriptor))
        if not attach(self._descriptor, attributes):
            self._commit_with_sidecar(attributes)
            return
        os.fsync(self._descriptor)
        # A writer with a condition must be alone from looking to publishing; the others need not wait for each other.
        with KeyLock(self._folder, self._destination.key, shared=self._destination.condition.is_none):
            self._require_condition()
            self._publish()

    def abandon(self) -> None:
        """Forbid publishing from now on; may be called from another thread."""
        self._abandoned = True

    def discard(self) -> None:
        """Let go of everything; an unpublished file disappears. Harmless to repeat."""
        descriptor, self._descriptor = self._descriptor, _CLOSED
        if descriptor == _CLOSED:
            return
        try:
            if not self._published:
                with suppress(OSError):  # Already removed, or a disk that fails: the next `initialize` tries again.
                    os.unlink(self._name, dir_fd=self._temporary_folder.descriptor)
        finally:
            os.close(descriptor)

    def _commit_with_sidecar(self, attributes: Attributes) -> None:
        key, segments = self._destination.key, self._destination.segments
        sidecars = Sidecars(self._folder)
        with KeyLock(self._folder, key):
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
            f"the file for {self._destination.key!r} could not be put in its place: its folder or its temporary file "
            "was removed again and again by something else"
        )

    def _move_into_place(self) -> None:
        *folders, name = self._destination.segments
        with self._folder.opened(folders, create=True) as folder:
            if self._abandoned:
                return
            os.rename(self._name, name, src_dir_fd=self._temporary_folder.descriptor, dst_dir_fd=folder)
            self._published = True
            os.fsync(folder)


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


class Reader:
    """A stored file, held open: overwriting or deleting it does not change what is read here."""

    def __init__(self, folder: StorageFolder, key: str, segments: tuple[str, ...]) -> None:
        self._folder = folder
        self._key = key
        self._segments = segments
        self._descriptor = _CLOSED

    def open(self) -> FileInformation:
        """Take the version that is in place now; returns what is known about it.

        Raises:
            FileNotFoundError: there is none.
        """
        for attempt in range(_ATTEMPTS):
            self._descriptor = self._folder.open_file(self._segments)
            status = os.fstat(self._descriptor)
            attributes = self._attributes(status)
            if attributes is not None or self._is_in_place(status) or attempt == _ATTEMPTS - 1:
                break
            # It was replaced before its sidecar was read; the sidecar describes what is there now.
            self.close()
        return information(self._key, status, attributes)

    def read(self, start: int, size: int) -> bytes:
        """Exactly ``size`` bytes from ``start``."""
        data = read_all(self._descriptor, start, size)
        if len(data) < size:
            raise StorageUnavailableError(f"{self._key!r} became shorter while it was read: something else changed it")
        return data

    def close(self) -> None:
        """Let go of the file; harmless when closed."""
        descriptor, self._descriptor = self._descriptor, _CLOSED
        if descriptor != _CLOSED:
            os.close(descriptor)

    def information(self) -> FileInformation:
        """What is known about the file in place; opens and closes."""
        try:
            return self.open()
        finally:
            self.close()

    def content(self) -> bytes:
        """The whole file in place; opens and closes."""
        try:
            return self.read(0, self.open().size)
        finally:
            self.close()

    def _attributes(self, status: os.stat_result) -> Attributes | None:
        own = attached(self._descriptor)
        candidates = [own] if own is not None else Sidecars(self._folder).read(self._key)
        return next((candidate for candidate in candidates if candidate.describes(status)), None)

    def _is_in_place(self, status: os.stat_result) -> bool:
        current = self._folder.status(self._segments)
        return current is not None and (current.st_dev, current.st_ino) == (status.st_dev, status.st_ino)


class Copy:
    """From one key, given with its segments, to another; used by one thread."""

    def __init__(
        self, folder: StorageFolder, source: KeyAndSegments, target: KeyAndSegments, condition: Condition
    ) -> None:
        self._folder = folder
        self._source = source
        self._target = target
        self._condition = condition
        self._writer: AtomicFileWriter | None = None
        self._abandoned = False

    def abandon(self) -> None:
        """Stop soon; may be called from another thread."""
        self._abandoned = True
        if self._writer is not None:
            self._writer.abandon()

    def copy(self) -> None:
        """Write the bytes a second time, durably, with all that is known about them.

        Raises:
            FileNotFoundError: the source does not exist.
            FileExistsInStorageError: the condition does not hold.
        """
        reader = Reader(self._folder, *self._source)
        try:
            found = reader.open()
            if self._source == self._target:
                if not self._condition.is_none:
                    raise self._condition.failure(self._target[0])
                return
            described = Description(found.content_type, found.metadata, found.content_encoding, found.cache_control)
            destination = Destination(*self._target, described, found.sha256, self._condition)
            self._writer = writer = AtomicFileWriter(self._folder, destination, found.size)
            try:
                writer.open()
                for position in range(0, found.size, BATCH_SIZE):
                    if self._abandoned:
                        return
                    writer.write([reader.read(position, min(BATCH_SIZE, found.size - position))])
                writer.commit()
            finally:
                writer.discard()
        finally:
            reader.close()

    def move(self) -> bool:
        """Rename the file if its metadata goes with it, else copy it; whether the source is still to be removed."""
        if self._source == self._target or not self._metadata_travels():
            self.copy()
            return self._source != self._target and not self._abandoned
        *folders, name = self._target[1]
        *source_folders, source_name = self._source[1]
        with KeyLock(self._folder, self._target[0], shared=self._condition.is_none):
            if not self._condition.is_none and self._folder.status(self._target[1]) is not None:
                raise self._condition.failure(self._target[0])
            with (
                self._folder.opened(source_folders) as source,
                self._folder.opened(folders, create=True) as target,
            ):
                os.rename(source_name, name, src_dir_fd=source, dst_dir_fd=target)
                os.fsync(target)
                os.fsync(source)
        self._folder.remove_empty_folders(source_folders)
        return False

    def _metadata_travels(self) -> bool:
        descriptor = self._folder.open_file(self._source[1])
        try:
            return attached(descriptor) is not None
        finally:
            os.close(descriptor)
