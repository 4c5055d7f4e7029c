"""Reading one version of a stored file."""

from __future__ import annotations

import os

from data_layer.errors import StorageUnavailableError
from data_layer.storage.local.attributes import Attributes, Sidecars, attached, information
from data_layer.storage.local.folder import StorageFolder, read_all
from data_layer.storage.port import FileInformation

_CLOSED = -1
_ATTEMPTS = 100


class Reader:
    """A stored file, held open: overwriting or deleting it does not change what is read here."""

    def __init__(self, folder: StorageFolder, key: str, segments: tuple[str, ...]) -> None:
        self._folder = folder
        self._key = key
        self._segments = segments
        self._descriptor = _CLOSED

    def open(self) -> FileInformation:
        """Take the version that is in place now; returns what is known about it.

        Raises:
            FileNotFoundError: there is none.
        """
        for attempt in range(_ATTEMPTS):
            self._descriptor = self._folder.open_file(self._segments)
            status = os.fstat(self._descriptor)
            attributes = self._attributes(status)
            if attributes is not None or self._is_in_place(status) or attempt == _ATTEMPTS - 1:
                break
            # It was replaced before its sidecar was read; the sidecar describes what is there now.
            self.close()
        return information(self._key, status, attributes)

    def read(self, start: int, size: int) -> bytes:
        """Exactly ``size`` bytes from ``start``."""
        data = read_all(self._descriptor, start, size)
        if len(data) < size:
            raise StorageUnavailableError(f"{self._key!r} became shorter while it was read: something else changed it")
        return data

    def close(self) -> None:
        """Let go of the file; harmless when closed."""
        descriptor, self._descriptor = self._descriptor, _CLOSED
        if descriptor != _CLOSED:
            os.close(descriptor)

    def information(self) -> FileInformation:
        """What is known about the file in place; opens and closes."""
        try:
            return self.open()
        finally:
            self.close()

    def content(self) -> bytes:
        """The whole file in place; opens and closes."""
        try:
            return self.read(0, self.open().size)
        finally:
            self.close()

    def _attributes(self, status: os.stat_result) -> Attributes | None:
        own = attached(self._descriptor)
        candidates = [own] if own is not None else Sidecars(self._folder).read(self._key)
        return next((candidate for candidate in candidates if candidate.describes(status)), None)

    def _is_in_place(self, status: os.stat_result) -> bool:
        current = self._folder.status(self._segments)
        return current is not None and (current.st_dev, current.st_ino) == (status.st_dev, status.st_ino)
