"""Write finished lines to a stream or a file, and never let their troubles reach the application."""

from __future__ import annotations

import json
import logging
import re
from contextlib import suppress
from typing import TYPE_CHECKING, TextIO

from data_layer.observability.log import get_log

if TYPE_CHECKING:
    from data_layer.observability.log_file import LogFile

log = get_log(__name__)

_NOT_ASCII = re.compile(r"[^\x00-\x7f]")


class EventHandler(logging.StreamHandler[TextIO]):
    """A full disk or a closed pipe loses the line, never the request that logged it."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record as one piece, so that the lines of several threads do not mix."""
        with suppress(Exception):
            line = self.format(record) + self.terminator
            try:
                self.stream.write(line)
            except UnicodeEncodeError:
                # The escapes of JSON, which are right in a JSON line and legible in any other.
                self.stream.write(_NOT_ASCII.sub(lambda found: json.dumps(found[0])[1:-1], line))
            self.stream.flush()


class FileHandler(logging.Handler):
    """Lines that a file does not take, because the disk is full or its folder gone, are counted and left out."""

    def __init__(self, file: LogFile) -> None:
        super().__init__()
        self._file = file
        self._lost = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record as one line."""
        with suppress(Exception):
            line = f"{self.format(record)}\n".encode(errors="backslashreplace")
            try:
                self._file.append(line)
            except OSError as error:
                self._note_loss(error)
            else:
                self._tell_loss()

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()

    def _note_loss(self, error: OSError) -> None:
        self._lost += 1
        if self._lost == 1:  # This event fails here as well, and arrives where else the log goes.
            log.error("log_file_write_failed", reason=error.strerror or str(error))

    def _tell_loss(self) -> None:
        lost, self._lost = self._lost, 0
        if lost:
            log.error("log_file_lines_lost", lines=lost)
