"""Exceptions that nobody catches go through the log, where their tracebacks are masked."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Any

from data_layer.observability.log import get_log

if TYPE_CHECKING:
    from types import TracebackType

log = get_log(__name__)


def log_uncaught_exceptions() -> None:
    """Replace what Python does with exceptions that end the program, a thread, or a finalizer."""
    sys.excepthook = _end_of_program
    threading.excepthook = _end_of_thread
    sys.unraisablehook = _in_finalizer


def _end_of_program(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
    else:
        log.error("program_crashed", exc_info=error)


def _end_of_thread(failure: threading.ExceptHookArgs) -> None:
    if failure.exc_value is not None and not isinstance(failure.exc_value, SystemExit):
        name = failure.thread.name if failure.thread else None
        log.error("thread_crashed", exc_info=failure.exc_value, thread=name)


def _in_finalizer(failure: Any) -> None:
    log.error("exception_ignored", exc_info=failure.exc_value, message=failure.err_msg)
