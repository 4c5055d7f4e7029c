"""Asynchronous craft in one place: finish in spite of cancellation, end tasks, share a call, retry, write regularly."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Hashable
from contextvars import Context
from time import monotonic
from typing import Any, Generic, TypeVar

Result = TypeVar("Result")
Key = TypeVar("Key", bound=Hashable)
Error = TypeVar("Error", bound=Exception)

_CLOSE_SECONDS = 5.0


async def settled(
    future: asyncio.Future[Any], *, on_cancel: Callable[[], object] | None = None, patience: float | None = None
) -> asyncio.CancelledError | None:
    """Wait until a future is done even when the caller is cancelled meanwhile.

    The future's own error is neither raised nor reported as never retrieved.

    Args:
        future: what to wait for; it is not cancelled with the caller.
        on_cancel: called once, when the caller is cancelled, so that the work can be cut short.
        patience: seconds that a cancelled caller goes on waiting; then the future is cancelled and left alone.

    Returns:
        The first cancellation that came meanwhile, which the caller has to raise.
    """
    cancellation: asyncio.CancelledError | None = None
    deadline: float | None = None
    while not future.done() and (deadline is None or deadline > monotonic()):
        try:
            if deadline is None:
                await _ended(future)
            else:
                await asyncio.wait([future], timeout=deadline - monotonic())
        except asyncio.CancelledError as error:
            if cancellation is None:
                cancellation = error
                deadline = None if patience is None else monotonic() + patience
                if on_cancel is not None:
                    on_cancel()
    if not future.done():
        future.cancel()
    ignore_error(future)
    return cancellation


async def _ended(future: asyncio.Future[Any]) -> None:
    """Wait for one future as ``asyncio.wait`` does, at a third of the cost."""
    ended = future.get_loop().create_future()

    def wake(_: asyncio.Future[Any]) -> None:
        if not ended.done():
            ended.set_result(None)

    future.add_done_callback(wake)
    try:
        await ended
    finally:
        future.remove_done_callback(wake)


async def uninterrupted(work: Coroutine[Any, Any, Result]) -> Result:
    """Run work to its end even when the caller is cancelled meanwhile; the cancellation is raised afterwards."""
    task = asyncio.create_task(work)
    cancellation = await settled(task)
    result = task.result()
    if cancellation is not None:
        raise cancellation
    return result


def ignore_error(future: asyncio.Future[Any]) -> None:
    """Keep asyncio from reporting the error of a future whose outcome nobody wants any more."""
    if not future.done():
        future.add_done_callback(ignore_error)
    elif not future.cancelled():
        future.exception()


def cancel_and_ignore(task: asyncio.Task[Any]) -> None:
    """Cancel a task, whose outcome nobody wants any more, without waiting for its end. Harmless when it has ended."""
    task.cancel()
    ignore_error(task)


async def cancel_and_wait(*tasks: asyncio.Task[Any] | None) -> None:
    """End tasks and return when they have ended; how they ended is ignored, and ``None`` is ignored."""
    running = [task for task in tasks if task is not None]
    for task in running:
        cancel_and_ignore(task)
    if running:
        await asyncio.wait(running)


class Background:
    """Work that nobody waits for, until its owner is closed. Holds on to its tasks, which the event loop does not."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run it as a task; it handles its own errors."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def finish(self, seconds: float) -> None:
        """Wait for all tasks, and cancel what is not done in time."""
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=seconds)
            await cancel_and_wait(*late)


async def is_set_within(event: asyncio.Event, seconds: float) -> bool:
    """Wait for an event, at most so many seconds; returns whether it was set."""
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False


def jittered(seconds: float, low: float = 0.5, high: float = 1.0) -> float:
    """A random time between ``low`` and ``high`` times these seconds, so that processes do not act in step."""
    return seconds * random.uniform(low, high)  # noqa: S311  (no secret)


class Backoff:
    """Pauses between attempts that grow from ``first`` to ``longest`` seconds, until ``reset``.

    Args:
        first: in seconds.
        longest: in seconds.
        factor: by how much each pause is longer than the one before.
        jitter: the share of each pause that is taken off at random, at most.
    """

    __slots__ = ("_factor", "_first", "_jitter", "_longest", "_next")

    def __init__(self, first: float, longest: float, *, factor: float = 2.0, jitter: float = 0.0) -> None:
        self._first = first
        self._longest = longest
        self._factor = factor
        self._jitter = jitter
        self._next = first

    def next(self) -> float:
        """Seconds to wait before the next attempt."""
        pause, self._next = self._next, min(self._next * self._factor, self._longest)
        return jittered(pause, 1 - self._jitter)

    def reset(self) -> None:
        """Begin with the first pause again, because an attempt succeeded."""
        self._next = self._first


class _Flight(Generic[Result]):
    """A call that is under way, and how many wait for it."""

    __slots__ = ("begun_at", "task", "waiting")

    def __init__(self, task: asyncio.Task[Result], begun_at: float) -> None:
        self.task = task
        self.begun_at = begun_at
        self.waiting = 0


class SingleFlight(Generic[Key, Result]):
    """Share a call between all callers that ask for the same key while it is under way.

    Cancelling a caller does not end the call for the others.

    Args:
        name: of the tasks, for debugging.
        join_seconds: later callers start a call of their own, so that no caller gets an outdated result.
        cancel_abandoned: cancel a call when the last of its callers has been cancelled; otherwise it runs to its end.
        clock: returns the time in seconds.
    """

    def __init__(
        self,
        name: str,
        *,
        join_seconds: float = float("inf"),
        cancel_abandoned: bool = False,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._name = name
        self._join_seconds = join_seconds
        self._cancel_abandoned = cancel_abandoned
        self._clock = clock
        self._flights: dict[Key, _Flight[Result]] = {}
        self._refusal: Exception | None = None

    def is_under_way(self, key: Key) -> bool:
        """Whether ``run`` would join a call."""
        flight = self._flights.get(key)
        # A call that has ended is in the dictionary until the loop's next turn; waiting for it would give no turn.
        return flight is not None and not flight.task.done() and self._clock() - flight.begun_at <= self._join_seconds

    async def run(self, key: Key, call: Callable[[], Coroutine[Any, Any, Result]], *, alone: bool = False) -> Result:
        """The result of the call of this key that is under way, or of a new one.

        Args:
            key: what is asked for.
            call: starts the work.
            alone: start a new call in any case; later callers join this one.
        """
        if not alone and self.is_under_way(key):
            flight = self._flights[key]
        else:
            flight = self._flights[key] = _Flight(asyncio.create_task(call(), name=self._name), self._clock())
            ignore_error(flight.task)  # When all callers have gone, nothing else retrieves it.
            flight.task.add_done_callback(lambda task: self._land(key, task))
        flight.waiting += 1
        try:
            return await asyncio.shield(flight.task)
        except asyncio.CancelledError:
            if self._refusal is not None and flight.task.cancelled():
                raise self._refusal from None
            raise
        finally:
            flight.waiting -= 1
            if self._cancel_abandoned and not flight.waiting and not flight.task.done():
                self._land(key, flight.task)
                flight.task.cancel()

    async def finish(self) -> None:
        """Wait for the calls that are under way."""
        if self._flights:
            await asyncio.wait([flight.task for flight in self._flights.values()])

    async def close(self, refusal: Exception | None = None) -> None:
        """Cancel the calls that are under way; their callers get ``refusal``, or else the cancellation."""
        self._refusal = refusal
        await cancel_and_wait(*(flight.task for flight in self._flights.values()))

    def _land(self, key: Key, task: asyncio.Task[Result]) -> None:
        flight = self._flights.get(key)
        if flight is not None and flight.task is task:
            del self._flights[key]


class RegularFlush(Generic[Error]):
    """A task that has what was collected written: every few seconds, sooner when it is woken, until it is closed.

    Args:
        flush: writes. It may raise what is ``expected``, and nothing else.
        expected: the kind of errors that pass.
        on_error: called with such an error; the next attempt comes ``retry_seconds`` later than usual.
        on_loss: called with such an error at the end, when no attempt follows.
        seconds: between two times.
        retry_seconds: see ``on_error``.
        name: of the task.
    """

    def __init__(
        self,
        flush: Callable[[], Awaitable[None]],
        expected: type[Error],
        on_error: Callable[[Error], None],
        on_loss: Callable[[Error], None],
        *,
        seconds: float,
        retry_seconds: float,
        name: str,
    ) -> None:
        self._flush = flush
        self._expected = expected
        self._on_error = on_error
        self._on_loss = on_loss
        self._seconds = seconds
        self._retry_seconds = retry_seconds
        self._name = name
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._is_closing = False

    def start(self) -> None:
        """Begin. Harmless when it has begun."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name=self._name, context=Context())

    def wake(self) -> None:
        """Write soon."""
        self._wake.set()

    async def close(self) -> None:
        """Stop, and write what is left.

        What is being written now has five seconds to be written to its end, lest it be written twice.
        """
        task, self._task = self._task, None
        self._is_closing = True
        self._wake.set()
        if task is not None:
            await asyncio.wait([task], timeout=_CLOSE_SECONDS)
            await cancel_and_wait(task)
        try:
            await self._flush()
        except self._expected as error:
            self._on_loss(error)

    async def _run(self) -> None:
        while not self._is_closing:
            await is_set_within(self._wake, self._seconds)
            self._wake.clear()
            try:
                await self._flush()
            except self._expected as error:
                self._on_error(error)
                await asyncio.sleep(self._retry_seconds)


class Room:
    """Bytes of memory that calls share: where too few are left they wait, in the order in which they came.

    Args:
        most: how many there are.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._left = most
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def take(self, size: int) -> int:
        """Wait for so many bytes, and return how many were taken: never more than there are at all."""
        size = min(size, self._most)
        if not self._waiting and size <= self._left:
            self._left -= size
            return size
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((size, turn))
        try:
            await turn
        except asyncio.CancelledError:
            self.give(0 if turn.cancelled() else size)
            raise
        return size

    def give(self, size: int) -> None:
        """Give bytes back, and let those in who wait for them."""
        self._left += size
        while self._waiting and (self._waiting[0][0] <= self._left or self._waiting[0][1].cancelled()):
            wanted, turn = self._waiting.popleft()
            if not turn.cancelled():
                self._left -= wanted
                turn.set_result(None)
