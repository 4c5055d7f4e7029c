"""The PostgreSQL that is looked at: where it is, the connections to it, and what it told once."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

from data_layer.config import SslMode
from data_layer.database.engine import Database
from data_layer.errors import NotInitializedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from data_layer.config import Settings
    from data_layer.database.address import DatabaseAddress
    from data_layer.repositories.diagnostics.server import Identity, ServerFacts

Fact = TypeVar("Fact")

# One for the check that runs, and one in the place of a connection that a check before it left hanging.
_CONNECTIONS = 2
_DEFAULT_PORT = 5432


class DatabasePatient:
    """Filled by the checks, the first of which find out where it is and who answers."""

    def __init__(self, settings: Settings, time_limit: float) -> None:
        self.settings = settings
        self.time_limit = time_limit
        self._few = settings.model_copy(
            update={
                "db_max_connections": _CONNECTIONS,
                "db_min_connections": 0,
                "db_statement_timeout": min(settings.db_statement_timeout, time_limit),
                "db_connect_timeout": min(settings.db_connect_timeout, time_limit),
                "db_logging": False,
            }
        )
        self._database: Database | None = None
        self._facts: ServerFacts | None = None
        self._identity: Identity | None = None

    async def close(self) -> None:
        """Close the connections."""
        if self._database is not None:
            await self._database.close()

    def use(self, address: DatabaseAddress) -> None:
        """Look at this one."""
        self._database = Database(self._few, address)
        self._database.prepare()

    def introduce(self, facts: ServerFacts, identity: Identity) -> None:
        """Remember what it told of itself."""
        self._facts, self._identity = facts, identity

    @property
    def database(self) -> Database:
        """The connections to it."""
        return _known(self._database)

    @property
    def facts(self) -> ServerFacts:
        """What the server told of itself."""
        return _known(self._facts)

    @property
    def identity(self) -> Identity:
        """Which server answers."""
        return _known(self._identity)

    @property
    def places(self) -> list[tuple[str, int]]:
        """The servers that are named: hosts and ports, or paths of sockets."""
        return places_of(self.database.address)

    @property
    def ssl_mode(self) -> SslMode:
        """How connections are encrypted and verified."""
        address = self.database.address
        return SslMode(str(address.options.get("sslmode") or address.url.query.get("sslmode") or "prefer"))

    @asynccontextmanager
    async def another(self, address: DatabaseAddress) -> AsyncIterator[Database]:
        """Connections to another server, for as long as the block lasts."""
        database = Database(self._few, address)
        database.prepare()
        try:
            yield database
        finally:
            await database.close()


def places_of(address: DatabaseAddress) -> list[tuple[str, int]]:
    """The hosts and ports of an address, or the paths of its sockets."""
    url = address.url
    hosts = str(url.query.get("host", url.host or "localhost")).split(",")
    ports = str(url.query.get("port", url.port or _DEFAULT_PORT)).split(",")
    pairs = zip(hosts, ports * len(hosts) if len(ports) == 1 else ports, strict=True)
    return [(f"{host}/.s.PGSQL.{port}" if host.startswith("/") else host, int(port)) for host, port in pairs]


def _known(fact: Fact | None) -> Fact:
    if fact is None:
        raise NotInitializedError("this is not known before the check that finds it out")
    return fact
