"""The library's own logger: structured events on top of the standard library's logging, and nothing else.

An application that imports the library decides where its events go, as for every other library; unconfigured structlog
would print them, and importing structlog would take longer than the rest of a small program.
"""

from __future__ import annotations

import logging
import time
from functools import lru_cache
from inspect import currentframe
from pathlib import Path
from typing import Any, NamedTuple

FIELDS = "event_fields"
"""Attribute of a log record that holds the fields of its event."""


class LoggedEvent(NamedTuple):
    """An event of ours.

    Attributes:
        created: seconds since 1970.
        level: its number.
        logger: the name of its logger.
        name: what happened.
        fields: no handler changes them.
        error: what is described with it.
        may_wait: whether its line may be written a little later, together with others.
    """

    created: float
    level: int
    logger: str
    name: str
    fields: dict[str, Any]
    error: BaseException | None
    may_wait: bool


class EventHandler(logging.Handler):
    """A handler that writes events without records: making a record costs as much as the rest of the line.

    Where other handlers, or filters, want a record, one is made, and this handler gets it too.
    """

    def write_event(self, event: LoggedEvent) -> None:
        """Write an event. Nothing that fails reaches what has logged it."""
        raise NotImplementedError


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

    def info_often(self, event: str, **fields: Any) -> None:
        """The same for what each request says last: the lines of one turn of the event loop are written at once.

        Only a process that is killed at that moment loses them. So it must not be the line that says what a process
        was doing when it hung: any other line is written at once, with those that wait before it.
        """
        self._log(logging.INFO, event, fields, may_wait=True)

    def warning(self, event: str, **fields: Any) -> None:
        """What went wrong and was handled."""
        self._log(logging.WARNING, event, fields)

    def error(self, event: str, *, exc_info: BaseException | None = None, **fields: Any) -> None:
        """What was asked for and not done, or lost, so that somebody has to look."""
        self._log(logging.ERROR, event, fields, exc_info)

    def _log(
        self,
        level: int,
        event: str,
        fields: dict[str, Any],
        error: BaseException | None = None,
        *,
        may_wait: bool = False,
    ) -> None:
        logger = self._logger
        if not logger.isEnabledFor(level):
            return
        if handlers := _handlers_of_events(logger):
            logged = LoggedEvent(time.time(), level, logger.name, event, fields, error, may_wait)
            for handler in handlers:
                handler.write_event(logged)
            return
        # Not logger.log, which looks for the caller in every frame. Of the frames only that of the caller is kept: our
        # own one, held by a variable of its own, would wait for the garbage collector.
        caller: Any = currentframe().f_back.f_back  # type: ignore[union-attr]  # There are some.
        code, exc_info = caller.f_code, None if error is None else (type(error), error, error.__traceback__)
        # The path is put in later, because a record that gets one takes it apart each time.
        record = logger.makeRecord(
            *(logger.name, level, "", caller.f_lineno, event, (), exc_info),
            func=code.co_name,
            extra={FIELDS: fields},
        )
        record.pathname = code.co_filename
        record.filename, record.module = _names_in(code.co_filename)
        logger.handle(record)


def _handlers_of_events(logger: logging.Logger) -> list[EventHandler]:
    """The handlers of a logger, if all of them write events and nothing filters them; else none."""
    found: list[EventHandler] = []
    if logger.filters:
        return found
    current: logging.Logger | None = logger
    while current is not None:
        for handler in current.handlers:
            if not isinstance(handler, EventHandler) or handler.level or handler.filters:
                return []
            found.append(handler)
        current = current.parent if current.propagate else None
    return found


@lru_cache(maxsize=1024)
def _names_in(path: str) -> tuple[str, str]:
    """The names of the file and of the module, as a record has them."""
    return Path(path).name, Path(path).stem


def get_log(name: str) -> Log:
    """The log of a module, called with ``__name__``."""
    return Log(name)
