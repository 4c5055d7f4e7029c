"""Sends every log line of the process, whoever wrote it, through one pipeline."""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING, TextIO

import structlog

from data_layer.observability.events import EventFormatter
from data_layer.observability.handler import EventHandler, FileHandler
from data_layer.observability.known_secrets import secrets_of
from data_layer.observability.levels import set_level
from data_layer.observability.log_file import LogFile
from data_layer.observability.logger import EventLogger, hand_over_to_stdlib, logger_named
from data_layer.observability.masking import Masker
from data_layer.observability.rendering import ConsoleLines, render_json
from data_layer.observability.uncaught import log_uncaught_exceptions

if TYPE_CHECKING:
    from pathlib import Path

    from data_layer.config import Settings
    from data_layer.observability.events import Render

_PRINTING = frozenset({logging.StreamHandler, EventHandler, FileHandler})


def configure_logging(settings: Settings, *, stream: TextIO | None = None, to_file: bool = False) -> None:
    """Log this process to ``stream`` (by default the present ``sys.stderr``), as the settings say.

    Args:
        settings: level, shape, and the secrets that must not show.
        stream: where to.
        to_file: log to LOG_FILE as well, if it is set; for the service, because a file that an operator's command had
            made as root would be closed to it.

    Raises:
        ConfigurationError: when LOG_FILE cannot be written.

    For programs that own their process, such as the service and its commands: the library itself never calls it,
    so an application that imports the library keeps its own logging. Calling it again replaces the earlier
    configuration. Run uvicorn with ``log_config=None``, or it replaces the handlers of its loggers with its own.

    Besides structlog's, the records of the standard library's loggers arrive here, and Python's warnings. Handlers
    that others attached stay, unless they print to a stream; what other libraries log at level debug is left out.
    Exceptions that nobody catches are logged too, because Python would print their tracebacks as they are.
    """
    target = sys.stderr if stream is None else stream
    masker = Masker(secrets_of(settings))
    handlers: list[logging.Handler] = [EventHandler(target)]
    handlers[0].setFormatter(EventFormatter(masker, _renderer(settings, terminal=target.isatty())))
    if to_file and settings.log_file is not None:
        handlers.append(_file_handler(settings, settings.log_file))
        handlers[1].setFormatter(EventFormatter(masker, _renderer(settings, terminal=False)))
    _replace_printing_handlers(handlers)
    set_level(settings.log_level)
    _silence_access_log()
    logging.captureWarnings(capture=True)
    log_uncaught_exceptions()
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, hand_over_to_stdlib],
        wrapper_class=EventLogger,
        logger_factory=logger_named,
        # A cached logger would keep this configuration for ever, and tests could not capture what it logs.
        cache_logger_on_first_use=False,
    )


def _file_handler(settings: Settings, path: Path) -> FileHandler:
    file = LogFile(path.absolute(), maximum_size=settings.log_file_max_size, count=settings.log_file_count)
    file.open()
    return FileHandler(file)


def _renderer(settings: Settings, *, terminal: bool) -> Render:
    as_json = settings.log_format == "json" or (
        settings.log_format == "auto" and (settings.is_production or not terminal)
    )
    return render_json if as_json else ConsoleLines(colors=terminal and not os.environ.get("NO_COLOR"))


def _replace_printing_handlers(handlers: list[logging.Handler]) -> None:
    root = logging.getLogger()
    _remove_printing_handlers(root)
    for handler in handlers:
        root.addHandler(handler)
    for logger in list(root.manager.loggerDict.values()):
        if isinstance(logger, logging.Logger) and _remove_printing_handlers(logger):
            logger.propagate = True


def _remove_printing_handlers(logger: logging.Logger) -> bool:
    # Subclasses are left alone: collectors of events and of test output are among them.
    printing = [handler for handler in logger.handlers if type(handler) in _PRINTING]
    for handler in printing:
        logger.removeHandler(handler)
        if isinstance(handler, FileHandler):
            handler.close()
    return bool(printing)


def _silence_access_log() -> None:
    """The service logs one event of its own for each request; uvicorn then does not even format its line."""
    access = logging.getLogger("uvicorn.access")
    access.handlers.clear()
    access.propagate = False
