"""Whether the parts of the data layer work."""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, ConfigDict


class HealthStatus(StrEnum):
    """Healthy: all parts work. Degraded: only the cache does not, so everything works, but slower. Or unhealthy."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"


class PartHealth(BaseModel):
    """One part, as a probe saw it."""

    model_config = ConfigDict(frozen=True)

    healthy: bool
    latency_ms: float
    error_code: str | None = None
    error: str | None = None


class Health(BaseModel):
    """All parts, probed at the same moment; ``overall`` is true when all work."""

    model_config = ConfigDict(frozen=True)

    database: bool
    cache: bool
    storage: bool
    overall: bool
    status: HealthStatus
    parts: dict[str, PartHealth]
