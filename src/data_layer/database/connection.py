"""The driver's own connection for single statements that belong to no transaction of a caller."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncConnection

from data_layer.concurrency import uninterrupted
from data_layer.database.driver import DriverConnection
from data_layer.database.engine import Database, discard, driver_of
from data_layer.database.failures import translated


@asynccontextmanager
async def driver_connection(database: Database) -> AsyncIterator[DriverConnection]:
    """A connection of the pool, in autocommit mode; it goes back clean, or not at all.

    Raises:
        DataLayerError: for what the driver raises inside.
    """
    connection = await database.connect()
    try:
        with translated():
            yield driver_of(connection)
    finally:
        await uninterrupted(_release(database, connection))


async def _release(database: Database, connection: AsyncConnection) -> None:
    if not connection.invalidated and driver_of(connection).is_idle:
        await database.give_back(connection)
    else:
        await discard(connection)
