"""One server that holds data: its connections, who may send when, and how it is reached again after a failure."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from time import monotonic
from typing import Any

from data_layer.cache.address import ServerAddress
from data_layer.cache.errors import ServerReplacedError, translate
from data_layer.cache.wire.breaker import BreakerState, CircuitBreaker
from data_layer.cache.wire.connection import Connection, Connector, OnPush
from data_layer.concurrency import cancel_and_wait
from data_layer.errors import (
    CacheError,
    CacheTimeoutError,
    CacheUnavailableError,
    DataLayerError,
    NotInitializedError,
)
from data_layer.observability.log import get_log

Locate = Callable[[], Awaitable[ServerAddress]]

Prepare = Callable[["Node", Connection], Awaitable[None]]

LARGE = 65_536
"""Bytes of a command or a value above which it would hold up the small ones."""
_REMEMBERED = 4096


class LargeKeys(dict[bytes, int]):
    """Keys that had a large value, each with the number of its commands under way on the connection for large ones.

    As long as one is under way, all commands on its key have to follow it, so that their order is kept.
    """

    def remember(self, key: bytes) -> None:
        """The value of this key is large."""
        self.setdefault(key, 0)
        if len(self) > _REMEMBERED:
            idle = next((key for key, under_way in self.items() if under_way == 0), None)
            if idle is not None:
                del self[idle]

    def enter(self, key: bytes) -> None:
        """Note that a command on this key goes to the connection for large values."""
        self[key] = self.get(key, 0) + 1

    def leave(self, key: bytes, *, is_small: bool) -> None:
        """That command has ended, and may have shown that the value is small now."""
        self[key] -= 1
        if self[key] == 0 and (is_small or len(self) > _REMEMBERED):
            del self[key]


_ADMITTED_AT_ONCE = 512


class SendQueue:
    """Open, it offers the connection; held, it keeps callers waiting and admits them in their order."""

    def __init__(self) -> None:
        self.connection: Connection | None = None
        """The connection, if a command may be sent at this moment without waiting."""
        self._usable: Connection | None = None
        self._waiting: deque[asyncio.Future[Connection]] = deque()

    async def enter(self) -> Connection:
        """The connection, when it is the caller's turn. The caller limits how long it waits.

        Raises:
            CacheError: what ``refuse`` was called with.
        """
        if self.connection is not None:
            return self.connection
        turn: asyncio.Future[Connection] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        return await turn

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits."""
        return any(not turn.done() for turn in self._waiting)

    def open(self, connection: Connection) -> None:
        """Let callers send on this connection: first those that wait, then new ones."""
        self._usable = connection
        self._admit()

    def hold(self) -> None:
        """Make callers wait."""
        self.connection = self._usable = None

    def refuse(self, error: DataLayerError) -> None:
        """Raise this error in all callers that wait."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_exception(type(error)(str(error)))

    def _admit(self) -> None:
        connection = self._usable
        if connection is None:
            return
        if not self._waiting:
            self.connection = connection
            return
        for _ in range(min(len(self._waiting), _ADMITTED_AT_ONCE)):
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(connection)
        # Those just admitted send before this runs, so they are not overtaken.
        asyncio.get_running_loop().call_soon(self._admit)


_LARGE_AT_ONCE = 8
_PREPARATION_LIMIT = 30.0

logger = get_log(__name__)


class Node:
    """Connects when it is needed, and reconnects.

    All connections lead to the same process of a server. The name may be that of a proxy or an endpoint which leads to
    another server from now on: when a connection ends, or reaches another process than the others, they are all closed
    or have to prove themselves, and the next command looks the name up again.

    While the breaker is closed, a caller who finds no connection makes one. When it is open, callers are refused at
    once, and only a task of this class tries to connect, with growing pauses.

    Args:
        name: the server as statistics and errors show it, until it was located.
        locate: says where the server is; asked before each connection.
        prepare: is awaited with each new connection before anybody else may use it.
    """

    def __init__(self, name: str, connector: Connector, locate: Locate, prepare: Prepare) -> None:
        self.name = name
        self.queue = SendQueue()
        self.large = LargeKeys()
        self.breaker = CircuitBreaker()
        self._connector = connector
        self._locate = locate
        self._prepare = prepare
        self.address: ServerAddress | None = None
        """Where the last connection went to."""
        self._main: Connection | None = None
        self._large_connection: Connection | None = None
        self._listening: set[Connection] = set()
        self.generation = 0
        """Grows with each connection that may lead to another server, or to a server with other data, than before."""
        self._run_id = ""
        self._connected_at = 0.0
        self._large_turn = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._must_prepare = self._is_preparing = False
        self._answered_when_ready = 0
        self._last_failure = ""
        self._refusal: DataLayerError | None = None

    @property
    def is_closed(self) -> bool:
        """Whether it was closed or retired."""
        return self._refusal is not None

    @property
    def breaker_state(self) -> BreakerState:
        """Whether this server is asked."""
        return self.breaker.state

    @property
    def connections(self) -> int:
        """Open connections of this process, without those for tracking."""
        return sum(connection is not None for connection in (self._main, self._large_connection))

    def was_connected_for(self, seconds: float) -> bool:
        """Whether it is connected to, and was for so long."""
        return self._main is not None and monotonic() > self._connected_at + seconds

    async def locate(self) -> ServerAddress:
        """Where the server is.

        Raises:
            CacheError: when its address cannot be found out.
        """
        if self._main is None or self.address is None:
            self.address = await self._locate()
            self.name = str(self.address)
        return self.address

    @property
    def host(self) -> str:
        """The host of a server that does not report one."""
        return self.address.host if self.address is not None else "localhost"

    async def admit(self) -> Connection:
        """The connection for ordinary commands, as soon as it is the caller's turn, within the time limits.

        Raises:
            CacheError: or the subclass that says why there is none.
        """
        try:
            async with asyncio.timeout(self._connector.connect_timeout + self._connector.command_timeout):
                return await self.wait_for_turn()
        except TimeoutError:
            raise CacheTimeoutError(
                f"the connection to Redis at {self.name} stayed in use for REDIS_COMMAND_TIMEOUT"
            ) from None

    async def wait_for_turn(self) -> Connection:
        """As ``admit``, for a caller with its own time limit."""
        self._refuse_if_out_of_use()
        if self._main is None:
            self._start(self._connect)
        return await self.queue.enter()

    async def send_large(self, packed: Sequence[bytes]) -> list[Any]:
        """Send commands on the connection for large ones, behind all that was sent before on the other; the answers.

        Raises:
            CacheError: when they could not be sent.
        """
        limit = self._connector.connect_timeout + 2 * self._connector.command_timeout
        try:
            async with asyncio.timeout(limit), self._large_turn:
                main = await self.wait_for_turn()
                await main.passed(main.sent)
                connection = await self._admit_large()
                # Meanwhile the other connection may have become full, or have been lost.
                await self.wait_for_turn()
                waiters = [connection.send(command) for command in packed]
        except TimeoutError:
            raise CacheTimeoutError(
                f"the connection for large values to Redis at {self.name} stayed in use for too long"
            ) from None
        return [await waiter for waiter in waiters]

    async def open_connection(self, *, on_push: OnPush, on_closed: Callable[[], None]) -> Connection:
        """A connection of the caller's own, which the caller closes, to the server that ordinary commands go to.

        Raises:
            CacheError: when there is none to be had.
        """
        connection = await self._connector.open(await self.locate(), on_push=on_push, is_primary=True)
        self._require_same_server(connection)

        def end() -> None:
            self._listening.discard(connection)
            on_closed()
            self._doubt()

        connection.on_closed = end
        self._listening.add(connection)
        return connection

    def abandon(self, reason: str) -> None:
        """Close all connections, so that the next command looks up where the server is.

        Commands that have been written are answered first if that takes no longer than a moment: whether one that may
        not be repeated was carried out could not be known otherwise.
        """
        if self._main is not None:
            self._main.finish(reason)
        self._close_others(reason)

    def require_same_server(self, run_id: str) -> None:
        """Close all connections if they lead to another process than the one with this id.

        Raises:
            ServerReplacedError: when they do.
        """
        if self._main is not None and self._main.run_id != run_id:
            reason = "its address leads to another server now"
            logger.info("cache_server_replaced", server=self.name)
            self.abandon(reason)
            raise ServerReplacedError(f"Redis at {self.name} was replaced: {reason}")

    def prepare_again(self) -> None:
        """Hold all commands until ``prepare`` has been awaited once more."""
        self._must_prepare = True
        if self._main is not None:
            self._is_preparing = True
            self.queue.hold()
            self._start(self._prepare_again)

    async def close(self) -> None:
        """Refuse further commands, waits for those under way (each has its time limit), and closes the connections."""
        await self._end(NotInitializedError("the cache was closed"))

    async def retire(self) -> None:
        """As ``close``, because this server no longer holds data; waiting callers look for another."""
        await self._end(CacheUnavailableError(f"Redis at {self.name} is no longer a primary"))

    async def _end(self, refusal: DataLayerError) -> None:
        self._refusal = refusal
        await cancel_and_wait(self._task)
        self.queue.refuse(refusal)
        self.queue.hold()
        connections = [*([self._main] if self._main is not None else []), *self._others]
        try:
            for connection in connections:
                await connection.passed(connection.sent)
        finally:
            for connection in connections:
                connection.close("the cache was closed")

    def _refuse_if_out_of_use(self) -> None:
        if self._refusal is not None:
            raise type(self._refusal)(str(self._refusal))
        if not self.breaker.is_closed:
            raise CacheUnavailableError(
                f"Redis at {self.name} has failed again and again and is left alone for a moment: {self._last_failure}"
            )

    # The connection for ordinary commands

    def _start(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run this in the one task of this server, unless that is busy already."""
        if self._task is None and self._refusal is None:
            self._task = asyncio.create_task(work())
            self._task.add_done_callback(self._finish)

    def _finish(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.warning("cache_connection_failed", server=self.name, error=type(error).__name__)
            self.queue.refuse(CacheUnavailableError(f"Redis at {self.name} could not be connected to"))
        if self._main is None and (self.queue.is_awaited or not self.breaker.is_closed):
            self._start(self._connect)
        elif self._main is not None and self._must_prepare:
            self._start(self._prepare_again)

    async def _connect(self) -> None:
        """Try once while the breaker is closed, and for as long as it takes when it is not."""
        while True:
            if not self.breaker.is_closed:
                await asyncio.sleep(self.breaker.next_pause())
                self.breaker.try_again()
            try:
                await self._connect_once()
            except CacheError as error:
                self.queue.refuse(error)
                self._note_failure(str(error))
                if self.breaker.is_closed:
                    return
            else:
                return

    async def _connect_once(self) -> None:
        connection = await self._connector.open(await self.locate(), is_measured=True, is_primary=True)
        if not connection.run_id or connection.run_id != self._run_id:
            self._run_id = connection.run_id
            self.generation += 1
        try:
            await self._make_ready(connection)
        except BaseException:
            connection.close()
            raise
        self._main, self._connected_at = connection, monotonic()
        connection.on_closed = self._lose_connection
        connection.on_full = self.queue.hold
        connection.on_room = self._open_queue
        self._answered_when_ready = connection.answered
        for other in self._others:
            if other.run_id != connection.run_id:
                other.close("another server was connected to")
        if not self.breaker.is_closed:
            self.breaker.note_success_of_attempt()
            logger.info("cache_server_available", server=self.name)
        self._open_queue()

    async def _prepare_again(self) -> None:
        connection = self._main
        if connection is None:
            return
        try:
            await self._make_ready(connection)
        except CacheError as error:
            connection.close(str(error))
        else:
            self._open_queue()

    def _open_queue(self) -> None:
        if self._main is not None and not self._main.is_full and not self._is_preparing:
            self.queue.open(self._main)

    async def _make_ready(self, connection: Connection) -> None:
        self._must_prepare = self._is_preparing = True
        try:
            while self._must_prepare:
                self._must_prepare = False
                async with asyncio.timeout(_PREPARATION_LIMIT):
                    await self._prepare(self, connection)
        except TimeoutError:
            raise CacheTimeoutError(f"Redis at {self.name} was not made ready in time") from None
        finally:
            self._is_preparing = False
        if connection.reason is not None:
            raise translate(connection.reason, self.name)

    def _lose_connection(self) -> None:
        connection, self._main = self._main, None
        self.queue.hold()
        if connection is None:
            return
        if connection.answered > self._answered_when_ready:
            self.breaker.note_answer()
        self._close_others("the connection for commands broke")
        if connection.sent > connection.answered and self._refusal is None:
            self._note_failure(str(connection.reason))
        if self.queue.is_awaited or not self.breaker.is_closed:
            self._start(self._connect)

    @property
    def _others(self) -> list[Connection]:
        return [*self._listening, *([self._large_connection] if self._large_connection is not None else [])]

    def _close_others(self, reason: str) -> None:
        for connection in list(self._listening):
            connection.close(reason)
        if self._large_connection is not None:
            self._large_connection.finish(reason)

    def _doubt(self) -> None:
        """Another connection has ended: the one for commands proves that its server is there and a primary."""
        if self._main is not None:
            self._main.require_proof()

    def _require_same_server(self, connection: Connection) -> None:
        try:
            self.require_same_server(connection.run_id)
        except ServerReplacedError:
            connection.close()
            raise

    def _note_failure(self, reason: str) -> None:
        was_closed = self.breaker.is_closed
        self._last_failure = reason
        self.breaker.note_failure()
        if was_closed and not self.breaker.is_closed:
            self.queue.refuse(CacheUnavailableError(f"Redis at {self.name} failed again and again: {reason}"))
            logger.warning("cache_breaker_opened", server=self.name, reason=reason)

    # The connection for large values

    async def _admit_large(self) -> Connection:
        if self._large_connection is None:
            connection = await self._connector.open(
                await self.locate(), maximum_waiting=_LARGE_AT_ONCE, is_primary=True
            )
            self._require_same_server(connection)
            connection.on_closed = self._lose_large_connection
            self._large_connection = connection
        connection = self._large_connection
        await connection.has_room()
        return connection

    def _lose_large_connection(self) -> None:
        self._large_connection = None
        self._doubt()
