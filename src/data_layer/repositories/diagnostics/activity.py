"""What goes on in a PostgreSQL server that will hurt sooner or later."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from data_layer.database.replicas import parse_position
from data_layer.repositories.diagnostics.question import ask, ask_one

if TYPE_CHECKING:
    from data_layer.database.engine import Database

_AGES = """
SELECT max(age(datfrozenxid))::bigint AS transactions, max(mxid_age(datminmxid))::bigint AS groups FROM pg_database
"""
# Of sessions of other users an ordinary one sees no more than that they exist.
_LONG_TRANSACTIONS = """
SELECT pid, coalesce(application_name, '') AS application, state,
       extract(epoch FROM now() - xact_start)::int AS seconds
FROM pg_stat_activity
WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
AND xact_start < now() - make_interval(secs => %(seconds)s)
ORDER BY xact_start LIMIT 5
"""
_PREPARED_TRANSACTIONS = """
SELECT count(*)::int AS number FROM pg_prepared_xacts
WHERE database = current_database() AND prepared < now() - make_interval(secs => %(seconds)s)
"""
_SLOTS = """
SELECT slot_name AS name, active AS is_active, wal_status AS status,
       pg_wal_lsn_diff(
           CASE WHEN pg_is_in_recovery() THEN pg_last_wal_receive_lsn() ELSE pg_current_wal_lsn() END, restart_lsn
       )::bigint AS retained
FROM pg_replication_slots
"""
_WAITING = """
SELECT count(*)::int AS number, coalesce(max(extract(epoch FROM now() - waitstart)), 0)::int AS seconds
FROM pg_locks WHERE NOT granted AND waitstart < now() - interval '10 s'
"""
_POSITION = "SELECT pg_current_wal_flush_lsn()::text AS position"
_REPLAYED = "SELECT pg_is_in_recovery() AS is_standby, pg_last_wal_replay_lsn()::text AS position"
_PAUSE_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class LongTransaction:
    """One that has been open for long, and what its session does."""

    pid: int
    application: str
    state: str
    seconds: int


@dataclass(frozen=True, slots=True)
class Slot:
    """A replication slot, and how many bytes of the log the server keeps for it."""

    name: str
    is_active: bool
    status: str | None
    retained: int | None


async def read_ages(database: Database) -> tuple[int, int]:
    """How many transactions, and groups of lockers, ago the oldest row that is not frozen was written."""
    row = await ask_one(database, _AGES)
    return row["transactions"], row["groups"]


async def read_long_transactions(database: Database, seconds: float) -> list[LongTransaction]:
    """The oldest transactions of this database that are open for longer than ``seconds``."""
    return [LongTransaction(**row) for row in await ask(database, _LONG_TRANSACTIONS, {"seconds": seconds})]


async def count_prepared_transactions(database: Database, seconds: float) -> int:
    """How many transactions wait for a second COMMIT for longer than ``seconds``."""
    return int((await ask_one(database, _PREPARED_TRANSACTIONS, {"seconds": seconds}))["number"])


async def read_slots(database: Database) -> list[Slot]:
    """All replication slots of the server."""
    return [Slot(**row) for row in await ask(database, _SLOTS)]


async def count_waiting(database: Database) -> tuple[int, int]:
    """How many sessions wait for a lock for longer than ten seconds, and the longest wait in seconds."""
    row = await ask_one(database, _WAITING)
    return row["number"], row["seconds"]


async def measure_lag(primary: Database, replica: Database, patience: float) -> float | None:
    """Seconds until a replica shows what the primary has now, by positions in its log; None: longer than ``patience``.

    Raises:
        DatabaseError: one of them cannot be asked, or the replica is none.
    """
    wanted = parse_position((await ask_one(primary, _POSITION))["position"])
    started = time.monotonic()
    while True:
        row = await ask_one(replica, _REPLAYED)
        if row["position"] is not None and parse_position(row["position"]) >= wanted:
            return time.monotonic() - started
        if time.monotonic() - started > patience:
            return None
        await asyncio.sleep(_PAUSE_SECONDS)
