"""What a transaction needs of the database that it is for: the primary, or whatever is fresh enough to be read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import psycopg
    from sqlalchemy import Dialect
    from sqlalchemy.ext.asyncio import AsyncConnection

    from data_layer.database.observation import Observation
    from data_layer.database.statements import Statement


class ConnectionSource(Protocol):
    """Lends connections, and says how transactions on them begin."""

    is_read_only: bool
    """Whether changes are refused."""

    tells_position: bool
    """Whether it has to be known where PostgreSQL's log was after a commit."""

    reads_need_transaction: bool
    begin_statements: tuple[Statement, ...]
    logs_statements: bool

    observation: Observation
    """Receives what happens on its connections."""

    @property
    def dialect(self) -> Dialect:
        """How SQLAlchemy speaks to the server."""
        ...

    async def connect(self) -> AsyncConnection:
        """A connection that is alive as far as can be seen without asking the server.

        Raises:
            PoolTimeoutError: when none became free in time.
            DatabaseUnavailableError: when a new one cannot be made.
        """
        ...

    async def give_back(self, connection: AsyncConnection) -> None:
        """Take a connection back that is between transactions."""
        ...

    def can_take_back(self, connection: AsyncConnection) -> bool:
        """Whether ``give_back`` puts this connection into a pool before it waits for anything."""
        ...

    def leave_replicas(self) -> bool:
        """Take further connections from the primary; whether they may have come from a replica so far."""
        ...

    def report_error(self, connection: AsyncConnection, error: psycopg.Error) -> None:
        """Record the error that broke a connection: its server may be unusable, too."""
        ...
