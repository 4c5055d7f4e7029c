"""Where the primaries are and which of them holds a key."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, Protocol, TypeVar

from hiredis import ReplyError

from data_layer.cache.address import ServerAddress
from data_layer.cache.errors import is_demotion
from data_layer.cache.wire.connection import Connection
from data_layer.cache.wire.connector import Connector
from data_layer.cache.wire.node import Node, Prepare
from data_layer.concurrency import cancel_and_wait, jittered
from data_layer.errors import CacheError
from data_layer.observability.log import get_log

Answer = TypeVar("Answer")


@asynccontextmanager
async def ask_all(
    questions: Iterable[Coroutine[Any, Any, Answer]],
) -> AsyncIterator[AsyncIterator[Answer | CacheError]]:
    """The answers and errors as they come; questions that are still open at the end of the block are dropped."""
    tasks = [asyncio.create_task(question) for question in questions]

    async def answers() -> AsyncIterator[Answer | CacheError]:
        for task in asyncio.as_completed(tasks):
            try:
                yield await task
            except CacheError as error:
                yield error

    try:
        yield answers()
    finally:
        await cancel_and_wait(*tasks)


_PROBE_SECONDS = 1.0
_PAUSE_SECONDS = 0.1

logger = get_log(__name__)


def pause() -> float:
    """Seconds to wait before servers that do not agree yet are asked once more."""
    return jittered(_PAUSE_SECONDS, 0.5, 1.5)


class Redirect(NamedTuple):
    """Where a refused command is to be sent instead; ``asking`` because the slot is being moved there."""

    primary: Node
    asking: bool = False


class Routing(Protocol):
    """One of: a single server, sentinels, a cluster."""

    @property
    def only(self) -> Node | None:
        """The primary for all keys, if there is but one."""

    @property
    def primaries(self) -> tuple[Node, ...]:
        """All that are known."""

    def find(self, key: bytes | None) -> Node | None:
        """The primary that holds the key, or any for no key; None before ``discover``."""

    async def discover(self) -> None:
        """Find out where the primaries are.

        Raises:
            CacheError: when no server can be asked.
        """

    async def redirect(self, refusal: ReplyError, primary: Node, key: bytes | None) -> Redirect | None:
        """Where to send a command that was refused without having been carried out; None when that would not help."""

    async def successor(self, replica: Node, key: bytes | None) -> Node | None:
        """The server to use where this one turned out to be a replica; None when nothing else could say so."""

    async def close(self) -> None:
        """Close all connections."""


class SingleServer:
    """One server at a fixed address, which may be a name that leads to another server after a failover.

    Connections that exist stay where they are. So once a second a new one shows where the address leads to now, also
    when the server at the other end of the old ones was cut off and still takes itself for the primary.
    """

    def __init__(self, address: ServerAddress, connector: Connector, prepare: Prepare) -> None:
        self._address = address
        self._connector = connector
        self._prepare = prepare
        self._watching: asyncio.Task[None] | None = None
        self.only = Node(str(address), connector, self._locate, self._prepare_primary)
        self.primaries = (self.only,)

    def find(self, _key: bytes | None) -> Node | None:
        """Always the same."""
        return self.only

    async def discover(self) -> None:
        """Nothing has to be found out."""

    async def redirect(self, refusal: ReplyError, primary: Node, _key: bytes | None) -> Redirect | None:
        """A demoted server's connections are closed by now; its name may lead to its successor."""
        return Redirect(primary) if is_demotion(refusal) else None

    async def successor(self, _replica: Node, _key: bytes | None) -> None:
        """None: only the address says which server is the primary."""

    async def close(self) -> None:
        """Close all connections."""
        await cancel_and_wait(self._watching)
        await self.only.close()

    async def _locate(self) -> ServerAddress:
        return self._address

    async def _prepare_primary(self, primary: Node, connection: Connection) -> None:
        if self._watching is None and self._address.socket_path is None:
            self._watching = asyncio.create_task(self._watch(), name="cache address")
        await self._prepare(primary, connection)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(jittered(_PROBE_SECONDS, 0.8))
            if not self.only.was_connected_for(_PROBE_SECONDS / 2):
                continue
            try:
                connection = await self._connector.open(self._address, is_primary=True)
                connection.close()
                self.only.require_same_server(connection.run_id)
            except CacheError as error:
                logger.info("cache_address_checked", server=self.only.name, reason=str(error))
