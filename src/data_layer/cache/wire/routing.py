"""Where the primaries are and which of them holds a key: one server, one that sentinels name, or a cluster."""

from __future__ import annotations

import asyncio
import random
from binascii import crc_hqx
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any, NamedTuple, Protocol, TypeVar

from hiredis import ReplyError

from data_layer.cache.address import CacheAddress, ServerAddress
from data_layer.cache.errors import is_demotion, reply_code
from data_layer.cache.wire.connection import Connection, Connector
from data_layer.cache.wire.node import Node, Prepare
from data_layer.concurrency import SingleFlight, cancel_and_wait, jittered
from data_layer.errors import CacheError, CacheUnavailableError
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


HostAndPort = tuple[str, int]

_QUESTION_SECONDS = 0.5
_LONGEST_QUESTION = 2.0


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


SlotRange = tuple[int, int, HostAndPort]

SLOTS = 16_384


def key_slot(key: bytes) -> int:
    """The slot of a key; only what stands between the first braces counts, if there is something."""
    start = key.find(b"{")
    if start >= 0:
        end = key.find(b"}", start + 1)
        if end > start + 1:
            key = key[start + 1 : end]
    return crc_hqx(key, 0) % SLOTS


_ASKED_AT_ONCE = 5


class ClusterRouting:
    """The map of the slots, asked for when it is needed first, and again whenever something contradicts it.

    A node that is about to get slots is used when another one points to it, before it has any.
    """

    only = None

    def __init__(self, address: CacheAddress, connector: Connector, prepare: Prepare) -> None:
        self._address = address
        self._connector = connector
        self._prepare = prepare
        self._primaries: dict[HostAndPort, Node] = {}
        self._importing: set[HostAndPort] = set()
        self._slots: list[Node | None] = []
        self._refreshes: SingleFlight[None, None] = SingleFlight("cache cluster")
        self._retiring: set[asyncio.Task[None]] = set()
        self._not_before = 0.0

    @property
    def primaries(self) -> tuple[Node, ...]:
        """All that hold slots, or are about to."""
        return tuple(self._primaries.values())

    def find(self, key: bytes | None) -> Node | None:
        """The primary that holds the key's slot; without a key any healthy one."""
        if key is not None:
            return self._slots[key_slot(key)] if self._slots else None
        well = (primary for primary in self._primaries.values() if primary.breaker.is_closed)
        return next(well, next(iter(self._primaries.values()), None))

    async def discover(self) -> None:
        """Ask for the map of the slots, once for all concurrent callers.

        Raises:
            CacheError: when no node answers.
        """
        await self._refresh(())

    async def redirect(self, refusal: ReplyError, primary: Node, key: bytes | None) -> Redirect | None:
        """Follow what the node says, and learns from it."""
        match reply_code(refusal):
            case "MOVED":
                return await self._follow_move(refusal, primary, key)
            case "ASK":
                return Redirect(self._primary_at(_target(refusal, primary)), asking=True)
            case "TRYAGAIN":
                await asyncio.sleep(pause())
                return Redirect(primary)
            case "CLUSTERDOWN" | "READONLY" | "LOADING" | "MASTERDOWN":
                await self._refresh_quietly(())
                return Redirect(self.find(key) or primary)
            case _:
                return None

    async def successor(self, replica: Node, key: bytes | None) -> Node | None:
        """What the map says now; the node that was asked for it may not have known yet."""
        await self._refresh_quietly(())
        return self.find(key) or replica

    async def close(self) -> None:
        """Close all connections."""
        await self._refreshes.close()
        await cancel_and_wait(*self._retiring)
        await asyncio.gather(*(primary.close() for primary in self._primaries.values()))

    async def _follow_move(self, refusal: ReplyError, primary: Node, key: bytes | None) -> Redirect:
        target = _target(refusal, primary)
        if key is None:
            # A command whose keys are not known here: it was sent to whichever primary.
            return Redirect(self._primary_at(target))
        await self._refresh_quietly([target])
        found = self.find(key)
        if found is None or found is primary:
            # The other nodes do not know of the move yet; the one that refused does.
            found = self._primary_at(target)
        return Redirect(found)

    # The map of the slots

    async def _refresh_quietly(self, first: Iterable[HostAndPort]) -> None:
        try:
            await self._refresh(first)
        except CacheError as error:
            logger.info("cache_cluster_unknown", reason=str(error))

    async def _refresh(self, first: Iterable[HostAndPort]) -> None:
        await self._refreshes.run(None, lambda: self._refresh_after_pause(first))

    async def _refresh_after_pause(self, first: Iterable[HostAndPort]) -> None:
        await asyncio.sleep(max(0.0, self._not_before - monotonic()))
        try:
            await self._ask_for_map(first)
        finally:
            self._not_before = monotonic() + pause()

    async def _ask_for_map(self, first: Iterable[HostAndPort]) -> None:
        failure: CacheError | None = None
        # The node that another one pointed to knows best.
        for node in first:
            try:
                self._apply(await self._ask(self._address.server(*node)))
            except CacheError as error:
                failure = error
            else:
                return
        async with ask_all(self._ask(node) for node in self._whom_to_ask()) as answers:
            async for answer in answers:
                if not isinstance(answer, CacheError):
                    self._apply(answer)
                    return
                failure = answer
        raise failure or CacheUnavailableError("no node of the cluster is known; check REDIS_CLUSTER_NODES")

    def _whom_to_ask(self) -> list[ServerAddress]:
        """Some of the nodes that are known, and some of those in the settings."""
        known = [self._address.server(*node) for node in self._primaries]
        seeds = list(self._address.nodes)
        random.shuffle(known)
        random.shuffle(seeds)
        return list(dict.fromkeys([*known[:_ASKED_AT_ONCE], *seeds[:_ASKED_AT_ONCE]]))

    async def _ask(self, node: ServerAddress) -> list[SlotRange]:
        connection = await self._connector.open(node)
        try:
            info = await connection.run("CLUSTER", "INFO")
            answer = await connection.run("CLUSTER", "SLOTS")
        finally:
            connection.close()
        if b"cluster_state:ok" not in info and self._slots:
            raise CacheUnavailableError(f"the cluster is down, says Redis at {node}")
        if not answer:
            raise CacheUnavailableError(f"Redis at {node} knows of no node with slots")
        try:
            return [_slot_range(shard, node) for shard in answer]
        except (AttributeError, TypeError, ValueError):
            raise CacheUnavailableError(f"Redis at {node} describes its cluster in an unknown way") from None

    def _apply(self, ranges: list[SlotRange]) -> None:
        slots: list[Node | None] = [None] * SLOTS
        holders = {node: self._primary_at(node) for _, _, node in ranges}
        for start, end, node in ranges:
            slots[start : end + 1] = [holders[node]] * (end + 1 - start)
        gained = {new for old, new in zip(self._slots, slots, strict=False) if new is not None and new is not old}
        self._slots = slots
        self._importing -= holders.keys()
        self._importing -= {node for node in self._importing if not self._primaries[node].breaker.is_closed}
        for node in self._primaries.keys() - holders.keys() - self._importing:
            self._retire(self._primaries.pop(node))
        for primary in gained:
            primary.prepare_again()

    def _primary_at(self, node: HostAndPort) -> Node:
        primary = self._primaries.get(node)
        if primary is None:
            primary = self._primaries[node] = self._make_primary(node)
            self._importing.add(node)
        return primary

    def _make_primary(self, node: HostAndPort) -> Node:
        address = self._address.server(*node)
        was_asked = False

        async def locate() -> ServerAddress:
            """Before each new attempt, look whether the node is one of the primaries still."""
            nonlocal was_asked
            if was_asked:
                await self._refresh_quietly(())
            was_asked = True
            return address

        return Node(str(address), self._connector, locate, self._prepare)

    def _retire(self, primary: Node) -> None:
        task = asyncio.create_task(primary.retire(), name="cache primary")
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)


def _slot_range(shard: list[Any], asked: ServerAddress) -> SlotRange:
    start, end, (host, port, *_), *_ = shard
    # A node that does not know its own name gives none: it is at the address that was asked.
    return start, end, (host.decode() if host not in {None, b"", b"?"} else asked.host, port)


def _target(refusal: ReplyError, primary: Node) -> HostAndPort:
    """Where MOVED or ASK points: ``MOVED 1234 host:port``, where nothing before the colon means the same host."""
    host, _, port = str(refusal).split()[2].rpartition(":")
    return host.strip("[]") or primary.host, int(port)
