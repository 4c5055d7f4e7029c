"""One connection beside the pool that waits for PostgreSQL's notifications, and asks between them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Self

from psycopg import sql

from data_layer.database.address import DatabaseAddress
from data_layer.database.driver import DriverConnection, translated
from data_layer.database.observation import Observation
from data_layer.database.statements import DIALECT, NamedQuery
from data_layer.errors import DatabaseUnavailableError
from data_layer.settings.database import DatabaseSettings


class Listener:
    """A dedicated connection, for ``open`` and ``close``. It is never repaired: open another one.

    Behind PgBouncer in transaction mode nothing can be listened to; then only ``fetch_one`` and time are left.
    """

    def __init__(self, connection: DriverConnection, observation: Observation, *, listens: bool) -> None:
        self._connection = connection
        self._observation = observation
        self._listens = listens

    @classmethod
    async def open(
        cls,
        address: DatabaseAddress,
        settings: DatabaseSettings,
        channel: str,
        *,
        time_limit: float,
        observation: Observation | None = None,
    ) -> Self:
        """Connect and begin to listen.

        Args:
            address: where; best one that avoids PgBouncer.
            settings: how long connecting may take.
            channel: what to listen to.
            time_limit: seconds that the server may take for an answer.
            observation: receives what is asked; by default only the log is, of what is slow.

        Raises:
            DatabaseError: when it cannot be connected to.
        """
        listens = not (settings.db_pgbouncer and settings.db_direct_url is None)
        _, place = DIALECT.create_connect_args(address.url)
        limit = settings.db_connect_timeout * address.host_count
        with translated():
            connection = await DriverConnection.open(
                connect_limit=limit,
                time_limit=time_limit,
                first=address.first_statement,
                **{**place, **address.options},
            )
            try:
                if listens:
                    await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
            except BaseException:
                await connection.close()
                raise
        return cls(connection, observation or Observation(settings), listens=listens)

    async def close(self) -> None:
        """Close the connection. Harmless when it is broken."""
        await self._connection.close()

    async def fetch_one(self, statement: NamedQuery, parameters: Sequence[Any]) -> tuple[Any, ...]:
        """The one row that a statement gives.

        Raises:
            DatabaseError: when it cannot be had; the connection cannot be used again then.
        """
        with self._observation.timed((statement, parameters)), translated():
            cursor = await self._connection.execute(statement, parameters)
            row: tuple[Any, ...] | None = await cursor.fetchone()
        if row is None:
            raise DatabaseUnavailableError("PostgreSQL gave no row where there is always one; look at its log")
        return row

    async def wait(self, seconds: float) -> None:
        """Wait until a notification comes, or for so long.

        Raises:
            DatabaseError: when the connection broke meanwhile.
        """
        if not self._listens:
            await asyncio.sleep(seconds)
            return
        with translated():
            async for _ in self._connection.notifies(timeout=seconds, stop_after=1):
                pass
