"""The one way from the cache to its servers.

``CommandRunner`` sends a command on the short way where it can. Else the ``Dispatcher`` brings a ``Request`` to the
right server, whatever stands in the way, and comes back with the answers.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from asyncio import Future
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

from hiredis import ReplyError

from data_layer.cache.address import CacheAddress, Topology
from data_layer.cache.errors import (
    ConnectionFailure,
    ConnectionLost,
    ScriptUnknownError,
    ServerReplacedError,
    is_demotion,
    translate,
)
from data_layer.cache.statistics import Counters
from data_layer.cache.wire.breaker import BreakerState
from data_layer.cache.wire.connection import Command, Connection, Connector, OnPush, pack
from data_layer.cache.wire.node import LARGE, Node
from data_layer.cache.wire.routing import ClusterRouting, Routing, SentinelRouting, SingleServer, key_slot
from data_layer.errors import (
    CacheError,
    CacheReadOnlyError,
    CacheTimeoutError,
    CacheUnavailableError,
    NotInitializedError,
)
from data_layer.observability.log import get_log
from data_layer.observability.metrics.counters import Durations
from data_layer.settings.redis import RedisSettings

if TYPE_CHECKING:
    from redis.asyncio import Redis, RedisCluster

    OnTopologyChange = Callable[["NodeAccess"], Awaitable[None]]


_COMMANDS_ON_ONE_KEY = (
    "APPEND DECR DECRBY DUMP EXPIRE EXPIRETIME GET GETDEL GETEX GETRANGE HDEL HGET HGETALL HLEN HMGET HSET INCR INCRBY "
    "PERSIST PEXPIRE PEXPIREAT PEXPIRETIME PTTL SADD SCARD SET SISMEMBER SMEMBERS SREM STRLEN TTL TYPE XADD XLEN "
    "XRANGE XTRIM ZADD ZCARD ZRANGE ZREM ZSCORE"
)
_KEYS_TOGETHER = 2000
_BYTES_TOGETHER = 2**20
_COMMANDS_ON_MANY_KEYS = frozenset({"DEL", "EXISTS", "MGET", "TOUCH", "UNLINK"})

_OF_SCRIPTS = 3
KEY_POSITIONS: dict[object, int] = {
    **dict.fromkeys(_COMMANDS_ON_ONE_KEY.split(), 1),
    **dict.fromkeys(("EVAL", "EVALSHA"), _OF_SCRIPTS),
}
"""Where the only key stands, or the first of a script, in commands that have one. Others go to whichever primary."""


def keys_of(command: Command) -> list[bytes]:
    """The keys that decide where a command goes and what it may not overtake."""
    if command[0] in _COMMANDS_ON_MANY_KEYS:
        return [as_bytes(key) for key in command[1:]]
    position = KEY_POSITIONS.get(command[0])
    if position is None or len(command) <= position:
        return []
    count = int(command[2]) if position == _OF_SCRIPTS else 1
    return [as_bytes(key) for key in command[position : position + count]]


def as_bytes(argument: str | bytes | int) -> bytes:
    """The argument as it is sent."""
    return argument if isinstance(argument, bytes) else str(argument).encode()


_READING_COMMANDS = frozenset({"GET", "EVALSHA", "EVAL"})


def size_of(answer: object) -> int | None:
    """The size of a value, alone or before other things, such as what a script finds; None for other answers."""
    value = answer[0] if isinstance(answer, list) and answer else answer
    return len(value) if isinstance(value, bytes) else None


class Request:
    """One command, or those of one transaction.

    Args:
        commands: in their order.
        repeatable: whether they may be sent once more when it is unknown if they were carried out.
        atomic: whether they become one transaction.
    """

    __slots__ = (
        "_commands",
        "_entered",
        "is_atomic",
        "key",
        "keys",
        "packed",
        "primary",
        "repeatable",
        "size",
        "waiters",
    )

    def __init__(self, commands: Sequence[Command], *, repeatable: bool, atomic: bool = False) -> None:
        self.packed = [pack(command) for command in commands]
        if atomic:
            self.packed = [pack(("MULTI",)), *self.packed, pack(("EXEC",))]
        self.keys = [key for command in commands for key in keys_of(command)]
        self.key = self.keys[0] if self.keys else None
        self.repeatable = repeatable
        self.size = sum(map(len, self.packed))
        self.primary: Node | None = None
        self.waiters: list[Future[Any]] | None = None
        self.is_atomic = atomic
        self._commands = commands
        self._entered: Node | None = None

    def is_large_for(self, primary: Node) -> bool:
        """Whether it has to take the connection for large values."""
        return self.size > LARGE or (bool(primary.large) and not primary.large.keys().isdisjoint(self.keys))

    def enter(self, primary: Node) -> None:
        """From now on, commands on its keys follow it on the connection for large values."""
        if self._entered is not primary:
            self.leave()
            self._entered = primary
            for key in self.keys:
                primary.large.enter(key)

    def leave(self, answer: object = None) -> None:
        """It was answered, or given up."""
        if self._entered is not None:
            name, size = self._commands[0][0], size_of(answer)
            is_small = name in {"DEL", "UNLINK"} or (name in _READING_COMMANDS and size is not None and size <= LARGE)
            for key in self.keys:
                self._entered.large.leave(key, is_small=is_small)
            self._entered = None


def together(requests: Iterable[Request]) -> Iterator[list[Request]]:
    """So many that they neither fill the memory nor keep the server for long."""
    some: list[Request] = []
    keys = size = 0
    for request in requests:
        some.append(request)
        keys += max(len(request.keys), 1)
        size += request.size
        if keys >= _KEYS_TOGETHER or size >= _BYTES_TOGETHER:
            yield some
            some, keys, size = [], 0, 0
    if some:
        yield some


_MAXIMUM_REDIRECTS = 8
_ASKING = pack(("ASKING",))


class Dispatcher:
    """Sends requests, and repeats them where that is allowed.

    A request whose connection broke is sent once more if it is repeatable. One that was certainly not carried out is
    sent until it arrives, within the time limit: it was not even written, or the server became a replica, or it refused
    the request because another server holds the keys.

    Args:
        time_limit: seconds for a request with all that may have to be done for it.
    """

    def __init__(self, routing: Routing, time_limit: float) -> None:
        self._routing = routing
        self._time_limit = time_limit

    async def dispatch(self, request: Request, answers: list[Any] | None = None) -> list[Any]:
        """The answers, among them ``ReplyError``; ``answers`` are those of a first attempt that has been made.

        Raises:
            CacheError: when there are no answers.
        """
        try:
            async with asyncio.timeout(self._time_limit):
                answers = await self._insist(request, answers)
        except TimeoutError:
            name = request.primary.name if request.primary is not None else "its address"
            raise CacheTimeoutError(f"Redis at {name} did not answer within REDIS_COMMAND_TIMEOUT") from None
        finally:
            request.leave(answers[-1] if answers else None)
        return answers

    async def dispatch_all(self, requests: Sequence[Request]) -> list[list[Any] | CacheError]:
        """The same for many, in one batch for each server; an error takes the place of answers."""
        try:
            if any(self._routing.find(request.key) is None for request in requests):
                await self._routing.discover()
        except CacheError as error:
            return [error] * len(requests)
        groups: dict[Node | None, list[Request]] = {}
        for request in requests:
            primary = self._routing.find(request.key)
            groups.setdefault(primary, []).append(request)
            if primary is not None:
                _begin(request, primary, primary.queue.connection)
        try:
            return await self._finish_all(requests, groups)
        finally:
            for request in requests:
                request.leave()

    async def finish(self, primary: Node, requests: Sequence[Request]) -> list[list[Any] | CacheError]:
        """The answers to requests that were sent to this server, with errors in place of answers as above."""
        try:
            return [outcome for _, outcome in await self._finish_group(primary, requests)]
        finally:
            for request in requests:
                request.leave()

    async def _finish_all(
        self, requests: Sequence[Request], groups: dict[Node | None, list[Request]]
    ) -> list[list[Any] | CacheError]:
        work = [self._finish_group(primary, group) for primary, group in groups.items()]
        # One server is the common case, and needs no task.
        ended = [await work[0]] if len(work) == 1 else await asyncio.gather(*work)
        outcomes = {id(request): outcome for group in ended for request, outcome in group}
        return [outcomes[id(request)] for request in requests]

    async def _finish_group(
        self, primary: Node | None, group: Sequence[Request]
    ) -> list[tuple[Request, list[Any] | CacheError]]:
        if primary is not None:
            await _begin_the_rest(primary, group)
        outcomes: list[tuple[Request, list[Any] | CacheError]] = []
        in_vain: CacheError | None = None
        for request in group:
            outcome = await self._finish(request, in_vain)
            if isinstance(outcome, CacheUnavailableError | CacheTimeoutError):
                in_vain = outcome
            outcomes.append((request, outcome))
        return outcomes

    async def _finish(self, request: Request, in_vain: CacheError | None) -> list[Any] | CacheError:
        """With a server that just failed it is not tried again for each of hundreds of commands."""
        answers = [await waiter for waiter in request.waiters] if request.waiters is not None else None
        if answers is not None and not any(isinstance(answer, Exception) for answer in answers):
            return answers
        if in_vain is not None and (answers is None or isinstance(answers[0], ConnectionFailure)):
            return in_vain
        try:
            return await self.dispatch(request, answers)
        except CacheError as error:
            return error

    async def _insist(self, request: Request, answers: list[Any] | None) -> list[Any]:
        was_repeated = asking = False
        primary = request.primary
        unusable: CacheError | None = None
        for _ in range(_MAXIMUM_REDIRECTS):
            if answers is None:
                primary = primary or await self._find(request)
                try:
                    answers = await self._attempt(request, primary, asking=asking)
                except CacheReadOnlyError as error:  # It was connected to just now: nothing was sent.
                    unusable, primary = error, await self._routing.successor(primary, request.key)
                    if primary is None:
                        raise
                    asking = False
                    continue
                asking = False
            assert primary is not None  # noqa: S101  (answers came from somewhere)
            failure = next((answer for answer in answers if isinstance(answer, ConnectionFailure)), None)
            if failure is not None:
                if not isinstance(failure, ConnectionLost) or (
                    failure.was_written and (was_repeated or not request.repeatable)
                ):
                    raise translate(failure, primary.name)
                was_repeated = was_repeated or failure.was_written
                primary, answers = None, None
                continue
            refusal = next((answer for answer in answers if isinstance(answer, ReplyError)), None)
            redirect = None if refusal is None else await self._routing.redirect(refusal, primary, request.key)
            if redirect is None:
                return answers
            answers, primary, asking = None, redirect.primary, redirect.asking
        name = "its address" if primary is None else primary.name
        raise unusable or CacheUnavailableError(
            f"Redis at {name} and the servers that it points to send a command from one to another without end"
        )

    async def _find(self, request: Request) -> Node:
        primary = self._routing.find(request.key)
        if primary is None:
            await self._routing.discover()
            primary = self._routing.find(request.key)
        if primary is None:
            raise CacheUnavailableError("no server of the Redis cluster holds the slot of this key")
        return primary

    async def _attempt(self, request: Request, primary: Node, *, asking: bool) -> list[Any]:
        request.primary = primary
        packed = [_ASKING, *request.packed] if asking else request.packed
        try:
            if request.is_large_for(primary):
                request.enter(primary)
                answers = await primary.send_large(packed)
            else:
                connection = primary.queue.connection or await primary.wait_for_turn()
                answers = [await waiter for waiter in [connection.send(command) for command in packed]]
        except CacheUnavailableError as error:
            if not primary.is_closed and not isinstance(error, ServerReplacedError):
                raise
            # It turned out not to be a primary any longer; nothing was sent.
            return [ConnectionLost(str(error), was_written=False)]
        return answers[1:] if asking and not isinstance(answers[0], Exception) else answers


def _begin(request: Request, primary: Node, connection: Connection | None) -> None:
    """Hand the request over if that needs no waiting; if it has to wait, others on its keys wait too."""
    request.primary = primary
    if request.is_large_for(primary):
        request.enter(primary)
    elif connection is not None:
        request.waiters = [connection.send(command) for command in request.packed]


async def _begin_the_rest(primary: Node, group: Sequence[Request]) -> None:
    rest = [request for request in group if request.waiters is None and not request.is_large_for(primary)]
    if not rest:
        return
    try:
        connection = await primary.admit()
    except CacheError:
        return  # ``dispatch`` meets the same, and knows what to do about it.
    for request in rest:
        _begin(request, primary, connection)


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
