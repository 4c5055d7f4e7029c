"""Events as text: JSON for machines, aligned columns for people."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import orjson
from structlog.dev import ConsoleRenderer, plain_traceback

if TYPE_CHECKING:
    from data_layer.observability.events import Event

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
