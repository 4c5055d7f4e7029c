"""Traces with OpenTelemetry: request, service call, and each statement, cache and storage operation below it.

Nothing here is imported while traces are off, but ``current``. Names of spans are static and attributes follow the
semantic conventions; SQL, values, keys, paths and tokens stand in none of them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from data_layer.errors import ConfigurationError
from data_layer.settings.observability import TracingSettings

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

    from data_layer.observability.tracing.tracing import Tracing


def open_tracing(
    settings: TracingSettings, correlation_id: Callable[[], str | None], given: TracerProvider | None = None
) -> Tracing | None:
    """Traces, if somebody wants them.

    The application's provider comes first: the one that it hands over, or the global one if it has set it. Without one
    the settings decide (ENABLE_TRACES, APPLICATIONINSIGHTS_CONNECTION_STRING), and the provider is ours alone.

    Raises:
        ConfigurationError: when the settings ask for traces and what they need is not installed, or unusable.
    """
    provider = given or _provider_of_application()
    if provider is not None:
        return _tracing(provider, correlation_id, None)
    if not settings.sends_traces:
        return None
    own = _make_provider(settings)
    return _tracing(own, correlation_id, own.shutdown)


def _provider_of_application() -> TracerProvider | None:
    # Without the module nobody can have set one; importing it here would cost every program its import.
    module: Any = sys.modules.get("opentelemetry.trace")
    if module is None:
        return None
    provider: TracerProvider = module.get_tracer_provider()
    return None if isinstance(provider, module.ProxyTracerProvider | module.NoOpTracerProvider) else provider


def _make_provider(settings: TracingSettings) -> Any:
    name = "ENABLE_TRACES" if settings.enable_traces else "APPLICATIONINSIGHTS_CONNECTION_STRING"
    try:
        sending = import_module("data_layer.observability.tracing.sending")
    except ImportError as error:
        raise ConfigurationError(
            f"{name} is set, but {error.name} is not installed: pip install 'data-layer[otel]', or remove {name}"
        ) from None
    return sending.make_provider(settings)


def _tracing(
    provider: TracerProvider, correlation_id: Callable[[], str | None], end: Callable[[], None] | None
) -> Tracing:
    # Here, because none of this is imported while traces are off.
    from data_layer.observability.tracing.tracing import Tracing

    return Tracing(provider, correlation_id, end)
