"""A provider of our own, which sends spans with OTLP, to Application Insights, or both.

Where OTLP goes, how much is sampled and how long spans are collected is said by the standard variables of OpenTelemetry
(OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_TRACES_SAMPLER, OTEL_BSP_SCHEDULE_DELAY …), which its SDK reads itself. Spans are
sent by threads of the SDK: when a receiver is slow or gone, they are dropped, and nobody waits.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter

from data_layer.errors import ConfigurationError

if TYPE_CHECKING:
    from pydantic import SecretStr

    from data_layer.settings.observability import TracingSettings

_DEFAULT_NAME = "data-layer"

# Figures about the exporter's use, and questions for remote settings, would go to addresses of Microsoft that no
# operator has named, from threads that nothing ends. To have them, set these to false.
_TALKATIVE = (
    "APPLICATIONINSIGHTS_STATSBEAT_DISABLED_ALL",
    "APPLICATIONINSIGHTS_SDKSTATS_DISABLED",
    "APPLICATIONINSIGHTS_CONTROLPLANE_DISABLED",
)
# They log each delivery at level info, with all its headers.
_NOISY = ("azure.core.pipeline.policies.http_logging_policy", "azure.monitor.opentelemetry.exporter")


def make_provider(settings: TracingSettings) -> TracerProvider:
    """A provider that sends to what the settings name.

    Raises:
        ConfigurationError: when that cannot be done.
    """
    names = {} if _names_service() else {SERVICE_NAME: _DEFAULT_NAME}
    # Not at the interpreter's end, when nothing limits it any more.
    provider = TracerProvider(resource=Resource.create(names), shutdown_on_exit=False)
    # Before the other one, because it may refuse, and processors have threads.
    if settings.applicationinsights_connection_string is not None:
        exporter = _application_insights(settings.applicationinsights_connection_string, provider)
        provider.add_span_processor(BatchSpanProcessor(exporter))
    if settings.enable_traces:
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


def _names_service() -> bool:
    return "OTEL_SERVICE_NAME" in os.environ or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")


def _application_insights(connection_string: SecretStr, provider: TracerProvider) -> SpanExporter:
    for name in _TALKATIVE:
        os.environ.setdefault(name, "true")
    for name in _NOISY:
        if logging.getLogger(name).level == logging.NOTSET:
            logging.getLogger(name).setLevel(logging.WARNING)
    try:
        from azure.monitor.opentelemetry.exporter import AzureMonitorTraceExporter
    except ImportError:
        raise ConfigurationError(
            "APPLICATIONINSIGHTS_CONNECTION_STRING is set, but its exporter is not installed: "
            "pip install 'data-layer[otel,azure-monitor]', or remove the variable"
        ) from None
    try:
        # Unsent spans are not kept on the disk: they would stay there, and a read-only disk has no place for them.
        return AzureMonitorTraceExporter(
            connection_string=connection_string.get_secret_value(),
            disable_offline_storage=True,
            tracer_provider=provider,
        )
    except ValueError:  # Its text may hold the key.
        raise ConfigurationError(
            "APPLICATIONINSIGHTS_CONNECTION_STRING cannot be used; copy it from the resource's overview in the "
            "Azure portal: InstrumentationKey=…;IngestionEndpoint=https://…"
        ) from None
