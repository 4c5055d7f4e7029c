"""Sends every log line of the process, whoever wrote it, through one pipeline."""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING, TextIO

import structlog

from data_layer.observability.events import EventFormatter
from data_layer.observability.handler import EventHandler
from data_layer.observability.known_secrets import secrets_of
from data_layer.observability.logger import EventLogger, hand_over_to_stdlib, logger_named
from data_layer.observability.masking import Masker
from data_layer.observability.rendering import ConsoleLines, render_json

if TYPE_CHECKING:
    from data_layer.config import Settings
    from data_layer.observability.events import Render

_LEVELS = {"error": logging.ERROR, "warn": logging.WARNING, "info": logging.INFO, "debug": logging.DEBUG}


def configure_logging(settings: Settings, *, stream: TextIO | None = None) -> None:
    """Log this process to ``stream`` (by default the present ``sys.stderr``), as the settings say.

    For programs that own their process, such as the service and its commands: the library itself never calls it,
    so an application that imports the library keeps its own logging. Calling it again replaces the earlier
    configuration. Run uvicorn with ``log_config=None``, or it replaces the handlers of its loggers with its own.

    Besides structlog's, the records of the standard library's loggers arrive here, and Python's warnings. Handlers
    that others attached stay, unless they print to a stream; what other libraries log at level debug is left out.
    """
    target = sys.stderr if stream is None else stream
    handler = EventHandler(target)
    handler.setFormatter(EventFormatter(Masker(secrets_of(settings)), _renderer(settings, target)))
    _replace_printing_handlers(handler)
    _set_level(_LEVELS[settings.log_level])
    _silence_access_log()
    logging.captureWarnings(capture=True)
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, hand_over_to_stdlib],
        wrapper_class=EventLogger,
        logger_factory=logger_named,
        # A cached logger would keep this configuration for ever, and tests could not capture what it logs.
        cache_logger_on_first_use=False,
    )


def _renderer(settings: Settings, stream: TextIO) -> Render:
    terminal = stream.isatty()
    as_json = settings.log_format == "json" or (
        settings.log_format == "auto" and (settings.is_production or not terminal)
    )
    return render_json if as_json else ConsoleLines(colors=terminal and not os.environ.get("NO_COLOR"))


def _set_level(level: int) -> None:
    logging.getLogger("data_layer").setLevel(level)
    # The debug lines of drivers and HTTP clients are many, and hold what went over the wire.
    logging.getLogger().setLevel(max(level, logging.INFO))


def _replace_printing_handlers(handler: EventHandler) -> None:
    root = logging.getLogger()
    _remove_printing_handlers(root)
    root.addHandler(handler)
    for logger in list(root.manager.loggerDict.values()):
        if isinstance(logger, logging.Logger) and _remove_printing_handlers(logger):
            logger.propagate = True


def _remove_printing_handlers(logger: logging.Logger) -> bool:
    # Subclasses are left alone: collectors of events and of test output are among them.
    printing = [handler for handler in logger.handlers if type(handler) in {logging.StreamHandler, EventHandler}]
    for handler in printing:
        logger.removeHandler(handler)
    return bool(printing)


def _silence_access_log() -> None:
    """The service logs one event of its own for each request; uvicorn then does not even format its line."""
    access = logging.getLogger("uvicorn.access")
    access.handlers.clear()
    access.propagate = False
