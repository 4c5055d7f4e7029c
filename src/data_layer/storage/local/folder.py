"""The storage folder on disk: walking in it without ever following a symbolic link."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from data_layer.errors import StorageUnavailableError

OWN_FOLDER = ".storage/"
TEMPORARY = (".storage", "temporary")
METADATA = (".storage", "metadata")
LOCKS = (".storage", "locks")

_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_OPEN_INNER_FOLDER = _OPEN_FOLDER | os.O_NOFOLLOW
# O_NONBLOCK: opening a named pipe must not wait for someone to write into it.
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class HeldFolder:
    """A folder that is kept open, until nobody needs it any more."""

    __slots__ = ("descriptor",)

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __enter__(self) -> int:
        return self.descriptor

    def __exit__(self, *_: object) -> None:
        pass

    def __del__(self) -> None:
        os.close(self.descriptor)


class _OpenFolder:
    """A folder that is open during a block."""

    __slots__ = ("_descriptor",)

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __enter__(self) -> int:
        return self._descriptor

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


class StorageFolder:
    """One folder, walked from its root by descriptors: a folder that is swapped for a link meanwhile leads nowhere.

    The root itself may be a link, which is the operator's to choose. The root and our own folders in it are kept open
    between uses, for as long as the root's path leads to the same folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._path = str(root)
        self._identity: tuple[int, int] | None = None
        self._held: dict[tuple[str, ...], HeldFolder] = {}

    def create(self) -> None:
        """Make what is missing, for the owner only."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in (TEMPORARY, METADATA, LOCKS):
            with self.opened(folder, create=True):
                pass

    def close(self) -> None:
        """Let go of what is kept open; harmless, as it is opened again when it is needed."""
        self._held = {}

    def opened(self, segments: Sequence[str], *, create: bool = False) -> AbstractContextManager[int]:
        """Open an inner folder for a block, which gets its descriptor; ``create`` makes the missing ones."""
        root = self._root()
        if not segments:
            return root
        descriptor = root.descriptor
        for segment in segments:
            try:
                inner = _make_and_open(descriptor, segment) if create else open_folder(descriptor, segment)
            finally:
                if descriptor != root.descriptor:
                    os.close(descriptor)
            descriptor = inner
        return _OpenFolder(descriptor)

    def own(self, segments: tuple[str, ...]) -> HeldFolder:
        """One of our own folders, which is kept open and made if it is missing."""
        self._root()
        open_ones = self._held  # Another thread may begin again meanwhile.
        held = open_ones.get(segments)
        if held is None or os.fstat(held.descriptor).st_nlink == 0:  # Someone removed it.
            with self.opened(segments, create=True) as descriptor:
                held = open_ones[segments] = HeldFolder(os.dup(descriptor))
        return held

    def open_file(self, segments: Sequence[str]) -> int:
        """A descriptor of a regular file, for reading; anything else counts as not there."""
        with self.opened(segments[:-1]) as folder:
            descriptor = _open(folder, segments[-1], _OPEN_FILE)
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return descriptor
        os.close(descriptor)
        raise FileNotFoundError(errno.ENOENT, "not a regular file")

    def status(self, segments: Sequence[str]) -> os.stat_result | None:
        """The status of a regular file; None where there is none."""
        with suppress(FileNotFoundError, NotADirectoryError), self.opened(segments[:-1]) as folder:
            status = os.stat(segments[-1], dir_fd=folder, follow_symlinks=False)
            return status if stat.S_ISREG(status.st_mode) else None
        return None

    def remove_empty_folders(self, segments: Sequence[str]) -> None:
        """Remove a folder that is empty, then the one around it, and so on; the root stays."""
        for depth in range(len(segments), 0, -1):
            try:
                with self.opened(segments[: depth - 1]) as around:
                    os.rmdir(segments[depth - 1], dir_fd=around)
            except OSError:
                return

    def remove_old_temporary_files(self, age: float) -> int:
        """Remove temporary files that nobody has written to for ``age`` seconds; returns how many."""
        removed = 0
        with self.own(TEMPORARY) as folder, os.scandir(folder) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    if entry.stat(follow_symlinks=False).st_mtime < time.time() - age:
                        os.unlink(entry.name, dir_fd=folder)
                        removed += 1
        return removed

    def free_size(self) -> int:
        """Bytes that an ordinary user can still write."""
        status = os.statvfs(self.root)
        return status.f_bavail * status.f_frsize

    def _root(self) -> HeldFolder:
        try:
            status = os.stat(self._path)  # noqa: PTH116  (half the time of Path.stat, at every operation)
            held = self._held.get(())
            if held is not None and self._identity == (status.st_dev, status.st_ino):
                return held
            return self._open_root()
        except OSError as error:
            raise StorageUnavailableError(
                f"the storage folder cannot be opened ({error.strerror}): `data-layer storage init` makes it; if it "
                "was there before, see whether its disk is mounted"
            ) from error

    def _open_root(self) -> HeldFolder:
        """Begin again: what was kept open may belong to another disk."""
        held = HeldFolder(os.open(self._path, _OPEN_FOLDER))
        status = os.fstat(held.descriptor)
        self._held = {(): held}
        self._identity = (status.st_dev, status.st_ino)
        return held


def open_folder(folder: int, name: str) -> int:
    """A descriptor of the folder ``name`` in ``folder``; a link is not a folder."""
    return _open(folder, name, _OPEN_INNER_FOLDER)


def create_file(folder: int, name: str) -> int:
    """A descriptor of a new file that only the owner can read, for writing."""
    return os.open(name, _CREATE_FILE, 0o600, dir_fd=folder)


def write_all(descriptor: int, data: bytes) -> None:
    """Write everything: one call may write less, for example when the disk is about to be full."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def start_writeback(descriptor: int, start: int, size: int) -> None:
    """Have the disk begin with what was just written, so that it works while the bytes are hashed.

    On Linux this is what POSIX_FADV_DONTNEED does to pages that are not on the disk yet; it does not drop them.
    """
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, start, size, os.POSIX_FADV_DONTNEED)


def read_all(descriptor: int, start: int, size: int) -> bytes:
    """Read ``size`` bytes from ``start``; fewer only where the file ends."""
    data = os.pread(descriptor, size, start)
    if len(data) in {0, size}:
        return data
    return data + read_all(descriptor, start + len(data), size - len(data))


def _open(folder: int, name: str, flags: int) -> int:
    """A descriptor of what is there; one error for "is a link", which systems report differently."""
    try:
        return os.open(name, flags, dir_fd=folder)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise NotADirectoryError(errno.ENOTDIR, "a symbolic link") from error
        raise


def _make_and_open(folder: int, name: str) -> int:
    try:
        return open_folder(folder, name)
    except FileNotFoundError:
        with suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=folder)
            os.fsync(folder)
        return open_folder(folder, name)
