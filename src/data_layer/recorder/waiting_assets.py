"""Images that are to be kept, on disk until they are: one file for each list that a request has named.

| the process ends while a list | left behind |
| --- | --- |
| is being written | a file whose name ends with ``.partial``, which is removed after a day; the images are forgotten |
| waits | the file, which the next process with this DATA_FOLDER takes up |
| was worked off | the file at worst: keeping an image again changes nothing |

A process holds a lock on the lists that it works on, so that no other one does.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self
from uuid import UUID, uuid4

import orjson

from data_layer.durability import sync_folder
from data_layer.observability.log import get_log

log = get_log(__name__)

_PARTIAL = ".partial"
_LEFTOVER_SECONDS = 86_400


@dataclass(frozen=True, slots=True)
class WaitingList:
    """Images that are to be kept for the pages of a project.

    Attributes:
        owner_id: whose project it is.
        project_id: which one.
        addresses: where the images are.
        until: the time, in seconds since 1970, up to which they may be alive.
        file: locked; None for a list that could not be written.
        path: of that file.
    """

    owner_id: UUID
    project_id: UUID
    addresses: tuple[str, ...]
    until: float
    file: BinaryIO | None = None
    path: Path | None = None

    @classmethod
    def read(cls, file: BinaryIO, path: Path) -> Self:
        """Read a list that was written.

        Raises:
            KeyError, TypeError, ValueError: it is not one.
        """
        found = orjson.loads(file.read())
        ids = UUID(found["owner_id"]), UUID(found["project_id"])
        return cls(*ids, tuple(map(str, found["addresses"])), float(found["until"]), file, path)

    def release(self) -> None:
        """Leave it to the next process."""
        if self.file is not None:
            self.file.close()

    def remove(self) -> None:
        """Nothing of it is left to do."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)
        self.release()


class WaitingAssets:
    """The folder of the lists. Its methods are for threads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, owner_id: UUID, project_id: UUID, addresses: Iterable[str], until: float) -> WaitingList:
        """Write a list, and lock it; where that fails it is kept in memory only."""
        wanted = tuple(sorted(addresses))
        try:
            return self._write(owner_id, project_id, wanted, until)
        except OSError as error:
            log.warning("assets_not_noted", reason=type(error).__name__)
            return WaitingList(owner_id, project_id, wanted, until)

    def abandoned(self) -> list[WaitingList]:
        """The lists that no process works on, locked."""
        found = []
        for path in self._folder.glob("*.json"):
            with suppress(OSError):  # It was worked off in this moment, or somebody works on it.
                found += self._claim(path)
        return found

    def remove_leftovers(self) -> None:
        """Remove what processes left that died while they wrote."""
        for path in self._folder.glob(f"*{_PARTIAL}"):
            with suppress(FileNotFoundError):
                if path.stat().st_mtime < time.time() - _LEFTOVER_SECONDS:
                    path.unlink()

    def _write(self, owner_id: UUID, project_id: UUID, addresses: tuple[str, ...], until: float) -> WaitingList:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._folder / f"{uuid4().hex}.json"
        partial = path.with_suffix(_PARTIAL)
        content = {"owner_id": owner_id, "project_id": project_id, "addresses": addresses, "until": until}
        file = os.fdopen(os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "w+b")
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(orjson.dumps(content))
            file.flush()
            os.fsync(file.fileno())
            partial.rename(path)
            sync_folder(self._folder)
        except BaseException:
            file.close()
            raise
        return WaitingList(owner_id, project_id, addresses, until, file, path)

    def _claim(self, path: Path) -> list[WaitingList]:
        file = path.open("rb")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists():
                return [WaitingList.read(file, path)]
        except OSError:
            file.close()
            raise
        except (KeyError, TypeError, ValueError) as error:  # Another version has written it, or another program.
            log.warning("asset_list_rejected", path=str(path), reason=type(error).__name__)
            path.rename(path.with_suffix(".rejected"))
        file.close()
        return []
