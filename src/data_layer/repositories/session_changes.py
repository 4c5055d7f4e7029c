"""The journal ``session_changes``, read from where the reader stopped: nothing is skipped, however late it commits.

A transaction that is open while somebody reads commits with a number that others have passed long ago, so numbers or
times alone would skip it. PostgreSQL's snapshots say exactly which transactions a reader knows: what is asked for is
what the snapshot of the reading before did not show.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from data_layer.database.listener import Listener
from data_layer.database.statements import NamedQuery
from data_layer.entities.triggers import SESSION_CHANNEL
from data_layer.errors import DatabaseUnavailableError

__all__ = ["MOST_CHANGES", "SESSION_CHANNEL", "ChangeBatch", "read_changes"]

MOST_CHANGES = 50_000
"""More changes than this are not read at once; the reader does without them, and believes no older copy."""

# What a snapshot does not show: transactions that were under way then, and those that began later. Asked for in these
# two parts, so that the rows of a transaction that it shows are not looked at again while an older one stays open.
_READ = NamedQuery(
    "session_changes.read",
    """
SELECT pg_is_in_recovery(), pg_postmaster_start_time()::text, extract(epoch FROM clock_timestamp())::float8,
    pg_current_snapshot()::text, pg_snapshot_xmin(pg_current_snapshot())::text::bigint,
    pg_snapshot_xmax(pg_current_snapshot())::text::bigint, changes.sessions, changes.transactions
FROM (
    SELECT array_agg(session_id) AS sessions, array_agg(transaction_id) AS transactions
    FROM (
        (
            SELECT session_id, transaction_id FROM session_changes
            WHERE transaction_id = ANY (ARRAY(SELECT pg_snapshot_xip(%s::pg_snapshot)::text::bigint)) LIMIT %s
        )
        UNION ALL
        (
            SELECT session_id, transaction_id FROM session_changes
            WHERE transaction_id >= pg_snapshot_xmax(%s::pg_snapshot)::text::bigint ORDER BY transaction_id LIMIT %s
        )
        ORDER BY transaction_id LIMIT %s
    ) AS news
) AS changes
""",
)
# So that a reader who knows nothing asks for nothing.
_EVERYTHING = f"{2**62 - 1}:{2**62 - 1}:"


@dataclass(frozen=True, slots=True)
class ChangeBatch:
    """What one reading of the journal showed.

    ``server`` names the run of the server, ``clock`` is its time in seconds since 1970, ``snapshot`` is what the next
    reading begins from; all transactions before ``oldest`` had ended, and none from ``next_one`` on had begun.
    ``changes`` holds sessions with the latest transaction that changed them; ``None``: too many to list.
    """

    server: str
    clock: float
    snapshot: str
    oldest: int
    next_one: int
    changes: Mapping[UUID, int] | None


async def read_changes(listener: Listener, known: str | None) -> ChangeBatch:
    """Read what the snapshot of the reading before did not show; without one only where the journal stands.

    Raises:
        DatabaseError: when the journal cannot be read, or the server is a replica that may lag behind.
    """
    known = known or _EVERYTHING
    most = MOST_CHANGES + 1
    row = await listener.fetch_one(_READ, (known, most, known, most, most))
    is_replica, server, clock, snapshot, oldest, next_one, sessions, transactions = row
    if is_replica:
        raise DatabaseUnavailableError("this PostgreSQL is a replica; sessions are checked on the primary server")
    return ChangeBatch(server, clock, snapshot, oldest, next_one, _changes(sessions or [], transactions or []))


def _changes(sessions: list[Any], transactions: list[int]) -> dict[UUID, int] | None:
    # In the order of transactions, so that the latest stays.
    return None if len(sessions) > MOST_CHANGES else dict(zip(sessions, transactions, strict=True))
