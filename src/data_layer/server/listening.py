"""The listening sockets of the service."""

from __future__ import annotations

import os
import socket

from data_layer.errors import ConfigurationError
from data_layer.settings.observability import MetricsSettings
from data_layer.settings.service import ServiceSettings

_BACKLOG = 2048
_OWN = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  (what to open where all addresses are listened on)


def listen(settings: ServiceSettings) -> socket.socket:
    """Take HOST and PORT, before anything else is started: a taken port is found at once.

    Raises:
        ConfigurationError: when they cannot be had.
    """
    return _take(settings.host, settings.port, "HOST and PORT to others")


def listen_for_metrics(settings: MetricsSettings) -> socket.socket | None:
    """Take METRICS_HOST and METRICS_PORT, if metrics are to be served.

    Raises:
        ConfigurationError: when they cannot be had.
    """
    if not settings.enable_metrics:
        return None
    otherwise = "METRICS_HOST and METRICS_PORT to others, or ENABLE_METRICS=false"
    return _take(settings.metrics_host, settings.metrics_port, otherwise)


def _take(host: str, port: int, otherwise: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        # What the socket module adds is the address, once more.
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        raise ConfigurationError(
            f"cannot listen on {_written(host, port)} ({reason}); stop what uses it, or set {otherwise}"
        ) from None


def authority(settings: ServiceSettings) -> str:
    """Host and port as they stand in a URL."""
    return _written(settings.host, settings.port)


def nearby_url(settings: ServiceSettings) -> str:
    """Where a browser on this computer finds the service.

    Browsers keep the cookie of a session over HTTP only for this computer's own address, and 0.0.0.0 is none.
    """
    return f"http://{_written(_OWN.get(settings.host, settings.host), settings.port)}"


def metrics_authority(settings: MetricsSettings) -> str:
    """Host and port for metrics, as they stand in a URL."""
    return _written(settings.metrics_host, settings.metrics_port)


def _written(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
