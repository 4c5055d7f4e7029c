"""One connection to one server: commands of one turn of the event loop leave together, answers come back in order."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from hiredis import ProtocolError, PushNotification, Reader, pack_command

from data_layer.cache.errors import LineFailure, LineGarbled, LineLost, LineTimedOut, translate

if TYPE_CHECKING:
    from collections.abc import Callable

    from data_layer.cache.latency import LatencyHistogram

    OnPush = Callable[[list[Any]], None]

Command: TypeAlias = tuple[str | bytes | int, ...]
# hiredis's own annotation says a tuple of one element.
pack = cast("Callable[[Command], bytes]", pack_command)

MAXIMUM_WAITING = 4096
"""Answers that a line waits for before it takes no more commands."""
_MAXIMUM_UNWRITTEN = 2**20
_MAXIMUM_ANSWER = 2**28
_GRACE = 0.02
_INCOMPLETE: Final = object()


def _nothing() -> None:
    pass


class Line(asyncio.Protocol):
    """Carries commands to one server. Used from one event loop.

    The oldest command that is not answered decides: when it is overdue, the line is broken off, because the answers
    of all others come behind it. So there is one timer for the line and none for a command.

    A caller that is cancelled leaves its place in the queue, and its answer is thrown away when it comes.

    Args:
        name: the server, as errors show it.
        time_limit: seconds from the writing of a command to its answer.
        maximum_waiting: commands under way before the line calls itself full.
        on_push: gets each message that is no answer, such as ``[b"invalidate", [b"key"]]``.
        latencies: are told how long each write waited for its last answer.
    """

    def __init__(
        self,
        name: str,
        time_limit: float,
        *,
        maximum_waiting: int = MAXIMUM_WAITING,
        on_push: OnPush | None = None,
        latencies: LatencyHistogram | None = None,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.name = name
        self.answered = 0
        self.is_full = False
        self.on_full: Callable[[], None] = _nothing
        self.on_room: Callable[[], None] = _nothing
        self.on_closed: Callable[[], None] = _nothing
        self._on_push = on_push
        self._latencies = latencies
        self._time_limit = time_limit
        self._maximum_waiting = maximum_waiting
        self._loop = loop
        self._create_future = loop.create_future
        self._call_soon = loop.call_soon
        self._reader = Reader(notEnoughData=_INCOMPLETE)
        self._transport: asyncio.Transport | None = None
        self._unwritten: list[bytes] = []
        self._unwritten_size = 0
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._is_paused = False
        self._room = asyncio.Event()
        self._room.set()
        # The number of the last command of each write, and when it was written.
        self._writes: deque[tuple[int, float]] = deque()
        self._marks: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._is_doubtful = False
        self._reason: LineFailure | None = None

    @property
    def is_closed(self) -> bool:
        """Whether nothing can be sent any more."""
        return self._reason is not None

    @property
    def reason(self) -> LineFailure | None:
        """Why it is closed."""
        return self._reason

    @property
    def sent(self) -> int:
        """The number of the last command that was handed over."""
        return self.answered + len(self._waiting)

    def send(self, packed: bytes) -> asyncio.Future[Any]:
        """Hands one command over; the future gets the answer, a ``ReplyError`` or a ``LineFailure``, never raised."""
        waiter = self._create_future()
        if self._reason is not None:
            waiter.set_result(LineLost(str(self._reason), was_written=False))
            return waiter
        self._waiting.append(waiter)
        if not self._unwritten:
            self._call_soon(self._write)
        self._unwritten.append(packed)
        self._unwritten_size += len(packed)
        if self._unwritten_size > _MAXIMUM_UNWRITTEN:
            self._fill()
        return waiter

    async def run(self, *command: str | bytes | int) -> Any:
        """The answer to one command.

        Raises:
            CacheError: or the subclass that says what was wrong.
        """
        answer = await self.send(pack(command))
        if isinstance(answer, Exception):
            raise translate(answer, self.name) from None
        return answer

    def passed(self, number: int) -> asyncio.Future[None]:
        """Done when the command with this number and all before it were answered, or never will be."""
        mark = self._create_future()
        if self._reason is not None or number <= self.answered:
            mark.set_result(None)
        else:
            self._marks.append((number, mark))
        return mark

    async def has_room(self) -> None:
        """Waits until the line is not full, or is closed."""
        await self._room.wait()

    def close(self, reason: str = "the connection was closed") -> None:
        """Breaks the line off; whoever waits is told."""
        self._break(LineLost(reason))

    # What the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The transport is ready."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Hands each complete answer to the caller whose turn it is."""
        reader, waiting = self._reader, self._waiting
        try:
            reader.feed(data)
            while (answer := reader.gets()) is not _INCOMPLETE:
                if answer.__class__ is PushNotification:
                    self._push(answer)
                    continue
                if not waiting:
                    self._break(LineGarbled())
                    return
                waiter = waiting.popleft()
                self.answered += 1
                if not waiter.done():
                    waiter.set_result(answer)
        except ProtocolError:
            self._break(LineGarbled())
            return
        if reader.len() > _MAXIMUM_ANSWER:
            self._break(LineGarbled())
        else:
            self._note_progress()

    def pause_writing(self) -> None:
        """The network takes no more for now."""
        self._is_paused = True
        self._fill()

    def resume_writing(self) -> None:
        """The network takes more again."""
        self._is_paused = False
        self._make_room()

    def connection_lost(self, error: Exception | None) -> None:
        """The other side has closed, or the network broke."""
        self._break(LineLost(str(error) if error is not None else "the server closed the connection"))

    def _write(self) -> None:
        unwritten = self._unwritten
        if self._transport is None or not unwritten:
            return
        packet = unwritten[0] if len(unwritten) == 1 else b"".join(unwritten)
        unwritten.clear()
        self._unwritten_size = 0
        now = self._loop.time()
        self._writes.append((self.sent, now))
        if self._timer is None:
            self._timer = self._loop.call_at(now + self._time_limit, self._look_for_overdue)
        self._transport.write(packet)
        if len(self._waiting) >= self._maximum_waiting:
            self._fill()
        elif self.is_full:
            self._make_room()

    def _note_progress(self) -> None:
        answered, writes, marks = self.answered, self._writes, self._marks
        if writes and writes[0][0] <= answered:
            now = self._loop.time()
            while writes and writes[0][0] <= answered:
                _, written = writes.popleft()
                if self._latencies is not None:
                    self._latencies.note(now - written)
        while marks and marks[0][0] <= answered:
            _release(marks.popleft()[1])
        if self.is_full:
            self._make_room()

    def _fill(self) -> None:
        if not self.is_full:
            self.is_full = True
            self._room.clear()
            self.on_full()

    def _make_room(self) -> None:
        is_busy = self._is_paused or self._unwritten_size > _MAXIMUM_UNWRITTEN
        if self.is_full and not is_busy and len(self._waiting) <= self._maximum_waiting // 2:
            self.is_full = False
            self._room.set()
            self.on_room()

    def _look_for_overdue(self) -> None:
        self._timer = None
        if not self._writes:
            self._is_doubtful = False
            return
        due = self._writes[0][1] + self._time_limit
        now = self._loop.time()
        if now < due:
            self._is_doubtful = False
            self._timer = self._loop.call_at(due, self._look_for_overdue)
        elif self._is_doubtful:
            self._break(LineTimedOut())
        else:
            # If the loop was busy for long, the answer may be there already and only has to be read.
            self._is_doubtful = True
            self._timer = self._loop.call_at(now + _GRACE, self._look_for_overdue)

    def _push(self, message: list[Any]) -> None:
        if self._on_push is not None:
            self._on_push(message)

    def _break(self, reason: LineFailure) -> None:
        if self._reason is not None:
            return
        self._reason = reason
        self._room.set()
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.abort()
        self.on_closed()
        written = len(self._waiting) - len(self._unwritten)
        for number, waiter in enumerate(self._waiting):
            if not waiter.done():
                waiter.set_result(reason if number < written else LineLost(str(reason), was_written=False))
        for _, mark in self._marks:
            _release(mark)
        for queue in (self._waiting, self._unwritten, self._marks, self._writes):
            queue.clear()


def _release(mark: asyncio.Future[None]) -> None:
    if not mark.done():
        mark.set_result(None)
