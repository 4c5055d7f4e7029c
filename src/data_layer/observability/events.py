"""A log record of any logger becomes one event, a flat dictionary in a fixed order, and then text."""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache, lru_cache
from typing import Any

import orjson
import structlog
from structlog.dev import ConsoleRenderer, plain_traceback

from data_layer.context import current_correlation_id
from data_layer.errors import DataLayerError
from data_layer.observability.log import FIELDS, LoggedEvent
from data_layer.observability.masking import Masker
from data_layer.observability.tracing.current import current_trace_fields

Event = dict[str, Any]
Render = Callable[[Event], str]

_FRAMES = 40
_ATTRIBUTES_OF_EVERY_RECORD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
# uvicorn adds its message a second time, with colours in it.
_UNWANTED_ATTRIBUTES = _ATTRIBUTES_OF_EVERY_RECORD | {"color_message"}


class EventFormatter(logging.Formatter):
    """Turns records into lines: collects what belongs to the event, masks secrets, renders."""

    def __init__(self, masker: Masker, render: Render) -> None:
        super().__init__()
        self._masker = masker
        self._render = render

    def format(self, record: logging.LogRecord) -> str:
        """The line of one record; a record that cannot be formatted still gives a line that says so."""
        stamp = _stamp(record.created, record.levelname.lower())
        try:
            return self._finish(stamp, _event_of(record))
        except Exception as error:  # noqa: BLE001  (a log call never raises into the application)
            return self._failed(stamp, record.name, error)

    def line(self, event: LoggedEvent) -> str:
        """The line of an event of ours: the same as that of its record."""
        stamp = _stamp(event.created, _level_name(event.level))
        try:
            fields = structlog.contextvars.get_contextvars() | event.fields
            return self._finish(stamp, _event(event.name, event.logger, fields, event.error))
        except Exception as error:  # noqa: BLE001  (a log call never raises into the application)
            return self._failed(stamp, event.logger, error)

    def _finish(self, stamp: Event, event: Event) -> str:
        # What we have written ourselves holds no secret.
        return self._render(stamp | self._masker.event(event))

    def _failed(self, stamp: Event, logger: str, error: Exception) -> str:
        head = stamp | {"event": "log_event_unformattable", "logger": logger}
        return self._render(head | {"reason": type(error).__name__})


def _event_of(record: logging.LogRecord) -> Event:
    error = record.exc_info[1] if record.exc_info else None
    event = _event(_message(record), record.name, _fields(record), error)
    if record.stack_info:
        event["stack"] = record.stack_info
    return event


def _event(name: str, logger: str, fields: Event, error: BaseException | None) -> Event:
    event: Event = {"event": name, "logger": logger}
    if (request := current_correlation_id()) is not None:
        event["correlation_id"] = fields.pop("correlation_id", request)
    event |= current_trace_fields()
    taken = (event.keys() | _STAMPED) & fields.keys()
    event |= {f"{name}_" if name in taken else name: value for name, value in fields.items()} if taken else fields
    if error is not None:
        event["exception"] = _describe_exception(error)
    return event


_STAMPED = frozenset({"timestamp", "level"})


def _stamp(created: float, level: str) -> Event:
    microseconds = round(created * 1e6)
    moment = f"{_second(microseconds // 1_000_000)}.{microseconds % 1_000_000:06}Z"
    return {"timestamp": moment, "level": level}


@cache
def _level_name(number: int) -> str:
    return logging.getLevelName(number).lower()


@lru_cache(maxsize=4)
def _second(number: int) -> str:
    return datetime.fromtimestamp(number, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001  (arguments that do not fit the message, or whose text cannot be made)
        return record.msg if isinstance(record.msg, str) else f"<{type(record.msg).__name__}>"


def _fields(record: logging.LogRecord) -> Event:
    """What structlog handed over, or what other libraries attached to a record by ``extra``, with the context."""
    fields: Event | None = record.__dict__.get(FIELDS)
    if fields is not None:
        return structlog.contextvars.get_contextvars() | fields
    extra = {name: value for name, value in record.__dict__.items() if name not in _UNWANTED_ATTRIBUTES}
    return structlog.contextvars.get_contextvars() | extra


def _describe_exception(error: BaseException) -> dict[str, str]:
    description = {"type": f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")}
    if isinstance(error, DataLayerError):
        description["code"] = error.code
    return description | {"message": _text_of(error), "traceback": _traceback_of(error)}


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001  (foreign code)
        return "<unreadable>"


def _traceback_of(error: BaseException) -> str:
    try:
        # Without local variables: they hold passwords under any name.
        return "".join(traceback.format_exception(error, limit=-_FRAMES))
    except Exception:  # noqa: BLE001  (foreign code: notes and causes can be anything)
        return "<unreadable>"


_INDENTATION = "  | "


def render_json(event: Event) -> str:
    """One event as one line of JSON."""
    try:
        return orjson.dumps(event).decode()
    except orjson.JSONEncodeError:
        return json.dumps(event, default=repr)


class ConsoleLines:
    """One event as a line of columns; traceback lines follow, indented.

    Whatever is not printable is escaped, in values by repr: a line break or an escape sequence from a user can neither
    begin a line that looks like another event nor paint over one.
    """

    def __init__(self, *, colors: bool) -> None:
        # Rich's tracebacks show local variables, so the plain ones of the event are used.
        self._columns = ConsoleRenderer(
            colors=colors, sort_keys=False, repr_native_str=True, exception_formatter=plain_traceback
        )

    def __call__(self, event: Event) -> str:
        """Render one event."""
        blocks = [event.get("exception", {}).get("traceback", ""), event.get("stack", "")]
        head = {name: _printable(event[name]) for name in ("timestamp", "level", "event", "logger")}
        fields = {
            _printable(name): value
            for name, value in event.items()
            if name not in head and name not in {"exception", "stack"}
        }
        return "".join([str(self._columns(None, "", head | fields)), *map(_indented, blocks)])


def _printable(text: str) -> str:
    return text if text.isprintable() else repr(text)[1:-1]


def _indented(block: str) -> str:
    return "".join(f"\n{_INDENTATION}{_printable(line.expandtabs(4))}" for line in block.rstrip().split("\n") if line)
