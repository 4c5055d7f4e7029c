"""What could not be delivered yet, on disk: one folder for each request, with its ends and its media.

| the process dies while an entry is | left behind |
| --- | --- |
| in memory | nothing; what had begun is ended by its lease, with the code that was stored last |
| being written | a folder whose name ends with ``.partial``, which is removed after a day |
| on disk | the folder, which the next process with this DATA_FOLDER delivers |

Delivering is repeated after a doubtful end; keys of the request keep that from making two of one.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import orjson

from data_layer.durability import sync_folder
from data_layer.observability.log import get_log
from data_layer.recorder.protocol import Media

log = get_log(__name__)

LARGEST = 2 * 2**30
"""Most bytes of all entries."""

_PARTIAL = ".partial"
_REJECTED = ".rejected"
_RECORD = "record.json"
_LEFTOVER_SECONDS = 86_400


class HeldMedia:
    """An image or a video of a prompt: in memory, or on disk while it must wait."""

    def __init__(self, media: Media) -> None:
        self.content_type = media.content_type
        self.is_video = media.is_video
        self.sha256 = hashlib.sha256(media.content).hexdigest()
        self.file_id: str | None = None
        """Its file, once it is stored."""
        self.is_refused = False
        self._content: bytes | None = media.content
        self._path: Path | None = None

    def read(self) -> bytes:
        """Its bytes; from a thread."""
        return self._content if self._content is not None or self._path is None else self._path.read_bytes()  # type: ignore[return-value]

    def move_to(self, path: Path) -> None:
        """Keep the bytes there and no longer in memory; from a thread."""
        if self._content is not None:
            _write(path, self._content)
        elif self._path is not None and self._path != path:
            self._path.rename(path)
        self._content, self._path = None, path

    @property
    def file_name(self) -> str:
        """What its file is called: it is found by that, because an image may be stored without its metadata."""
        return f"{self.sha256}.{self.content_type.rpartition('/')[2]}"

    def describe(self) -> dict[str, str]:
        """What a generation keeps of it among its inputs."""
        known = {"sha256": self.sha256, "content_type": self.content_type}
        return known if self.file_id is None else known | {"file_id": self.file_id}


class SpillFolder:
    """The folder. Its methods are for threads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def hold(self, key: str, media: list[HeldMedia]) -> None:
        """Take media out of memory, for a request that cannot be recorded now."""
        partial = self._partial(key)
        for number, each in enumerate(media):
            if each.file_id is None:
                each.move_to(partial / f"media-{number}")

    def keep(self, key: str, record: dict[str, Any], media: list[HeldMedia]) -> bool:
        """Keep an entry; whether there was room for it."""
        content = orjson.dumps(record)
        if self.size() + len(content) > LARGEST:
            self.drop(key)
            log.error("recording_lost", reason="the folder for what waits is full", folder=str(self._folder))
            return False
        self.hold(key, media)
        partial = self._partial(key)
        _write(partial / _RECORD, content)
        partial.rename(self._folder / key)
        sync_folder(self._folder)
        return True

    def drop(self, key: str) -> None:
        """Forget what was held of a request."""
        shutil.rmtree(self._folder / f"{key}{_PARTIAL}", ignore_errors=True)

    def waiting(self) -> list[str]:
        """The keys of the entries, oldest first."""
        with suppress(FileNotFoundError):
            found = [each for each in self._folder.iterdir() if each.is_dir() and not each.suffix]
            return [each.name for each in sorted(found, key=lambda each: each.stat().st_mtime)]
        return []

    @contextmanager
    def claim(self, key: str) -> Iterator[Entry | None]:
        """Take an entry, unless another process has it or has delivered it. Nothing is read yet."""
        try:
            file = (self._folder / key / _RECORD).open("rb")
        except FileNotFoundError:
            yield None
            return
        except OSError as error:
            log.warning("entry_not_opened", key=key, reason=type(error).__name__)
            yield None
            return
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield None
                return
            yield Entry(self._folder / key) if (self._folder / key).exists() else None

    def remove(self, key: str) -> None:
        """An entry was delivered."""
        shutil.rmtree(self._folder / key, ignore_errors=True)

    def reject(self, key: str) -> None:
        """Keep an entry that will never be taken, for a person to look at."""
        with suppress(OSError):
            (self._folder / key).rename(self._folder / f"{key}{_REJECTED}")

    def remove_leftovers(self) -> None:
        """Remove what processes left that died while they wrote."""
        with suppress(FileNotFoundError):
            for each in self._folder.glob(f"*{_PARTIAL}"):
                if each.stat().st_mtime < time.time() - _LEFTOVER_SECONDS:
                    shutil.rmtree(each, ignore_errors=True)

    def size(self) -> int:
        """Bytes of all entries."""
        return sum(each.stat().st_size for each in self._folder.rglob("*") if each.is_file())

    def _partial(self, key: str) -> Path:
        partial = self._folder / f"{key}{_PARTIAL}"
        partial.mkdir(mode=0o700, parents=True, exist_ok=True)
        return partial


class Entry:
    """An entry that was claimed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.record: dict[str, Any] = {}

    def load(self) -> None:
        """Read what was kept, which may have many megabytes; from a thread."""
        self.record = orjson.loads((self._folder / _RECORD).read_bytes())

    def media(self) -> list[HeldMedia]:
        """Its media that are not stored yet; from a thread."""
        held: list[HeldMedia] = []
        for described in self.record["media"]:
            path = self._folder / described["name"]
            if path.exists():
                held.append(HeldMedia(Media(described["content_type"], path.read_bytes())))
        return held


def _write(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
