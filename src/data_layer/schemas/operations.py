"""How the service runs: what operators look at, and change."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from data_layer.schemas.base import Value


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
