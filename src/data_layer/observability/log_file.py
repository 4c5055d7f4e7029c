"""Where finished lines go: a stream, or a file that several processes write and any of them may rotate."""

from __future__ import annotations

import json
import logging
import os
import re
import stat
import sys
from asyncio import AbstractEventLoop, get_running_loop
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TextIO

from data_layer.errors import ConfigurationError
from data_layer.observability.events import EventFormatter
from data_layer.observability.log import EventHandler, LoggedEvent, get_log

if sys.platform != "win32":
    import fcntl

_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)


class LogFile:
    """Appends whole lines, each with one call to the system, so that lines of several processes never mix.

    Before each line it looks whether the name still means the file that is open: so it follows when another process,
    or logrotate, has put the file aside. A process that finds the file too long takes the lock on the folder and
    renames; one that does not get the lock writes on, because another is renaming. A line that another process writes
    at that moment ends up in the older file; none is lost.

    Args:
        path: the file. It and its folder are made, readable by the owner only; one that exists keeps its rights.
        maximum_size: bytes that it may have before it is put aside; 0: never.
        count: how many older files are kept, the youngest as ``path.1``.
    """

    def __init__(self, path: Path, *, maximum_size: int, count: int) -> None:
        self._path = path
        self._maximum_size = maximum_size
        self._count = count
        self._descriptor = -1
        self._identity = (-1, -1)
        self._ends_torn = False

    def open(self) -> None:
        """Open it, so that a wrong path is found at start.

        Raises:
            ConfigurationError: it cannot be written.
        """
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._open()
        except OSError as error:
            raise ConfigurationError(
                f"LOG_FILE: {str(self._path)!r} cannot be written ({error.strerror}); name a file in a folder "
                "that this process may write, or leave it empty to log to standard error only"
            ) from error

    def append(self, lines: bytes) -> None:
        """Write one line or several, each of which ends with a line break.

        Raises:
            OSError: they were not written, or only their beginning; the next call begins a new line.
        """
        if self._is_too_long(lines):
            self._put_aside()
            self._is_too_long(lines)
        lines = b"\n" + lines if self._ends_torn else lines
        written = os.write(self._descriptor, lines)
        self._ends_torn = written < len(lines)
        if self._ends_torn:
            raise OSError("only the beginning was written")

    def close(self) -> None:
        """Close it. Harmless when it is closed; writing opens it again."""
        descriptor, self._descriptor, self._identity = self._descriptor, -1, (-1, -1)
        if descriptor >= 0:
            os.close(descriptor)

    def _is_too_long(self, lines: bytes) -> bool:
        """Whether the lines belong into a new file; afterwards the file that has the name is open."""
        try:
            found = self._path.stat()
        except FileNotFoundError:
            found = None
        if found is None or _identity(found) != self._identity:
            self.close()
            found = self._open()
        return 0 < self._maximum_size < found.st_size + len(lines) and found.st_size > 0

    def _open(self) -> os.stat_result:
        descriptor = os.open(self._path, _APPEND, 0o600)
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            os.close(descriptor)
            raise OSError(0, "it is not a regular file")
        self._descriptor, self._identity = descriptor, _identity(found)
        return found

    def _put_aside(self) -> None:
        # What fails here is tried again with the next line: a file that is too long is better than a lost line.
        with suppress(OSError), self._folder_lock() as is_ours:
            if is_ours and _identity(self._path.stat()) == self._identity:
                for number in range(self._count - 1, 0, -1):
                    with suppress(FileNotFoundError):
                        self._older(number).replace(self._older(number + 1))
                self._path.replace(self._older(1))

    def _older(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")

    @contextmanager
    def _folder_lock(self) -> Iterator[bool]:
        """Whether this process may rename. It never waits: the lock ends with the descriptor, also when we die."""
        if sys.platform == "win32":
            yield True
            return
        descriptor = os.open(self._path.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
        finally:
            os.close(descriptor)


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


log = get_log(__name__)

_PIPE_BUFFER = 4096
"""Bytes that a pipe takes as a whole (PIPE_BUF of Linux; POSIX promises 512)."""
_LONGEST_CHARACTER = 4
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")


class LineHandler(EventHandler):
    """Writes lines in their order; those that may wait, when the event loop turns or so many have come together.

    Many lines cost as much as one: a call of the system. Together they are no longer than what a pipe takes as a whole,
    so that the lines of several processes do not mix.

    Args:
        formatter: makes the lines.
    """

    def __init__(self, formatter: EventFormatter) -> None:
        super().__init__()
        self.formatter: EventFormatter = formatter
        self._waiting: list[str] = []
        self._size = 0
        self._loop: AbstractEventLoop | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record as one line. What fails loses lines, never what logged them."""
        with suppress(Exception):
            self._add(self.formatter.format(record), may_wait=False)

    def write_event(self, event: LoggedEvent) -> None:
        """Write one event as one line."""
        with suppress(Exception):
            self._add(self.formatter.line(event), may_wait=event.may_wait)

    def flush(self) -> None:
        """Write what waits. It is called at the end of the program, too."""
        with self.lock or nullcontext():
            lines, self._waiting, self._size, self._loop = self._waiting, [], 0, None
            if lines:
                with suppress(Exception):
                    self._write("\n".join([*lines, ""]), len(lines))

    def _add(self, line: str, *, may_wait: bool) -> None:
        size = len(line) + 1 if line.isascii() else _LONGEST_CHARACTER * len(line) + 1
        with self.lock or nullcontext():
            if self._size + size > _PIPE_BUFFER:
                self.flush()
            self._waiting.append(line)
            self._size += size
            if not (may_wait and self._flushes_soon()):
                self.flush()

    def _flushes_soon(self) -> bool:
        """Whether the event loop of this thread, if it has one, flushes when it turns."""
        try:
            loop = get_running_loop()
        except RuntimeError:
            return False
        if loop is not self._loop:
            self._loop = loop
            loop.call_soon(self.flush)
        return True

    def _write(self, text: str, lines: int) -> None:
        """Write so many lines as one piece."""
        raise NotImplementedError


class StreamHandler(LineHandler):
    """A full disk or a closed pipe loses lines, never the request that logged them."""

    def __init__(self, formatter: EventFormatter, stream: TextIO) -> None:
        super().__init__(formatter)
        self._stream = stream

    def _write(self, text: str, lines: int) -> None:
        del lines
        try:
            self._stream.write(text)
        except UnicodeEncodeError:
            # The escapes of JSON, which are right in a JSON line and legible in any other.
            self._stream.write(_NOT_ASCII.sub(lambda found: json.dumps(found[0])[1:-1], text))
        self._stream.flush()


class FileHandler(LineHandler):
    """Lines that a file does not take, because the disk is full or its folder gone, are counted and left out."""

    def __init__(self, formatter: EventFormatter, file: LogFile) -> None:
        super().__init__(formatter)
        self._file = file
        self._lost = 0

    def close(self) -> None:
        """Close the file."""
        self.flush()
        self._file.close()
        super().close()

    def _write(self, text: str, lines: int) -> None:
        try:
            self._file.append(text.encode(errors="backslashreplace"))
        except OSError as error:
            self._note_loss(error, lines)
        else:
            self._tell_loss()

    def _note_loss(self, error: OSError, lines: int) -> None:
        is_first, self._lost = self._lost == 0, self._lost + lines
        if is_first:  # This event fails here as well, and arrives where else the log goes.
            log.error("log_file_write_failed", reason=error.strerror or str(error))

    def _tell_loss(self) -> None:
        lost, self._lost = self._lost, 0
        if lost:
            log.error("log_file_lines_lost", lines=lost)
