"""The settings of what an operator observes: log, metrics, traces and audit trail; parts of ``Settings``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from data_layer.settings.part import ANY_CASE, OwnHost, Port, SettingsPart


def _not_a_folder(path: Path) -> Path:
    if os.path.isdir(os.path.expanduser(path)):  # noqa: PTH111, PTH112  (pathlib raises where there is no such home)
        raise ValueError("is a folder; name a file in it")
    return path


def _understand_warning(value: Any) -> Any:
    return "warn" if value == "warning" else value


class LogSettings(SettingsPart):
    """What is logged, in which shape, and where to in addition to standard error."""

    # The log
    log_level: Annotated[Literal["error", "warn", "info", "debug"], BeforeValidator(_understand_warning), ANY_CASE] = (
        Field(
            "info",
            description="Least severe level that is logged; the command `data-layer logs level` changes it while the "
            "service runs.",
        )
    )
    log_format: Annotated[Literal["auto", "json", "console"], ANY_CASE] = Field(
        "auto", description="json, console, or auto: JSON in production and wherever the output is not a terminal."
    )
    log_file: Annotated[Path, AfterValidator(_not_a_folder)] | None = Field(
        None, description="File that the service also logs to, in addition to standard error; its processes share it."
    )
    log_file_max_size: int = Field(52_428_800, ge=0, description="Bytes after which LOG_FILE is rotated; 0: never.")
    log_file_count: int = Field(5, ge=1, le=1000, description="Older files that are kept: LOG_FILE.1 is the youngest.")


class MetricsSettings(SettingsPart):
    """Where Prometheus asks."""

    # Metrics
    enable_metrics: bool = Field(
        True, description="Serve metrics for Prometheus: GET /metrics on an address of its own, without a login."
    )
    metrics_host: OwnHost = Field(
        "127.0.0.1",
        description="Address for metrics. In a pod: 0.0.0.0, with a network policy that lets only Prometheus in. They "
        "hold no data of users, but show everybody who can ask how busy the service is.",
    )
    metrics_port: Port = Field(9090, description="Port for metrics.")


class TracingSettings(SettingsPart):
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


class AuditSettings(SettingsPart):
    """How audit entries wait, and how long they, events of generations and deleted projects are kept."""

    # The audit trail
    audit_flush_interval: float = Field(
        1.0, gt=0, le=60, description="Seconds after which collected audit entries are written."
    )
    audit_buffer_size: int = Field(50_000, ge=100, le=1_000_000, description="Audit entries that may wait in memory.")
    audit_spill_folder: Path | None = Field(
        None, description="Folder, one per database, for audit entries that wait. Default: audit-spill in DATA_FOLDER."
    )
    audit_spill_limit: int = Field(
        268_435_456, ge=0, description="Largest size of that folder, in bytes; what comes after is lost, and counted."
    )
    audit_retention_months: int = Field(
        24, ge=0, le=1200, description="Whole months for which audit entries are kept; 0: for ever."
    )
    generation_event_retention: int = Field(
        90, ge=0, le=36_500, description="Days for which events of generations (thinking, tools) are kept; 0: for ever."
    )
    maintenance_interval: float = Field(
        3600, ge=0, le=86_400, description="Seconds between two rounds of maintenance by the service; 0: none."
    )
    trash_retention: int = Field(
        30,
        ge=0,
        le=36_500,
        description="Days for which the deletion of a project can be undone, before maintenance removes it with its "
        "files; 0: for ever.",
    )
