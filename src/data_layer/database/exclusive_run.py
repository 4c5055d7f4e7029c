"""Lets one process at a time do a piece of work in a database, also through PgBouncer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from data_layer.database.engine import Database
from data_layer.database.statements import Sql
from data_layer.database.transaction import Transaction

_STAY = Sql("exclusive_run.stay", "SELECT set_config('idle_in_transaction_session_timeout', '0', true)")
_LOCK = Sql("exclusive_run.lock", "SELECT pg_try_advisory_xact_lock(%s)")


@asynccontextmanager
async def exclusive_run(database: Database, key: int) -> AsyncIterator[bool]:
    """Whether this process has the lock, which it holds until the block ends, or its connection breaks.

    The lock belongs to a transaction that does nothing else: it has no snapshot, so it keeps nothing from being cleaned
    up, and PgBouncer leaves it its connection.
    """
    transaction = Transaction(database)
    transaction.open()
    try:
        _, [(is_locked,)] = await transaction.run([(_STAY, None), (_LOCK, (key,))])
        yield is_locked
    finally:
        await transaction.close()
