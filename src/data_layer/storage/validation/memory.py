"""How much memory decoding may take: one budget for everything that is decoded in the process at the same time.

A file of 34 bytes can unfold to a gigabyte. Limits for each image do not help, because many arrive at once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data_layer.errors import ImageTimeoutError

_SHARE = 3
"""Of the container's memory limit, decoding gets at most one part in so many."""

_LIMIT_FILES = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


class MemoryBudget:
    """Bytes that are reserved before they are used; whoever finds too few waits, first come, first served."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._reserved = 0
        self._waiting: list[object] = []

    @contextmanager
    def reserve(self, size: int, limit: int, seconds: float) -> Iterator[None]:
        """Hold so many bytes while the block runs.

        Args:
            size: how many bytes; no more than the limit.
            limit: how many may be held by all blocks together.
            seconds: how long to wait for them at most.

        Raises:
            ImageTimeoutError: they were not free in time.
        """
        turn = object()
        deadline = time.monotonic() + seconds
        with self._changed:
            self._waiting.append(turn)
            try:
                while self._waiting[0] is not turn or self._reserved + size > limit:
                    if not self._changed.wait(max(0.0, deadline - time.monotonic())) and time.monotonic() > deadline:
                        raise ImageTimeoutError("too many large images are being decoded; try again later")
                self._reserved += size
            finally:
                self._waiting.remove(turn)
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._reserved -= size
                self._changed.notify_all()


DECODING = MemoryBudget()
"""The budget of this process."""


def bounded_by_container(limit: int) -> int:
    """A limit in bytes, or less where the container has little memory."""
    return min([limit, *(int(size) // _SHARE for size in map(_limit_in, _LIMIT_FILES) if size.isdigit())])


def _limit_in(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""
