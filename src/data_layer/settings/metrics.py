"""The settings of metrics: a part of ``Settings``."""

from __future__ import annotations

from pydantic import BaseModel, Field

from data_layer.settings.values import OwnHost, Port


class MetricsSettings(BaseModel):
    """Where Prometheus asks."""

    # Metrics
    enable_metrics: bool = Field(
        True, description="Tell metrics to Prometheus: GET /metrics on an address of its own, without a login."
    )
    metrics_host: OwnHost = Field(
        "127.0.0.1",
        description="Address for metrics. In a pod: 0.0.0.0, with a network policy that lets only Prometheus in. They "
        "hold no data of users, but tell everybody who can ask how busy the service is.",
    )
    metrics_port: Port = Field(9090, description="Port for metrics.")
