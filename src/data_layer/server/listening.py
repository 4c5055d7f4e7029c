"""The listening socket of the service."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from data_layer.errors import ConfigurationError

if TYPE_CHECKING:
    from data_layer.config import Settings

_BACKLOG = 2048


def listen(settings: Settings) -> socket.socket:
    """Take HOST and PORT, before anything else is started: a taken port is found at once.

    Raises:
        ConfigurationError: when they cannot be had.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=_BACKLOG)
    except OSError as error:
        # What the socket module adds is the address, once more.
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        raise ConfigurationError(
            f"cannot listen on {authority(settings)} ({reason}); stop what uses it, or set HOST and PORT to others"
        ) from None


def authority(settings: Settings) -> str:
    """Host and port as they stand in a URL."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"{host}:{settings.port}"
