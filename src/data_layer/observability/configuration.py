"""Send every log line of the process, of any logger, through one pipeline."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict

from data_layer.observability.events import ConsoleLines, EventFormatter, Render, render_json
from data_layer.observability.levels import set_level
from data_layer.observability.log import FIELDS, get_log
from data_layer.observability.log_file import FileHandler, LogFile, StreamHandler
from data_layer.observability.masking import Masker
from data_layer.settings.observability import LogSettings

_PRINTING = frozenset({logging.StreamHandler, StreamHandler, FileHandler})


def configure_logging(
    settings: LogSettings,
    *,
    secrets: Sequence[str],
    production: bool,
    stream: TextIO | None = None,
    to_file: bool = False,
) -> None:
    """Log this process to ``stream`` (by default the present ``sys.stderr``), as the settings say.

    Args:
        settings: level and shape.
        secrets: what must not show, from `secrets_of`.
        production: whether LOG_FORMAT=auto means JSON on a terminal, too.
        stream: where to.
        to_file: log to LOG_FILE as well, if it is set; for the service, because a file that an operator's command had
            made as root would be closed to it.

    Raises:
        ConfigurationError: when LOG_FILE cannot be written.

    For programs that own their process, such as the service and its commands: the library itself never calls it,
    so an application that imports the library keeps its own logging. Calling it again replaces the earlier
    configuration. Run uvicorn with ``log_config=None``, or it replaces the handlers of its loggers with its own.

    The records of the standard library's loggers arrive here too, and Python's warnings. Handlers that others attached
    stay, unless they print to a stream; what other libraries log at level debug is left out.
    Exceptions that nobody catches are logged too, because Python would print their tracebacks as they are.
    """
    target = sys.stderr if stream is None else stream
    masker = Masker(secrets)

    def formatter(*, terminal: bool) -> EventFormatter:
        return EventFormatter(masker, _renderer(settings.log_format, production=production, terminal=terminal))

    handlers: list[logging.Handler] = [StreamHandler(formatter(terminal=target.isatty()), target)]
    if to_file and settings.log_file is not None:
        handlers.append(_file_handler(formatter(terminal=False), settings, settings.log_file))
    _replace_printing_handlers(handlers)
    set_level(settings.log_level)
    _silence_access_log()
    # Each call of an issuer would be a line with its whole address, which may name a person.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logging.captureWarnings(capture=True)
    # No line of ours shows them, and finding them out costs as much as the rest of a record.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    log_uncaught_exceptions()
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, hand_over_to_stdlib],
        wrapper_class=EventLogger,
        logger_factory=logger_named,
        # A cached logger would keep this configuration for ever, and tests could not capture what it logs.
        cache_logger_on_first_use=False,
    )


def _file_handler(formatter: EventFormatter, settings: LogSettings, path: Path) -> FileHandler:
    file = LogFile(path.absolute(), maximum_size=settings.log_file_max_size, count=settings.log_file_count)
    file.open()
    return FileHandler(formatter, file)


def _renderer(form: str, *, production: bool, terminal: bool) -> Render:
    as_json = form == "json" or (form == "auto" and (production or not terminal))
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


_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "exception": logging.ERROR,
    "critical": logging.CRITICAL,
}
_FRAMES_OF_STRUCTLOG = 5


class EventLogger(structlog.stdlib.BoundLogger):
    """Asks the stdlib logger for its level each time, so that levels can change while the process runs."""

    def log(self, level: int, event: str | None = None, *args: Any, **kw: Any) -> Any:
        """Log at a numeric level; one without a method of its own counts as the next lower that has one."""
        name = max((number, name) for name, number in _LEVELS.items() if number <= max(level, logging.DEBUG))[1]
        return self._proxy_to_logger(name, event, *args, **kw)

    def _proxy_to_logger(self, method_name: str, event: str | None = None, *event_args: Any, **event_kw: Any) -> None:
        try:
            if self._logger.isEnabledFor(_LEVELS[method_name]):
                super()._proxy_to_logger(method_name, event, *event_args, **event_kw)
        except Exception:
            with suppress(Exception):
                logging.getLogger(__name__).exception("log_event_lost", extra={FIELDS: {"lost": event}})


def logger_named(name: str = "data_layer", *_: Any) -> logging.Logger:
    """The stdlib logger below a structlog logger."""
    return logging.getLogger(name)


def hand_over_to_stdlib(_logger: Any, _method: str, event: EventDict) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Turn an event into the arguments of a stdlib logging call: last of structlog's processors."""
    arguments = event.pop("positional_args", ())
    keywords = {name: event.pop(name) for name in ("exc_info", "stack_info") if name in event}
    message = event.pop("event", "")
    return (message, *arguments), {"extra": {FIELDS: event}, "stacklevel": _FRAMES_OF_STRUCTLOG, **keywords}


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
