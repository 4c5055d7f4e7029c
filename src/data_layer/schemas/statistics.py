"""Figures about the data layer. Sizes are in bytes."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from data_layer.schemas.base import Value


class PoolStatistics(Value):
    """The connections of this process."""

    maximum: int
    in_use: int
    idle: int


class ServerStatistics(Value):
    """The server and what happens in the database, as its counters show; they begin at ``counted_since``.

    ``connections`` are those to this database, ``server_connections`` those that count against ``connection_limit``.
    ``hit_rate`` is the share of blocks that PostgreSQL had in memory. Without the right to see everything
    (``sees_everything``) the states of other accounts' connections are ``hidden``.
    """

    name: str
    server: str
    role: str
    sees_everything: bool
    is_standby: bool
    started_at: datetime
    connections: int
    connections_by_state: dict[str, int]
    server_connections: int
    connection_limit: int
    waiting_for_locks: int
    longest_transaction_seconds: float | None
    commits: int
    rollbacks: int
    deadlocks: int
    hit_rate: float | None
    temporary_size: int
    counted_since: datetime | None


class TableStatistics(Value):
    """One table, its partitions included. ``rows`` and ``dead_rows`` are PostgreSQL's estimates."""

    name: str
    rows: int
    dead_rows: int
    size: int
    index_size: int
    vacuumed_at: datetime | None
    analyzed_at: datetime | None


class UnusedIndex(Value):
    """An index that no statement has used since the counters of this server began, and that keeps no rule."""

    name: str
    table: str
    size: int


class StatementStatistics(Value):
    """One statement as pg_stat_statements keeps it: without values. Durations are in milliseconds."""

    statement: str
    calls: int
    total_ms: float
    mean_ms: float
    maximum_ms: float
    rows: int


class StandbyStatistics(Value):
    """One server that receives the log of this one; ``None`` is what this role may not see."""

    name: str | None
    address: str | None
    state: str | None
    synchronous: str | None
    lag_size: int | None
    lag_seconds: float | None


class SlotStatistics(Value):
    """One replication slot, and how much log the server keeps for it: an inactive one fills the disk in the end."""

    name: str
    is_active: bool
    kept_size: int | None


class ReplicaStatistics(Value):
    """One server of DB_REPLICA_HOSTS, as this process sees it; it is at most ``lag_seconds`` behind."""

    address: str
    is_used: bool
    lag_seconds: float | None


class DatabaseStatistics(ServerStatistics):
    """The database. What could not be asked is ``None``, and ``notes`` says why, by the name of the field.

    ``statements`` are those of this database that took the most time in all.
    """

    pool: PoolStatistics
    size: int | None
    tables: tuple[TableStatistics, ...] | None
    unused_indexes: tuple[UnusedIndex, ...] | None
    statements: tuple[StatementStatistics, ...] | None
    standbys: tuple[StandbyStatistics, ...] | None
    slots: tuple[SlotStatistics, ...] | None
    replicas: tuple[ReplicaStatistics, ...]
    notes: dict[str, str]


class FileUsage(Value):
    """How many objects of one kind there are, and what they take."""

    name: str
    count: int
    size: int
    stored_size: int


class StoredStatistics(Value):
    """What the table of files says. Of a large table a sample is read: then all figures are estimates.

    Only the largest types and owners are named; an owner is the id of a user, or ``system``.
    """

    is_estimate: bool
    file_count: int
    total_size: int
    by_type: tuple[FileUsage, ...]
    by_owner: tuple[FileUsage, ...]
    by_state: tuple[FileUsage, ...]


class FileStatistics(Value):
    """The storage. ``free_size`` is missing where the backend has no limit; ``notes`` says why something else is."""

    backend: str
    is_estimate: bool = False
    file_count: int | None = None
    total_size: int | None = None
    free_size: int | None = None
    by_type: tuple[FileUsage, ...] = ()
    by_owner: tuple[FileUsage, ...] = ()
    by_state: tuple[FileUsage, ...] = ()
    notes: dict[str, str] = Field(default_factory=dict)


class FigureSample(Value):
    """What the charts of the console show of one moment; ``None`` is what could not be asked.

    ``commits`` counts up. ``process`` recorded it; ``cache_hit_rate``, ``near_size`` and ``latency_ms`` are its own.
    """

    taken_at: datetime
    process: str
    database_size: int | None = None
    connections: int | None = None
    block_hit_rate: float | None = None
    commits: int | None = None
    waiting_for_locks: int | None = None
    cache_size: int | None = None
    cache_hit_rate: float | None = None
    keys: int | None = None
    near_size: int | None = None
    latency_ms: float | None = None
    stored_size: int | None = None
    file_count: int | None = None
    free_size: int | None = None
