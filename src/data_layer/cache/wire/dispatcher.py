"""Brings commands to the right server, whatever stands in the way, and comes back with the answers."""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from hiredis import ReplyError

from data_layer.cache.errors import ConnectionFailure, ConnectionLost, ServerReplacedError, translate
from data_layer.cache.wire.connection import Command, Connection, pack
from data_layer.cache.wire.node import LARGE, Node
from data_layer.cache.wire.routing import Routing
from data_layer.errors import CacheError, CacheReadOnlyError, CacheTimeoutError, CacheUnavailableError

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
    sent until it arrives, within the time limit: it was not even written, or the server is no longer a primary, or it
    refused the request because another server holds the keys.

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
