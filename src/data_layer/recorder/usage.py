"""What variants have used: the application does not say it on its WebSocket, and prints it.

It prints one line for each variant, in the task that sends what is said of that variant, so the two belong together.
Whatever is printed passes on unchanged.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TextIO, cast

from data_layer.recorder.protocol import USAGE_MARK, parse_usage
from data_layer.recorder.tape import Tape

CURRENT: ContextVar[Tape | None] = ContextVar("tape", default=None)
"""The tape of the connection that the application answers in this task, or in one that began this one."""


class _Heard:
    """Standard output, which is listened to."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write it."""
        if USAGE_MARK in text:
            _note(text)
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def printed_usage_is_heard() -> Iterator[None]:
    """Listen to what the application prints, for the block."""
    before = sys.stdout
    heard = cast("TextIO", _Heard(before))
    sys.stdout = heard
    try:
        yield
    finally:
        if sys.stdout is heard:
            sys.stdout = before


def _note(text: str) -> None:
    tape = CURRENT.get()
    used = None if tape is None else parse_usage(text)
    if tape is not None and used is not None:
        tape.note_usage(used)
