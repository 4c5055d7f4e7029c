"""The levels of loggers, and changing them while the service runs.

``data-layer logs level`` writes a small file into DATA_FOLDER, and every process of the service looks once a second
whether it has changed. A file needs no open port, no signal and no supervisor: it reaches all workers, those that are
started later too, and it works in a container as soon as DATA_FOLDER can be written. Only the account of the service,
the owner of the folder and root may change levels: a file of anybody else, or that others may write, is not believed.
Changes end by themselves, because nobody remembers at noon what was switched on at night.
"""

from __future__ import annotations

import json
import logging
import os
import stat
import tempfile
import threading
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from data_layer.errors import InvalidValueError
from data_layer.observability.log import get_log

LEVELS: Final = {"error": logging.ERROR, "warn": logging.WARNING, "info": logging.INFO, "debug": logging.DEBUG}
OURS: Final = "data_layer"
"""The logger whose level is LOG_LEVEL; those of other libraries follow it, but not below info."""

_FILE = "log-levels.json"
_LARGEST_FILE = 65_536
_READ = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


@dataclass(frozen=True, slots=True)
class LevelChange:
    """The level of one logger and of those below it, until a moment, or for ever."""

    logger: str
    level: str
    until: datetime | None = None

    def __post_init__(self) -> None:
        if self.level not in LEVELS:
            raise InvalidValueError(f"{self.level!r} is not a level; use one of {', '.join(LEVELS)}", field="level")

    @property
    def is_over(self) -> bool:
        """Whether its time has ended."""
        return self.until is not None and self.until <= datetime.now(UTC)


def set_level(level: str) -> None:
    """What LOG_LEVEL means."""
    number = LEVELS[level]
    logging.getLogger(OURS).setLevel(number)
    # The debug lines of drivers and HTTP clients are many, and hold what went over the wire.
    logging.getLogger().setLevel(max(number, logging.INFO))


def require_logger(name: str) -> None:
    """Refuse a logger of ours that does not exist: a slip of the fingers would silently change nothing.

    Raises:
        InvalidValueError: when no module has this name.
    """
    parts = name.split(".")
    exists = all(part.isidentifier() for part in parts)
    if exists and parts[0] == OURS:
        package = find_spec(OURS)
        root = Path(package.origin).parent if package and package.origin else Path()
        place = root.joinpath(*parts[1:])
        exists = place.is_dir() or place.with_suffix(".py").is_file()
    if not exists:
        raise InvalidValueError(f"there is no logger {name!r}; loggers have the names of modules", field="logger")


class LevelFile:
    """The changes that operators have made, in a file that their commands write and the service reads."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / _FILE

    def version(self) -> tuple[int, ...] | None:
        """Differs whenever the file has changed; None without a file."""
        with suppress(OSError):
            found = self._path.lstat()
            return found.st_ino, found.st_mtime_ns, found.st_size
        return None

    def read(self) -> list[LevelChange]:
        """The changes that are not over.

        Raises:
            InvalidValueError: when it cannot be believed, or means nothing.
        """
        try:
            content = self._content()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise self._refused(error.strerror or "unreadable") from error
        try:
            changes = [_change_of(item) for item in json.loads(content)]
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise self._refused("it holds something else") from error
        return [change for change in changes if not change.is_over]

    def write(self, changes: list[LevelChange]) -> None:
        """Replace all changes.

        Raises:
            InvalidValueError: when the folder cannot be written.
        """
        items = [asdict(change) | {"until": change.until and change.until.isoformat()} for change in changes]
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._replace(json.dumps(items).encode())
        except OSError as error:
            raise InvalidValueError(
                f"{str(self._path)!r} cannot be written ({error.strerror}); use the DATA_FOLDER and the account of the "
                "service"
            ) from error

    def _replace(self, content: bytes) -> None:
        descriptor, name = tempfile.mkstemp(dir=self._path.parent, prefix=_FILE)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                # Root may have written it for the account of the service, and there is nothing secret in it.
                os.fchmod(file.fileno(), 0o644)
            Path(name).replace(self._path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    def _content(self) -> bytes:
        descriptor = os.open(self._path, _READ)
        with os.fdopen(descriptor, "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode) or found.st_size > _LARGEST_FILE:
                raise self._refused("it is not a small file")
            # The owner of the folder, because root asks what the account of the service has changed.
            owners = {os.geteuid(), 0, self._path.parent.stat().st_uid}
            if found.st_uid not in owners or found.st_mode & 0o022:
                raise self._refused("others could have written it")
            return file.read(_LARGEST_FILE)

    def _refused(self, reason: str) -> InvalidValueError:
        return InvalidValueError(f"{str(self._path)!r} is not believed: {reason}; remove it: data-layer logs reset")

    def remove(self) -> None:
        """Undo all changes."""
        self._path.unlink(missing_ok=True)


def _change_of(item: dict[str, Any]) -> LevelChange:
    until = item["until"]
    return LevelChange(str(item["logger"]), item["level"], datetime.fromisoformat(until) if until else None)


log = get_log(__name__)

LOOK_SECONDS = 1.0


class LevelWatch:
    """For a ``with`` block around the work of a process: levels follow the file, and are as before at its end.

    It looks from a thread of its own, so that levels can still be changed while the event loop is stuck.

    Args:
        usual: LOG_LEVEL, which holds where the file names no other
        folder: DATA_FOLDER, where the file is
    """

    def __init__(self, usual: str, folder: Path) -> None:
        self._usual = usual
        self._file = LevelFile(folder)
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
                # At level warning, so that it is seen whatever the level was: it shows the operator that it worked.
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
