"""The one way from the cache to its servers."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from asyncio import Future
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, cast

from hiredis import ReplyError

from data_layer.cache.address import CacheAddress, Topology
from data_layer.cache.errors import ConnectionLost, ScriptUnknownError, is_demotion, translate
from data_layer.cache.statistics import Counters
from data_layer.cache.wire.breaker import BreakerState
from data_layer.cache.wire.connection import Command, Connection, Connector, OnPush, pack
from data_layer.cache.wire.dispatcher import KEY_POSITIONS, Dispatcher, Request, as_bytes, keys_of, size_of, together
from data_layer.cache.wire.node import LARGE, Node
from data_layer.cache.wire.routing import ClusterRouting, Routing, SentinelRouting, SingleServer, key_slot
from data_layer.errors import CacheError, NotInitializedError
from data_layer.observability.log import get_log
from data_layer.observability.metrics.counters import Durations
from data_layer.settings.redis import RedisSettings

if TYPE_CHECKING:
    from redis.asyncio import Redis, RedisCluster

    OnTopologyChange = Callable[["NodeAccess"], Awaitable[None]]

SCAN_COUNT = 1000
_KEYS_AT_ONCE = 500

logger = get_log(__name__)


class Script:
    """A Lua program that the server knows by its hash once it has seen it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha1 = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


class Sent:
    """A batch of commands on its way, or, without waiters, still to be sent."""

    __slots__ = ("commands", "repeatable", "waiters")

    def __init__(self, commands: Sequence[Command], waiters: Sequence[Future[Any]] | None, *, repeatable: bool) -> None:
        self.commands = commands
        self.waiters = waiters
        self.repeatable = repeatable


class CommandRunner:
    """Sends each command to the server that holds its key, which is the first argument after the name.

    A command on an open connection ends within the command timeout. Where it has to wait for its turn, or for a
    connection, it ends within the connect timeout and twice the command timeout.

    A broken connection is replaced, and the command repeated once unless it is said not to be repeatable: the server
    may have carried it out before the connection broke.
    """

    def __init__(self, address: CacheAddress, settings: RedisSettings, counters: Counters) -> None:
        self._address = address
        self._settings = settings
        self._counters = counters
        self._connector = Connector(settings, tls=address.login.tls)
        self._hooks: list[OnTopologyChange] = []
        self._routing = self._make_routing()
        self._only = self._routing.only
        self._dispatcher = Dispatcher(
            self._routing, self._connector.connect_timeout + 2 * self._connector.command_timeout
        )
        self._client: Redis | RedisCluster | None = None
        self._is_closed = False

    async def run(self, *command: str | bytes | int, repeatable: bool = True) -> Any:
        """The answer to one command.

        Raises:
            CacheError: or the subclass that says what is wrong with the server, the login or the stored value.
        """
        # The short way, for a small command on one key and an open connection; everything else takes the long one.
        if (position := KEY_POSITIONS.get(command[0])) is not None and len(command) > position:
            key = command[position]
            primary = self._only or self._routing.find(as_bytes(key))
            if (
                primary is not None
                and (connection := primary.queue.connection) is not None
                and key not in primary.large
            ):
                packed = pack(command)
                if len(packed) <= LARGE:
                    answer = await connection.send(packed)
                    if isinstance(answer, Exception):
                        return await self._run(command, primary, answer, repeatable=repeatable)
                    if isinstance(answer, bytes) and len(answer) > LARGE:
                        primary.large.remember(as_bytes(key))
                    return answer
        return await self._run(command, repeatable=repeatable)

    async def run_on(self, primary: Node, *command: str | bytes | int) -> Any:
        """The answer of one server to a harmless question, such as PING, INFO or SCAN.

        Raises:
            CacheError: as for ``run``.
        """
        self._refuse_if_closed()
        return self._raise_if_failed(await self._ask(primary, command))

    async def run_batch(self, commands: Sequence[Command], *, repeatable: bool = True) -> list[Any]:
        """Send commands as one batch; one that failed has a ``CacheError`` as its answer."""
        return await self.finish(self.begin(commands, repeatable=repeatable))

    def begin(self, commands: Sequence[Command], *, repeatable: bool = True) -> Sent:
        """Send commands as one batch before anything that is sent later, if that needs no waiting.

        Returns:
            What ``finish`` takes.
        """
        primary = self._only
        if primary is not None and (connection := primary.queue.connection) is not None:
            packed = [pack(command) for command in commands]
            if sum(map(len, packed)) <= LARGE and not (primary.large and _has_large(commands, primary)):
                return Sent(commands, [connection.send(each) for each in packed], repeatable=repeatable)
        return Sent(commands, None, repeatable=repeatable)

    async def finish(self, sent: Sent, deadline: float | None = None) -> list[Any]:
        """The answers to a batch, which is sent now if it could not be before, and again where that helps.

        Args:
            sent: what ``begin`` returned.
            deadline: in seconds of the loop's clock, for what is sent only now; what is on its way already ends within
                the limit of its connection, and needs no timer of its own.

        Raises:
            TimeoutError: after the deadline.
        """
        primary, waiters = self._only, sent.waiters
        if primary is None or waiters is None:
            async with asyncio.timeout_at(deadline):
                return await self._run_batch(sent.commands, repeatable=sent.repeatable)
        answers = [await waiter for waiter in waiters]
        if not any(isinstance(answer, Exception | bytes) for answer in answers):  # Of scripts, nearly always.
            return answers
        requests = [Request([command], repeatable=sent.repeatable) for command in sent.commands]
        for request, waiter in zip(requests, waiters, strict=True):
            request.primary, request.waiters = primary, [waiter]
        async with asyncio.timeout_at(deadline):
            outcomes = await self._dispatcher.finish(primary, requests)
        return [_result(request, outcome) for request, outcome in zip(requests, outcomes, strict=True)]

    async def run_all(self, commands: Sequence[Command], *, atomic: bool = False, repeatable: bool = True) -> list[Any]:
        """Send commands as one batch; ``atomic`` makes them one transaction, on keys of one slot.

        Raises:
            CacheError: as for ``run``, for the first command that failed; without ``atomic`` the others took effect.
        """
        if atomic:
            request = Request(commands, repeatable=repeatable, atomic=True)
            results: list[Any] = self._raise_if_failed(await self._dispatch(request))
            return results
        answers = await self.finish(self.begin(commands, repeatable=repeatable))
        return [self._raise_if_failed(answer) for answer in answers]

    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """What is at these keys, in their order; nothing where a key is absent or holds something else than a value.

        Raises:
            CacheError: as for ``run``.
        """
        groups = self._group(keys)
        requests = (Request([("MGET", *group)], repeatable=True) for group in groups)
        outcomes = await self._dispatch_all(requests)
        answers = [answer for outcome in outcomes for answer in self._raise_if_failed(outcome)]
        asked = list(itertools.chain.from_iterable(groups))
        for key, value in zip(asked, answers, strict=True):
            if value is not None and len(value) > LARGE and (primary := self._routing.find(key)) is not None:
                primary.large.remember(key)
        if len(groups) == 1 and len(asked) == len(keys):
            return answers
        found = dict(zip(asked, answers, strict=True))
        return [found[key] for key in keys]

    async def get_with_life(self, key: bytes) -> tuple[bytes | None, int]:
        """What GET and PTTL say: the value, and the milliseconds that it has left (-1 no end, -2 no key).

        Raises:
            CacheError: as for ``run``.
        """
        primary = self._only or self._routing.find(key)
        if primary is not None and (connection := primary.queue.connection) is not None and key not in primary.large:
            value, life = connection.send(pack(("GET", key))), connection.send(pack(("PTTL", key)))
            stored, milliseconds = await value, await life
            if not isinstance(stored, Exception) and isinstance(milliseconds, int):
                if stored is not None and len(stored) > LARGE:
                    primary.large.remember(key)
                return stored, milliseconds
        stored, milliseconds = map(self._raise_if_failed, await self._run_batch([("GET", key), ("PTTL", key)]))
        return stored, milliseconds

    async def unlink(self, keys: Sequence[bytes]) -> int:
        """Remove keys and report how many were there.

        Raises:
            CacheError: as for ``run``; other keys may have been removed.
        """
        requests = (Request([("UNLINK", *group)], repeatable=True) for group in self._group(keys))
        return sum(int(self._raise_if_failed(outcome)) for outcome in await self._dispatch_all(requests))

    async def eval(self, script: Script, key: bytes, *arguments: str | bytes | int, repeatable: bool = False) -> Any:
        """What a script returns that was given one key.

        Raises:
            CacheError: as for ``run``.
        """
        try:
            answer = await self.run("EVALSHA", script.sha1, 1, key, *arguments, repeatable=repeatable)
        except ScriptUnknownError:
            answer = await self.run("EVAL", script.text, 1, key, *arguments, repeatable=repeatable)
        if isinstance(answer, list) and (size_of(answer) or 0) > LARGE and (primary := self.owner(key)) is not None:
            primary.large.remember(key)
        return answer

    async def scan(self, pattern: bytes) -> AsyncIterator[list[bytes]]:
        """The keys of all servers that match a glob, in batches; a batch may be empty, and a key may come twice."""
        for primary in await self.primaries():
            async for keys, _ in self.scan_on(primary, pattern):
                yield keys

    async def scan_on(self, primary: Node, pattern: bytes) -> AsyncIterator[tuple[list[bytes], bool]]:
        """The same of one server, and with each batch whether it was the last.

        A cursor means nothing to another server: when another one has taken the place of this, it begins again.
        """
        cursor: int | bytes = 0
        generation = None
        while True:
            cursor, keys = await self.run_on(primary, "SCAN", cursor, "MATCH", pattern, "COUNT", SCAN_COUNT)
            if generation not in {None, primary.generation}:
                generation, cursor = None, 0
                continue
            generation = primary.generation
            is_last = int(cursor) == 0
            yield keys, is_last
            if is_last:
                return

    async def primaries(self) -> tuple[Node, ...]:
        """All servers that hold data and may be written.

        Raises:
            CacheError: when they cannot be found out.
        """
        self._refuse_if_closed()
        if not self._routing.primaries:
            await self._routing.discover()
        return self._routing.primaries

    def owner(self, key: bytes) -> Node | None:
        """The server that holds a key, as far as that is known."""
        return self._only or self._routing.find(key)

    async def open_connection(self, primary: Node, *, on_push: OnPush, on_closed: Callable[[], None]) -> Connection:
        """A connection of the caller's own, which the caller closes.

        Raises:
            CacheError: when there is none to be had.
        """
        self._refuse_if_closed()
        return await primary.open_connection(on_push=on_push, on_closed=on_closed)

    def on_topology_change(self, callback: OnTopologyChange) -> None:
        """Await this callback for every new connection to a primary, and when one got slots from another.

        No other command is sent to that primary meanwhile. If it raises CacheError, the primary counts as unavailable
        and everything is tried again.
        """
        self._hooks.append(callback)

    @property
    def has_one_server(self) -> bool:
        """Whether all keys are on one server."""
        return self._only is not None

    @property
    def breaker_state(self) -> BreakerState:
        """The worst state among the servers."""
        states = {primary.breaker_state for primary in self._routing.primaries}
        worst = (state for state in (BreakerState.OPEN, BreakerState.HALF_OPEN) if state in states)
        return next(worst, BreakerState.CLOSED)

    @property
    def latencies(self) -> Durations:
        """How long commands waited for their answers, all servers together."""
        return self._connector.latencies

    @property
    def client(self) -> Redis | RedisCluster:
        """redis-py's client, made when it is first asked for, because importing redis-py takes long."""
        from data_layer.cache.client import create_client

        self._refuse_if_closed()
        if self._client is None:
            self._client = create_client(self._address, self._settings)
        return self._client

    async def close(self) -> None:
        """Refuse further commands, wait for those under way (each has its time limit), and close all connections."""
        self._is_closed = True
        try:
            await self._routing.close()
        finally:
            if self._client is not None:
                await self._client.aclose()

    async def _run(self, command: Command, primary: Node | None = None, answer: Any = None, *, repeatable: bool) -> Any:
        """The long way; ``answer`` is what went wrong on the short one."""
        request = Request([command], repeatable=repeatable)
        if primary is None:
            return self._raise_if_failed(await self._dispatch(request))
        request.primary = primary
        return self._raise_if_failed(await self._dispatch(request, [answer]))

    async def _run_batch(self, commands: Sequence[Command], *, repeatable: bool = True) -> list[Any]:
        return await self._dispatch_all(Request([command], repeatable=repeatable) for command in commands)

    async def _dispatch(self, request: Request, answers: list[Any] | None = None) -> Any:
        self._refuse_if_closed()
        try:
            answers = await self._dispatcher.dispatch(request, answers)
        except CacheError as error:
            return error
        return _result(request, answers)

    async def _dispatch_all(self, requests: Iterable[Request]) -> list[Any]:
        self._refuse_if_closed()
        results = []
        for some in together(requests):
            outcomes = await self._dispatcher.dispatch_all(some)
            results += [_result(request, outcome) for request, outcome in zip(some, outcomes, strict=True)]
        return results

    async def _ask(self, primary: Node, command: Command) -> Any:
        try:
            for _ in range(2):
                connection = primary.queue.connection or await primary.admit()
                answer = await connection.send(pack(command))
                was_demoted = isinstance(answer, ReplyError) and is_demotion(answer)
                if not was_demoted and not isinstance(answer, ConnectionLost):
                    break
        except CacheError as error:
            return error
        return translate(answer, primary.name) if isinstance(answer, Exception) else answer

    def _raise_if_failed(self, answer: Any) -> Any:
        if isinstance(answer, CacheError):
            self._counters.failures += 1
            raise answer
        return answer

    def _group(self, keys: Iterable[bytes]) -> list[list[bytes]]:
        """Keys that may stand in one command: of one slot in a cluster, and the large ones for themselves."""
        unique = dict.fromkeys(keys)
        if self._only is not None and not len(self._only.large):  # Nearly always, and worth not looking at each key.
            alone = list(unique)
            return [alone[start : start + _KEYS_AT_ONCE] for start in _starts(alone)]
        groups: dict[object, list[bytes]] = {}
        for key in unique:
            primary = self._only or self._routing.find(key)
            is_large = primary is not None and key in primary.large
            groups.setdefault((is_large, None if self._only else key_slot(key)), []).append(key)
        return [group[start : start + _KEYS_AT_ONCE] for group in groups.values() for start in _starts(group)]

    async def _prepare(self, primary: Node, connection: Connection) -> None:
        if self._client is not None and self._only is not None:
            # The idle connections of redis-py may lead to the server that was here before.
            await cast("Redis", self._client).connection_pool.disconnect(inuse_connections=False)
        access = NodeAccess(primary, connection, self._routing)
        for hook in self._hooks:
            try:
                await hook(access)
            except (CacheError, TimeoutError):
                raise
            except Exception as error:
                logger.warning("cache_topology_hook_failed", server=primary.name, error=type(error).__name__)
                raise CacheError(f"Redis at {primary.name} could not be made ready") from error

    def _make_routing(self) -> Routing:
        match self._address.topology:
            case Topology.CLUSTER:
                return ClusterRouting(self._address, self._connector, self._prepare)
            case Topology.SENTINEL:
                return SentinelRouting(self._address, self._connector, self._prepare)
            case Topology.SINGLE:
                return SingleServer(self._address.nodes[0], self._connector, self._prepare)

    def _refuse_if_closed(self) -> None:
        if self._is_closed:
            raise NotInitializedError("the cache was closed")


class NodeAccess:
    """May send to one primary while everybody else waits."""

    def __init__(self, primary: Node, connection: Connection, routing: Routing) -> None:
        self.name = connection.name
        self.run_id = connection.run_id
        """Which process answers; empty where the server does not say."""
        self._primary = primary
        self._line = connection
        self._routing = routing

    def owns(self, key: bytes) -> bool:
        """Whether this primary holds the key."""
        return self._routing.find(key) is self._primary

    async def run(self, *command: str | bytes | int) -> Any:
        """The answer to one command.

        Raises:
            CacheError: or the subclass that says what is wrong.
        """
        return await self._line.run(*command)

    async def run_batch(self, commands: Sequence[Command]) -> list[Any]:
        """Send commands as one batch; one that failed has a ``CacheError`` as its answer."""
        waiters = [self._line.send(pack(command)) for command in commands]
        answers = [await waiter for waiter in waiters]
        return [translate(answer, self.name) if isinstance(answer, Exception) else answer for answer in answers]


def _has_large(commands: Sequence[Command], primary: Node) -> bool:
    return any(key in primary.large for command in commands for key in keys_of(command))


def _result(request: Request, outcome: list[Any] | CacheError) -> Any:
    """The answer that the caller wants, or the error: of a transaction the results, which come with its end."""
    if isinstance(outcome, CacheError):
        return outcome
    result = outcome[-1]
    answers = [*outcome, *result] if request.is_atomic and isinstance(result, list) else outcome
    refusal = next((answer for answer in answers if isinstance(answer, ReplyError)), None)
    if refusal is None:
        if (
            isinstance(result, bytes)
            and len(result) > LARGE
            and request.key is not None
            and request.primary is not None
        ):
            request.primary.large.remember(request.key)
        return result
    return translate(refusal, request.primary.name if request.primary is not None else "its address")


def _starts(group: Sequence[bytes]) -> range:
    return range(0, len(group), _KEYS_AT_ONCE)
