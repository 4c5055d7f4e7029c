"""One primary and its replicas: sentinels say which is the primary now, and it is never taken on trust."""

from __future__ import annotations

import asyncio
from collections import Counter

from hiredis import ReplyError

from data_layer.cache.address import CacheAddress, ServerAddress
from data_layer.cache.errors import is_demotion
from data_layer.cache.wire.connection import Connection
from data_layer.cache.wire.connector import Connector
from data_layer.cache.wire.node import Node, Prepare
from data_layer.cache.wire.routing import Redirect, ask_all, pause
from data_layer.concurrency import cancel_and_wait, jittered
from data_layer.errors import CacheError, CacheUnavailableError
from data_layer.observability.log import get_log

HostAndPort = tuple[str, int]

_QUESTION_SECONDS = 0.5
_LONGEST_QUESTION = 2.0

logger = get_log(__name__)


class SentinelRouting:
    """The primary that most of the sentinels name, if the server itself says that it is one.

    Twice a second the sentinels are asked again: a primary that was cut off from them does not know that another one
    has taken its place, and goes on to take writes, which will be lost.
    """

    def __init__(self, address: CacheAddress, connector: Connector, prepare: Prepare) -> None:
        self.only = Node(str(address), connector, self._locate, self._prepare_primary)
        self.primaries = (self.only,)
        self._address = address
        self._connector = connector
        self._prepare = prepare
        self._connections: dict[ServerAddress, Connection] = {}
        self._watching: asyncio.Task[None] | None = None

    def find(self, _key: bytes | None) -> Node | None:
        """Always the same; where it is changes."""
        return self.only

    async def discover(self) -> None:
        """It is located with each connection."""

    async def redirect(self, refusal: ReplyError, primary: Node, _key: bytes | None) -> Redirect | None:
        """A server that was demoted refuses writes: the command goes to its successor."""
        return Redirect(primary) if is_demotion(refusal) else None

    async def successor(self, replica: Node, _key: bytes | None) -> Node | None:
        """The same, located again: the sentinels may have named it just before they agreed on another."""
        await asyncio.sleep(pause())
        return replica

    async def close(self) -> None:
        """Close all connections, those to the sentinels too."""
        await cancel_and_wait(self._watching)
        await self.only.close()
        for connection in self._connections.values():
            connection.close()

    async def _prepare_primary(self, primary: Node, connection: Connection) -> None:
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch(), name="cache sentinels")
        await self._prepare(primary, connection)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(jittered(_QUESTION_SECONDS, 0.8, 1.2))
            try:
                named = await self._locate()
            except CacheError as error:
                logger.info("cache_sentinels_unavailable", reason=str(error))
                continue
            used = self.only.address
            if used is not None and (named.host, named.port) != (used.host, used.port):
                logger.info("cache_primary_replaced", old=str(used), new=str(named))
                self.only.abandon("the sentinels name another primary")

    async def _locate(self) -> ServerAddress:
        """The server that more than half of the sentinels name, or else most of those that answer."""
        sentinels = self._address.nodes
        named: Counter[HostAndPort] = Counter()
        failure: CacheError | None = None
        limit = min(self._connector.connect_timeout + self._connector.command_timeout, _LONGEST_QUESTION)
        async with ask_all(self._ask_within(limit, sentinel) for sentinel in sentinels) as answers:
            async for answer in answers:
                if isinstance(answer, CacheError):
                    failure = answer
                    continue
                named[answer] += 1
                if named[answer] > len(sentinels) // 2:
                    break
        if not named:
            raise failure or CacheUnavailableError("no sentinel is known; check REDIS_SENTINEL_NODES")
        host, port = named.most_common(1)[0][0]
        return self._address.server(host, port)

    async def _ask_within(self, limit: float, sentinel: ServerAddress) -> HostAndPort:
        try:
            async with asyncio.timeout(limit):
                return await self._ask(sentinel)
        except TimeoutError:
            raise CacheUnavailableError(f"the sentinel at {sentinel} did not answer in time") from None

    async def _ask(self, sentinel: ServerAddress) -> HostAndPort:
        connection = self._connections.get(sentinel)
        if connection is None or connection.is_closed:
            connection = await self._connector.open(sentinel)
            other = self._connections.get(sentinel)
            if other is None or other.is_closed:
                self._connections[sentinel] = connection
            else:  # Somebody else was quicker, and may be waiting for an answer there.
                connection.close()
                connection = other
        answer = await connection.run("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._address.sentinel_master or "")
        if answer is None:
            raise CacheUnavailableError(
                f"the sentinel at {sentinel} knows no primary named {self._address.sentinel_master!r}; "
                "check REDIS_SENTINEL_MASTER"
            )
        try:
            host, port = answer
            return host.decode(), int(port)
        except (AttributeError, TypeError, ValueError):
            raise CacheUnavailableError(f"what answers at {sentinel} is not a sentinel") from None
