"""Whether the parts of the data layer work."""

from __future__ import annotations

from enum import StrEnum

from data_layer.schemas.base import Value


class HealthStatus(StrEnum):
    """Healthy: all parts work. Degraded: only the cache does not, so everything works, but slower. Or unhealthy."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"


class PartHealth(Value):
    """One part, as a probe saw it."""

    healthy: bool
    latency_ms: float
    error_code: str | None = None
    error: str | None = None


class Health(Value):
    """All parts, probed at the same moment; ``overall`` is true when all work."""

    database: bool
    cache: bool
    storage: bool
    overall: bool
    status: HealthStatus
    parts: dict[str, PartHealth]
