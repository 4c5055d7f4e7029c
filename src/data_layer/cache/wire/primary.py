"""One server that holds data: its two lines, its breaker, and how it is reached again after a failure."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, Any

from data_layer.cache.errors import translate
from data_layer.cache.wire.breaker import BreakerState, CircuitBreaker
from data_layer.cache.wire.gate import Gate
from data_layer.cache.wire.large_keys import LargeKeys
from data_layer.errors import (
    CacheError,
    CacheTimeoutError,
    CacheUnavailableError,
    DataLayerError,
    NotInitializedError,
)
from data_layer.observability.log import get_log

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

    from data_layer.cache.address import ServerAddress
    from data_layer.cache.wire.connect import Connector
    from data_layer.cache.wire.line import Line, OnPush

    Locate = Callable[[], Awaitable[ServerAddress]]
    Prepare = Callable[["Primary", Line], Awaitable[None]]

_LARGE_AT_ONCE = 8
_PREPARATION_LIMIT = 30.0

logger = get_log(__name__)


class Primary:
    """Connects when it is needed, and reconnects.

    All connections lead to the same process of a server. The name may be that of a proxy or an endpoint which leads to
    another server from now on: when a connection ends, or reaches another process than the others, they are all closed
    or have to prove themselves, and the next command looks the name up again.

    While the breaker is closed, a caller who finds no connection makes one. When it is open, callers are refused at
    once, and only a task of this class tries to connect, with growing pauses.

    Args:
        name: the server as statistics and errors show it, until it was located.
        locate: says where the server is; asked before each connection.
        prepare: is awaited with each new line before anybody else may use it.
    """

    def __init__(self, name: str, connector: Connector, locate: Locate, prepare: Prepare) -> None:
        self.name = name
        self.gate = Gate()
        self.large = LargeKeys()
        self.breaker = CircuitBreaker()
        self._connector = connector
        self._locate = locate
        self._prepare = prepare
        self.address: ServerAddress | None = None
        """Where the last connection went to."""
        self._main: Line | None = None
        self._large_line: Line | None = None
        self._listening: set[Line] = set()
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
        """Open lines of this process, without those for tracking."""
        return sum(line is not None for line in (self._main, self._large_line))

    def was_connected_for(self, seconds: float) -> bool:
        """Whether it is connected to, and was for so long."""
        return self._main is not None and monotonic() > self._connected_at + seconds

    async def locate(self) -> ServerAddress:
        """Where the server is.

        Raises:
            CacheError: when nobody knows.
        """
        if self._main is None or self.address is None:
            self.address = await self._locate()
            self.name = str(self.address)
        return self.address

    @property
    def host(self) -> str:
        """Where another server is that gives no host of its own."""
        return self.address.host if self.address is not None else "localhost"

    async def admit(self) -> Line:
        """The line for ordinary commands, as soon as it is the caller's turn, within the time limits.

        Raises:
            CacheError: or the subclass that says why there is none.
        """
        try:
            async with asyncio.timeout(self._connector.connect_timeout + self._connector.command_timeout):
                return await self.wait_for_turn()
        except TimeoutError:
            raise CacheTimeoutError(
                f"The connection to Redis at {self.name} stayed in use for REDIS_COMMAND_TIMEOUT"
            ) from None

    async def wait_for_turn(self) -> Line:
        """As ``admit``, for a caller that has a time limit of its own."""
        self._refuse_if_out_of_use()
        if self._main is None:
            self._start(self._connect)
        return await self.gate.enter()

    async def send_large(self, packed: Sequence[bytes]) -> list[Any]:
        """Sends commands on the line for large ones, behind all that was sent before on the other; the answers.

        Raises:
            CacheError: when they could not be sent.
        """
        limit = self._connector.connect_timeout + 2 * self._connector.command_timeout
        try:
            async with asyncio.timeout(limit), self._large_turn:
                main = await self.wait_for_turn()
                await main.passed(main.sent)
                line = await self._admit_large()
                # Meanwhile the other connection may have become full, or have been lost.
                await self.wait_for_turn()
                waiters = [line.send(command) for command in packed]
        except TimeoutError:
            raise CacheTimeoutError(
                f"The connection for large values to Redis at {self.name} stayed in use for too long"
            ) from None
        return [await waiter for waiter in waiters]

    async def open_line(self, *, on_push: OnPush, on_closed: Callable[[], None]) -> Line:
        """A connection of the caller's own, which the caller closes, to the server that ordinary commands go to.

        Raises:
            CacheError: when there is none to be had.
        """
        line = await self._connector.open(await self.locate(), on_push=on_push, is_primary=True)
        self._require_same_server(line)

        def end() -> None:
            self._listening.discard(line)
            on_closed()
            self._doubt()

        line.on_closed = end
        self._listening.add(line)
        return line

    def abandon(self, reason: str) -> None:
        """Closes all connections, so that the next command looks up where the server is."""
        if self._main is not None:
            self._main.close(reason)
        self._close_others(reason)

    def require_same_server(self, run_id: str) -> None:
        """Closes all connections if they lead to another process than the one with this id.

        Raises:
            CacheUnavailableError: when they do.
        """
        if self._main is not None and self._main.run_id != run_id:
            reason = "its address leads to another server now"
            logger.info("cache_server_replaced", server=self.name)
            self.abandon(reason)
            raise CacheUnavailableError(f"Redis at {self.name} was replaced: {reason}")

    def prepare_again(self) -> None:
        """Lets nobody send until ``prepare`` has been awaited once more."""
        self._must_prepare = True
        if self._main is not None:
            self._is_preparing = True
            self.gate.hold()
            self._start(self._prepare_again)

    async def close(self) -> None:
        """Refuses further commands, waits for those under way (each has its time limit), and closes the lines."""
        await self._end(NotInitializedError("The cache was closed"))

    async def retire(self) -> None:
        """As ``close``, but because this server holds no data any more; who waits will look for another."""
        await self._end(CacheUnavailableError(f"Redis at {self.name} is no primary any more"))

    async def _end(self, refusal: DataLayerError) -> None:
        self._refusal = refusal
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self.gate.refuse(refusal)
        self.gate.hold()
        lines = [*([self._main] if self._main is not None else []), *self._others]
        try:
            for line in lines:
                await line.passed(line.sent)
        finally:
            for line in lines:
                line.close("the cache was closed")

    def _refuse_if_out_of_use(self) -> None:
        if self._refusal is not None:
            raise type(self._refusal)(str(self._refusal))
        if not self.breaker.is_closed:
            raise CacheUnavailableError(
                f"Redis at {self.name} has failed again and again and is left alone for a moment: {self._last_failure}"
            )

    # The line for ordinary commands

    def _start(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Runs this in the one task of this server, unless that is busy already."""
        if self._task is None and self._refusal is None:
            self._task = asyncio.create_task(work())
            self._task.add_done_callback(self._finish)

    def _finish(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.warning("cache_connection_failed", server=self.name, error=type(error).__name__)
            self.gate.refuse(CacheUnavailableError(f"Redis at {self.name} could not be connected to"))
        if self._main is None and (self.gate.is_awaited or not self.breaker.is_closed):
            self._start(self._connect)
        elif self._main is not None and self._must_prepare:
            self._start(self._prepare_again)

    async def _connect(self) -> None:
        """Tries once while the breaker is closed, and for as long as it takes when it is not."""
        while True:
            if not self.breaker.is_closed:
                await asyncio.sleep(self.breaker.next_pause())
                self.breaker.try_again()
            try:
                await self._connect_once()
            except CacheError as error:
                self.gate.refuse(error)
                self._note_failure(str(error))
                if self.breaker.is_closed:
                    return
            else:
                return

    async def _connect_once(self) -> None:
        line = await self._connector.open(await self.locate(), is_measured=True, is_primary=True)
        if not line.run_id or line.run_id != self._run_id:
            self._run_id = line.run_id
            self.generation += 1
        try:
            await self._make_ready(line)
        except BaseException:
            line.close()
            raise
        self._main, self._connected_at = line, monotonic()
        line.on_closed = self._lose_line
        line.on_full = self.gate.hold
        line.on_room = self._open_gate
        self._answered_when_ready = line.answered
        for other in self._others:
            if other.run_id != line.run_id:
                other.close("another server was connected to")
        if not self.breaker.is_closed:
            self.breaker.note_success_of_attempt()
            logger.info("cache_server_available", server=self.name)
        self._open_gate()

    async def _prepare_again(self) -> None:
        line = self._main
        if line is None:
            return
        try:
            await self._make_ready(line)
        except CacheError as error:
            line.close(str(error))
        else:
            self._open_gate()

    def _open_gate(self) -> None:
        if self._main is not None and not self._main.is_full and not self._is_preparing:
            self.gate.open(self._main)

    async def _make_ready(self, line: Line) -> None:
        self._must_prepare = self._is_preparing = True
        try:
            while self._must_prepare:
                self._must_prepare = False
                async with asyncio.timeout(_PREPARATION_LIMIT):
                    await self._prepare(self, line)
        except TimeoutError:
            raise CacheTimeoutError(f"Redis at {self.name} was not made ready in time") from None
        finally:
            self._is_preparing = False
        if line.reason is not None:
            raise translate(line.reason, self.name)

    def _lose_line(self) -> None:
        line, self._main = self._main, None
        self.gate.hold()
        if line is None:
            return
        if line.answered > self._answered_when_ready:
            self.breaker.note_answer()
        self._close_others("the connection for commands broke")
        if line.sent > line.answered and self._refusal is None:
            self._note_failure(str(line.reason))
        if self.gate.is_awaited or not self.breaker.is_closed:
            self._start(self._connect)

    @property
    def _others(self) -> list[Line]:
        return [*self._listening, *([self._large_line] if self._large_line is not None else [])]

    def _close_others(self, reason: str) -> None:
        for line in self._others:
            line.close(reason)

    def _doubt(self) -> None:
        """Another connection has ended: the one for commands proves that its server is there and a primary."""
        if self._main is not None:
            self._main.require_proof()

    def _require_same_server(self, line: Line) -> None:
        try:
            self.require_same_server(line.run_id)
        except CacheUnavailableError:
            line.close()
            raise

    def _note_failure(self, reason: str) -> None:
        was_closed = self.breaker.is_closed
        self._last_failure = reason
        self.breaker.note_failure()
        if was_closed and not self.breaker.is_closed:
            self.gate.refuse(CacheUnavailableError(f"Redis at {self.name} failed again and again: {reason}"))
            logger.warning("cache_breaker_opened", server=self.name, reason=reason)

    # The line for large values

    async def _admit_large(self) -> Line:
        if self._large_line is None:
            line = await self._connector.open(await self.locate(), maximum_waiting=_LARGE_AT_ONCE, is_primary=True)
            self._require_same_server(line)
            line.on_closed = self._lose_large_line
            self._large_line = line
        line = self._large_line
        await line.has_room()
        return line

    def _lose_large_line(self) -> None:
        self._large_line = None
        self._doubt()
