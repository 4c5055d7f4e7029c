"""The settings of traces: a part of ``Settings``."""

from __future__ import annotations

from pydantic import BaseModel, Field, SecretStr


class TracingSettings(BaseModel):
    """Where traces go."""

    # Traces, OpenTelemetry; needs data-layer[otel]
    enable_traces: bool = Field(
        default=False,
        description="Send traces with OTLP over HTTP, to where OpenTelemetry's own variables say "
        "(OTEL_EXPORTER_OTLP_ENDPOINT, by default http://localhost:4318; OTEL_TRACES_SAMPLER …).",
    )
    applicationinsights_connection_string: SecretStr | None = Field(
        None, description="Send traces to Application Insights, too; needs data-layer[otel,azure-monitor]."
    )

    @property
    def sends_traces(self) -> bool:
        """Whether traces are to be sent anywhere."""
        return self.enable_traces or self.applicationinsights_connection_string is not None
