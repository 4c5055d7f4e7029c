"""Writes finished lines to a stream and never lets the stream's troubles reach the application."""

from __future__ import annotations

import json
import logging
import re
from contextlib import suppress
from typing import TextIO

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
