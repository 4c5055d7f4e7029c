"""Performance timers: one event that says how long something took, and each of its steps."""

from __future__ import annotations

import logging
import sys
import time
from types import TracebackType
from typing import Any, Self

from data_layer.observability.log import FIELDS

_CALLER = 2


class timed:  # noqa: N801  (read as a word: with timed("project_imported") as timer)
    """Logs one event when its block ends, with the block's duration and that of each step.

    ``duration_ms`` is the whole block. ``checkpoints_ms`` holds for each checkpoint the milliseconds since the one
    before, or since the beginning; a name that comes again adds up. A block that an exception leaves is logged with
    ``failed`` set to the exception's class, and the exception goes on. ::

        with timed("project_imported", project_id=project.id) as timer:
            page = parse(source)
            timer.checkpoint("parsed")
            await store(page)
            timer.checkpoint("stored")

    Args:
        event: static name, in snake_case and the past tense.
        level: of the event, as of the standard library's ``logging``; below the level in force the block costs two
            looks at the clock.
        fields: further fields of the event; ``timer.add`` adds what becomes known on the way.

    The event belongs to the logger of the calling module.
    """

    __slots__ = ("_checkpoints", "_event", "_fields", "_latest", "_level", "_logger", "_started")

    def __init__(self, event: str, *, level: int = logging.INFO, **fields: Any) -> None:
        self._event = event
        self._level = level
        self._fields = fields
        self._logger = logging.getLogger(sys._getframe(1).f_globals.get("__name__"))  # noqa: SLF001  (as logging does)
        self._checkpoints: dict[str, float] = {}
        self._started = self._latest = 0.0

    def __enter__(self) -> Self:
        self._started = self._latest = time.perf_counter()
        return self

    def checkpoint(self, name: str) -> None:
        """End a step, and begin the next one."""
        now = time.perf_counter()
        self._checkpoints[name] = self._checkpoints.get(name, 0.0) + now - self._latest
        self._latest = now

    def add(self, **fields: Any) -> None:
        """Add fields to the event, or replace them."""
        self._fields |= fields

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._logger.isEnabledFor(self._level):
            return
        fields = self._fields | {"duration_ms": _milliseconds(time.perf_counter() - self._started)}
        if self._checkpoints:
            fields["checkpoints_ms"] = {name: _milliseconds(spent) for name, spent in self._checkpoints.items()}
        if kind is not None:
            fields["failed"] = kind.__name__
        self._logger.log(self._level, self._event, extra={FIELDS: fields}, stacklevel=_CALLER)


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 2)
