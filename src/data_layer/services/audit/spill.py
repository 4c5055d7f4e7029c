"""Entries that could not be written, kept on disk until they can be.

Each spill is one file of JSON lines, complete before it has its name (written aside, fsynced, renamed, and the folder
fsynced): after ``keep`` has returned, neither a killed process nor a lost machine loses an entry. Several processes may
share a folder; a lock on the file keeps them from working on the same one, and it ends with its process.
"""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import BinaryIO

_SUFFIX = ".jsonl"
_PARTIAL = ".partial"
_REJECTED = "rejected.ndjson"
_LEFTOVER_SECONDS = 3600
_numbers = count()


class Claim:
    """A file that this process alone works on, until ``close``."""

    def __init__(self, path: Path, file: BinaryIO, lines: list[bytes]) -> None:
        self._path = path
        self._file = file
        self.lines = lines

    def finish(self) -> None:
        """Remove the file: all its entries were written."""
        self._path.unlink(missing_ok=True)
        _sync(self._path.parent)

    def close(self) -> None:
        """Let others have it."""
        self._file.close()


class SpillFolder:
    """A folder of entries that wait. All methods block; call them in a thread.

    Args:
        folder: made when it is first needed, for the owner alone.
        limit: the largest size of all files together, in bytes.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder = folder
        self._limit = limit

    def keep(self, name: str, lines: Sequence[bytes]) -> bool:
        """Store entries; ``False`` when there is no room for them under the limit.

        Args:
            name: sorts by time, such as the id of the first entry.
            lines: one entry each.

        Raises:
            OSError: when the disk refuses; nothing was stored then.
        """
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if self.size() + sum(map(len, lines)) + len(lines) > self._limit:
            return False
        path = self._folder / f"{name}-{os.getpid()}-{next(_numbers)}{_SUFFIX}"
        partial = path.with_suffix(_PARTIAL)
        try:
            self._write(partial, lines)
            partial.rename(path)
        except OSError:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            raise
        _sync(self._folder)
        return True

    def reject(self, line: bytes) -> None:
        """Keep an entry that the database will never take, for people to look at; under the same limit."""
        if self.size() + len(line) <= self._limit:
            self._append(self._folder / _REJECTED, line)

    def waiting(self) -> list[Path]:
        """The files, oldest first."""
        try:
            return sorted(path for path in self._folder.iterdir() if path.suffix == _SUFFIX)
        except FileNotFoundError:
            return []

    def size(self) -> int:
        """The size of all files, in bytes."""
        total = 0
        with suppress(OSError):
            for entry in os.scandir(self._folder):
                with suppress(FileNotFoundError):
                    total += entry.stat().st_size
        return total

    def claim(self, path: Path) -> Claim | None:
        """Take a file over, unless another process works on it or has finished it."""
        try:
            file = path.open("rb")
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Another one may have finished it between opening and locking.
            if path.exists():
                return Claim(path, file, file.read().splitlines())
        except BlockingIOError:
            pass
        file.close()
        return None

    def remove_leftovers(self) -> None:
        """Remove what processes left that died while they wrote a file: its entries were never promised."""
        oldest = time.time() - _LEFTOVER_SECONDS
        with suppress(FileNotFoundError):
            for path in self._folder.glob(f"*{_PARTIAL}"):
                with suppress(FileNotFoundError):
                    if path.stat().st_mtime < oldest:
                        path.unlink()

    def _write(self, path: Path, lines: Sequence[bytes]) -> None:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.writelines(line + b"\n" for line in lines)
            file.flush()
            os.fsync(file.fileno())

    def _append(self, path: Path, line: bytes) -> None:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as file:
            file.write(line + b"\n")


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
