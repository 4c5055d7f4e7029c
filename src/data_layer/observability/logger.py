"""The logger that structlog hands out: a stdlib logger underneath, and a call that never raises."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import structlog

from data_layer.observability.log import FIELDS

if TYPE_CHECKING:
    from structlog.typing import EventDict

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
