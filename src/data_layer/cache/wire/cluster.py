"""A cluster: each slot of keys has its primary, and the map of the slots changes."""

from __future__ import annotations

import asyncio
import random
from binascii import crc_hqx
from collections.abc import Iterable
from time import monotonic
from typing import Any

from hiredis import ReplyError

from data_layer.cache.address import CacheAddress, ServerAddress
from data_layer.cache.errors import reply_code
from data_layer.cache.wire.connector import Connector
from data_layer.cache.wire.node import Node, Prepare
from data_layer.cache.wire.routing import Redirect, ask_all, pause
from data_layer.concurrency import SingleFlight, cancel_and_wait
from data_layer.errors import CacheError, CacheUnavailableError
from data_layer.observability.log import get_log

HostAndPort = tuple[str, int]

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

logger = get_log(__name__)


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
    # A node that does not know its own name leaves it to the caller, who has reached it.
    return start, end, (host.decode() if host not in {None, b"", b"?"} else asked.host, port)


def _target(refusal: ReplyError, primary: Node) -> HostAndPort:
    """Where MOVED or ASK points: ``MOVED 1234 host:port``, where nothing before the colon means the same host."""
    host, _, port = str(refusal).split()[2].rpartition(":")
    return host.strip("[]") or primary.host, int(port)
