from __future__ import annotations

import io
import json
import logging
from typing import Any

from _pytest.logging import LogCaptureHandler

from data_layer import Settings
from data_layer.observability.configuration import configure_logging
from data_layer.observability.masking import secrets_of


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def settings(**values: Any) -> Settings:
    return Settings(_env_file=None, **values)


def log_as(settings: Settings, **options: Any) -> None:
    configure_logging(
        settings.log, secrets=secrets_of(settings.flat().values()), production=settings.is_production, **options
    )


def log_to_memory(stream: io.StringIO | None = None, **values: Any) -> io.StringIO:
    stream = io.StringIO() if stream is None else stream
    root = logging.getLogger()
    root.handlers = [handler for handler in root.handlers if not isinstance(handler, LogCaptureHandler)]
    log_as(settings(**values), stream=stream)
    return stream


def events(stream: io.StringIO) -> list[dict[str, Any]]:
    lines = stream.getvalue().split("\n")
    assert lines.pop() == ""
    return [json.loads(line) for line in lines]


def only_event(stream: io.StringIO) -> dict[str, Any]:
    [event] = events(stream)
    return event
