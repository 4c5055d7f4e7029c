from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import structlog
from asgi_correlation_id.context import correlation_id


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """Logging is global to the process: what a test configures must not reach the next one."""
    with logging_restored():
        yield


@contextmanager
def logging_restored() -> Iterator[None]:
    """Undo at the end what is configured inside."""
    root = logging.getLogger()
    loggers = [root, *(each for each in root.manager.loggerDict.values() if isinstance(each, logging.Logger))]
    before = [(each, list(each.handlers), each.level, each.propagate) for each in loggers]
    request = correlation_id.set(None)
    hooks = sys.excepthook, threading.excepthook, sys.unraisablehook
    found_out = logging.logThreads, logging.logProcesses, logging.logMultiprocessing
    yield
    logging.logThreads, logging.logProcesses, logging.logMultiprocessing = found_out
    sys.excepthook, threading.excepthook, sys.unraisablehook = hooks
    correlation_id.reset(request)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    for logger, handlers, level, propagate in before:
        logger.handlers[:] = handlers
        if logger.level != level:  # Setting it makes all loggers forget what they know of their levels.
            logger.setLevel(level)
        logger.propagate = propagate
    for each in (logging.getLogger("data_layer"), logging.getLogger("uvicorn.access")):
        if each not in loggers:
            each.setLevel(logging.NOTSET)
            each.propagate = True
