"""Takes over what operators say about levels, while a process of the service runs."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Self

from data_layer.errors import InvalidValueError
from data_layer.observability.levels import LEVELS, OURS, LevelFile, set_level
from data_layer.observability.log import get_log

if TYPE_CHECKING:
    from types import TracebackType

    from data_layer.config import Settings
    from data_layer.observability.levels import LevelChange

log = get_log(__name__)

LOOK_SECONDS = 1.0


class LevelWatch:
    """For a ``with`` block around the work of a process: levels follow the file, and are as before at its end.

    It looks from a thread of its own, so that levels can still be changed while the event loop is stuck.
    """

    def __init__(self, settings: Settings) -> None:
        self._usual = settings.log_level
        self._file = LevelFile(settings.data_folder)
        self._version: tuple[int, ...] | None = None
        self._changes: list[LevelChange] = []
        self._before: dict[str, int] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log-levels", daemon=True)

    def __enter__(self) -> Self:
        self._look()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._apply([])

    def _run(self) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            self._look()

    def _look(self) -> None:
        version = self._file.version()
        if version != self._version:
            self._version = version
            try:
                self._change(self._file.read())
            except InvalidValueError as error:
                log.warning("log_levels_refused", reason=str(error))
        elif any(change.is_over for change in self._changes):
            self._change([change for change in self._changes if not change.is_over])

    def _change(self, changes: list[LevelChange]) -> None:
        before, self._changes = self._changes, changes
        self._apply(changes)
        for change in changes:
            if change not in before:
                # At level warning, so that it is seen whatever the level was: it tells the operator that it worked.
                log.warning("log_level_changed", name=change.logger, to=change.level, until=change.until)
        for name in {change.logger for change in before} - {change.logger for change in changes}:
            log.warning("log_level_restored", name=name)

    def _apply(self, changes: list[LevelChange]) -> None:
        for name, number in self._before.items():
            logging.getLogger(name).setLevel(number)
        levels = {change.logger: change.level for change in changes}
        set_level(levels.pop(OURS, self._usual))
        self._before = {name: logging.getLogger(name).level for name in levels}
        for name, level in levels.items():
            logging.getLogger(name).setLevel(LEVELS[level])
