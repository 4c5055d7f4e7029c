"""What to run, and the time limits that follow from its settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_layer import Settings

POSTGRESQL, REDIS, STORAGE = "PostgreSQL", "Redis", "storage"

SETTINGS: dict[str, Any] = {
    "environment": "testing",
    "bcrypt_rounds": 4,
    "session_limit": 1000,
    "db_max_connections": 6,
    "db_min_connections": 1,
    "redis_connect_timeout": 2000,
    "storage_connect_timeout": 2.0,
    "storage_timeout": 2.0,
    "storage_retries": 1,
    "audit_flush_interval": 0.2,
    "image_thumbnail_sizes": "64",
    "maintenance_interval": 0,
}

_DEFAULTS = {name: field.default for name, field in Settings.fields().items()}
_REQUESTS = {"upload": 2, "download": 2, "delete": 1}
"""To the storage, one after the other: what was stored and cannot be recorded is removed; a body follows its head."""


@dataclass(frozen=True)
class Plan:
    """What to run.

    Attributes:
        seconds: how long the load runs.
        replicas: processes with a data layer each, beside the service.
        storage: s3 (an S3 server behind a proxy that is made slow) or local (nothing is made slow).
        bound: seconds after a server's return within which the last error has been seen.
        allowance: seconds that an operation may take on a busy machine when all servers work.
        overrides: other settings than those above.
        sabotage: what to break, so that the checker can show that it notices.
        keep: a folder for the journals and the logs.
    """

    seconds: float = 60.0
    replicas: int = 3
    storage: str = "s3"
    bound: float = 5.0
    allowance: float = 10.0
    overrides: dict[str, Any] = field(default_factory=dict)
    sabotage: str | None = None
    keep: Path | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """What all processes have in common."""
        return SETTINGS | self.overrides

    def seconds_of(self, setting: str) -> float:
        """A time limit of the settings; those of Redis are in milliseconds."""
        value = float((_DEFAULTS | self.settings)[setting])
        return value / 1000 if setting.startswith("redis") else value

    def limit(self, kind: str, broken: set[str]) -> float:
        """Seconds within which an operation ends, well or with an error, while these servers are broken.

        PostgreSQL that is away or starting refuses at once. A caller waits for a connection of the pool
        (DB_POOL_TIMEOUT) and for its making (DB_CONNECT_TIMEOUT); a connection that turns out to be dead is replaced,
        once. An operation has two transactions at most when the first one fails.

        Redis: a command waits for a connection (REDIS_CONNECT_TIMEOUT) and twice REDIS_COMMAND_TIMEOUT; it is repeated
        once. A change informs it twice, before and after the commit.

        The storage: a request waits STORAGE_CONNECT_TIMEOUT and STORAGE_TIMEOUT, once more than STORAGE_RETRIES, with
        pauses of up to 0.1, 0.2, 0.4 … five seconds between.
        """
        limit = self.allowance
        if POSTGRESQL in broken:
            limit += 2 * 2 * (self.seconds_of("db_pool_timeout") + self.seconds_of("db_connect_timeout"))
        if REDIS in broken:
            command = self.seconds_of("redis_connect_timeout") + 2 * self.seconds_of("redis_command_timeout")
            limit += 2 * 2 * command
        if STORAGE in broken:
            limit += _REQUESTS.get(kind, 0) * self.patience_with_storage
        return limit

    @property
    def patience_with_storage(self) -> float:
        """Seconds after which one request to a silent storage is given up."""
        retries = int(self.settings["storage_retries"])
        attempt = self.seconds_of("storage_connect_timeout") + self.seconds_of("storage_timeout")
        return (retries + 1) * attempt + sum(min(5.0, 0.1 * 2.0**number) for number in range(retries))

    @property
    def time_of_silence(self) -> float:
        """Seconds for which the storage is silent: longer than its callers wait, whom connecting costs nothing."""
        return (int(self.settings["storage_retries"]) + 1) * self.seconds_of("storage_timeout") + 2.0

    @property
    def longest_limit(self) -> float:
        """That of the slowest operation when everything is broken."""
        return max(self.limit(kind, {POSTGRESQL, REDIS, STORAGE}) for kind in _REQUESTS)
