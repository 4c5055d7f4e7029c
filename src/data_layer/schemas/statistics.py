"""Figures about the data layer. Sizes are in bytes."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """A value that does not change."""

    model_config = ConfigDict(frozen=True)


class PoolStatistics(Frozen):
    """The connections of this process."""

    maximum: int
    in_use: int
    idle: int


class TableStatistics(Frozen):
    """One table; ``rows`` is PostgreSQL's estimate."""

    name: str
    rows: int
    size: int
    index_size: int


class DatabaseStatistics(Frozen):
    """The database and its server."""

    name: str
    server: str
    size: int
    connections: int
    connection_limit: int
    started_at: datetime
    pool: PoolStatistics
    tables: tuple[TableStatistics, ...]


class FileStatistics(Frozen):
    """The storage; ``free_size`` is missing where the backend has no limit."""

    backend: str
    file_count: int
    total_size: int
    free_size: int | None
