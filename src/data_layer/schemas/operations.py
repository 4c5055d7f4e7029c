"""How the service runs: health, maintenance, and what operators look at and change."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from data_layer.schemas.base import Value, View


class LogLevel(StrEnum):
    """What is logged: this and what is more serious."""

    ERROR = "error"
    WARN = "warn"
    INFO = "info"
    DEBUG = "debug"


class LogLevelChange(Value):
    """The level of a logger and of those below it, until a moment; ``until`` is None where that is open."""

    logger: str
    level: str
    until: datetime | None


class OperatingState(Value):
    """Where the tables stand, and what is logged.

    ``migrations`` is a state such as ``up_to_date``; ``revision`` is where the database is, ``head`` where this version
    needs it, and ``pending`` what is between them. ``log_level`` is the setting, which ``level_changes`` override.
    """

    migrations: str
    revision: str | None
    head: str | None
    pending: tuple[str, ...]
    log_level: str
    level_changes: tuple[LogLevelChange, ...]


class MaintenanceReport(View):
    """One round. In a dry run the numbers are what there is to do, those of entries to move about.

    ``is_complete`` is false when another process was at it, or something was kept for the next round because its
    tables were busy. ``objects_removed`` are those of the storage that nothing refers to any more, files and uploads
    aside. ``codes_packed`` were moved out of their rows, and ``code_bodies_removed`` are texts that no code has any
    more. ``variants_expired`` were still running when their writers stopped. ``projects_indexed`` had changed since a
    search indexed them. ``images_given_thumbnails`` were stored by processes that ended before they had made any.
    ``audit_triggers_restored`` are those that protect the audit trail and did not hold always.
    """

    is_dry_run: bool = False
    is_complete: bool = True
    sessions_removed: int = 0
    refresh_tokens_removed: int = 0
    api_keys_removed: int = 0
    session_changes_removed: int = 0
    idempotency_keys_removed: int = 0
    login_attempts_removed: int = 0
    projects_removed: int = 0
    variants_expired: int = 0
    generation_events_removed: int = 0
    mails_removed: int = 0
    exports_expired: int = 0
    exports_removed: int = 0
    projects_indexed: int = 0
    codes_packed: int = 0
    code_bodies_removed: int = 0
    files_expired: int = 0
    uploads_abandoned: int = 0
    objects_removed: int = 0
    images_given_thumbnails: int = 0
    audit_partitions_made: tuple[str, ...] = ()
    audit_partitions_dropped: tuple[str, ...] = ()
    audit_partitions_moved: tuple[str, ...] = ()
    audit_triggers_restored: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


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
