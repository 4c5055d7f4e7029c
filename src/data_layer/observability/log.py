"""The library's own logger: structured events on top of the standard library's logging, and nothing else.

An application that imports the library decides where its events go, as for every other library; unconfigured structlog
would print them, and importing structlog would take longer than the rest of a small program.
"""

from __future__ import annotations

import logging
from typing import Any

FIELDS = "event_fields"
"""Attribute of a log record that holds the fields of its event."""

_CALLER = 3


class Log:
    """Logs events with static names and fields under the stdlib logger of a module."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def debug(self, event: str, **fields: Any) -> None:
        """What only someone who looks for a fault wants to know."""
        self._log(logging.DEBUG, event, fields)

    def info(self, event: str, **fields: Any) -> None:
        """What happened, as it should."""
        self._log(logging.INFO, event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        """What went wrong and was coped with."""
        self._log(logging.WARNING, event, fields)

    def error(self, event: str, *, exc_info: BaseException | None = None, **fields: Any) -> None:
        """What was asked for and not done, or lost, so that somebody has to look."""
        self._log(logging.ERROR, event, fields, exc_info)

    def _log(self, level: int, event: str, fields: dict[str, Any], exc_info: BaseException | None = None) -> None:
        if self._logger.isEnabledFor(level):
            self._logger.log(level, event, exc_info=exc_info, extra={FIELDS: fields}, stacklevel=_CALLER)


def get_log(name: str) -> Log:
    """The log of a module, called with ``__name__``."""
    return Log(name)
