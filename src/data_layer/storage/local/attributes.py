"""The metadata of a stored file: an extended attribute of it, or a sidecar beside it."""

from __future__ import annotations

import fcntl
import hashlib
import mimetypes
import os
import secrets
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from data_layer.observability.log import get_log
from data_layer.storage.local.folder import LOCKS, METADATA, TEMPORARY, StorageFolder, create_file, read_all, write_all
from data_layer.storage.port import FileInformation

_EXTENDED_ATTRIBUTE = "user.data_layer"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_logger = get_log(__name__)


@dataclass(frozen=True, slots=True)
class Attributes:
    """What is kept beside one version of a file, which its size (bytes) and modification time (ns) tell apart."""

    size: int
    modified: int
    sha256: str
    content_type: str
    metadata: Mapping[str, str]
    content_encoding: str | None = None
    cache_control: str | None = None

    def describes(self, status: os.stat_result) -> bool:
        """Whether the file with this status is the version that these attributes were written for."""
        return (self.size, self.modified) == (status.st_size, status.st_mtime_ns)


def time_of(status: os.stat_result) -> datetime:
    """When the file was stored, in UTC."""
    return _EPOCH + timedelta(microseconds=status.st_mtime_ns // 1000)


def information(key: str, status: os.stat_result, attributes: Attributes | None) -> FileInformation:
    """What is known about a file; without attributes, what its name and its status say."""
    if attributes is None:
        guessed, encoding = mimetypes.guess_type(key)
        content_type = guessed if guessed and not encoding else "application/octet-stream"
        etag = f"{status.st_mtime_ns:x}-{status.st_size:x}"
        return FileInformation(key, status.st_size, content_type, None, time_of(status), etag, {})
    return FileInformation(
        key,
        status.st_size,
        attributes.content_type,
        attributes.sha256,
        time_of(status),
        attributes.sha256,
        attributes.metadata,
        attributes.content_encoding,
        attributes.cache_control,
    )


def attach(descriptor: int, attributes: Attributes) -> bool:
    """Set the extended attribute of an open file; False where the file system cannot keep it."""
    if not hasattr(os, "setxattr"):
        return False
    try:
        os.setxattr(descriptor, _EXTENDED_ATTRIBUTE, orjson.dumps(attributes))
    except OSError:  # Not supported, no room in the inode, no room on the disk: if it matters, the sidecar fails too.
        return False
    return True


def attached(descriptor: int) -> Attributes | None:
    """The attributes in the extended attribute of an open file."""
    if not hasattr(os, "getxattr"):
        return None
    try:
        content = os.getxattr(descriptor, _EXTENDED_ATTRIBUTE)
    except OSError:
        return None
    return next(iter(_decode([content])), None)


class KeyLock:
    """The lock of a key, which a few keys have in common, held during a block: alone, or with others who share it.

    It also holds between processes, and the kernel releases it when its holder dies.
    """

    __slots__ = ("_descriptor", "_folder", "_key", "_shared")

    def __init__(self, folder: StorageFolder, key: str, *, shared: bool = False) -> None:
        self._folder = folder
        self._key = key
        self._shared = shared

    def __enter__(self) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        with self._folder.own(LOCKS) as locks:
            self._descriptor = os.open(_digest(self._key)[:2], flags, 0o600, dir_fd=locks)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_SH if self._shared else fcntl.LOCK_EX)
        except BaseException:
            os.close(self._descriptor)
            raise

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


class Sidecars:
    """The sidecars of a storage folder: one small file for each key that needs one, describing at most two versions.

    Writers of one key take turns under its lock. Readers need none: a sidecar is replaced as a whole, and describes
    the version in place at all times.
    """

    def __init__(self, folder: StorageFolder) -> None:
        self._folder = folder

    def read(self, key: str) -> list[Attributes]:
        """What the sidecar of a key describes; nothing where there is none."""
        try:
            descriptor = self._folder.open_file(self._location(key))
        except (FileNotFoundError, NotADirectoryError):
            return []
        try:
            content = read_all(descriptor, 0, os.fstat(descriptor).st_size)
        finally:
            os.close(descriptor)
        return _decode(content.splitlines())

    def write(self, key: str, versions: Iterable[Attributes]) -> None:
        """Replace the sidecar of a key, durably. The lock must be held."""
        *folders, name = self._location(key)
        temporary = secrets.token_hex(16)
        with self._folder.own(TEMPORARY) as source, self._folder.opened(folders, create=True) as target:
            descriptor = create_file(source, temporary)
            try:
                write_all(descriptor, b"".join(orjson.dumps(version) + b"\n" for version in versions))
                os.fsync(descriptor)
                os.rename(temporary, name, src_dir_fd=source, dst_dir_fd=target)
            except OSError:
                os.unlink(temporary, dir_fd=source)
                raise
            finally:
                os.close(descriptor)
            os.fsync(target)

    def remove(self, key: str, segments: tuple[str, ...]) -> None:
        """Remove the sidecar of a key whose file is gone; nothing where there is none, or where a file is back."""
        *folders, name = self._location(key)
        if self._folder.status((*folders, name)) is None:
            return
        with KeyLock(self._folder, key), suppress(FileNotFoundError), self._folder.opened(folders) as folder:
            if self._folder.status(segments) is None:
                os.unlink(name, dir_fd=folder)

    @staticmethod
    def _location(key: str) -> tuple[str, ...]:
        digest = _digest(key)
        return (*METADATA, digest[:2], f"{digest[2:]}.jsonl")


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _decode(contents: Iterable[bytes]) -> list[Attributes]:
    """The attributes that can be read; others are as good as lost, which must not make the file unreadable."""
    decoded = []
    for content in contents:
        try:
            decoded.append(_checked(orjson.loads(content)))
        except (ValueError, TypeError, AttributeError):
            _logger.warning("file_metadata_unreadable")
    return decoded


def _checked(values: dict[str, Any]) -> Attributes:
    attributes = Attributes(**values)
    texts = (attributes.sha256, attributes.content_type, *attributes.metadata, *attributes.metadata.values())
    further = (attributes.content_encoding, attributes.cache_control)
    if not all(isinstance(text, str) for text in texts) or not all(isinstance(text, str | None) for text in further):
        raise TypeError("not text")
    return attributes
