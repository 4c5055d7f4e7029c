"""Where archives are written that are sent while they are made."""

from __future__ import annotations

import io
from typing import Any


class ArchiveSink(io.RawIOBase):
    """Takes what an archive writes, until it is handed on; it cannot go back, and ``zipfile`` finds that out."""

    def __init__(self) -> None:
        super().__init__()
        self._pieces: list[bytes] = []

    def writable(self) -> bool:
        """Always."""
        return True

    def write(self, content: Any, /) -> int:
        """Keep it."""
        piece = bytes(content)
        self._pieces.append(piece)
        return len(piece)

    def take(self) -> bytes:
        """Return what was written since the last call."""
        taken = b"".join(self._pieces)
        self._pieces.clear()
        return taken
