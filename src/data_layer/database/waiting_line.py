"""Which task gets the next connection while all are in use, and which is refused.

The pool itself lets any number of tasks wait, in the order in which they came. Here a probe comes first, then what is
shed last, then everything else, each in the order in which it came. Of the rest at most DB_POOL_QUEUE tasks wait;
one more is refused at once, because it would hardly be served in time.

``data_layer.context.current_patience`` says what a task is. Work that no request began is shed last: it may hold what
is stored nowhere else.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from data_layer.context import Priority, current_patience
from data_layer.errors import DatabaseOverloadedError, PoolTimeoutError

NONE_FREE = (
    "no connection to PostgreSQL became free in time; raise DB_MAX_CONNECTIONS or DB_POOL_TIMEOUT, "
    "or look for transactions that stay open"
)
_CHECK_SECONDS = 0.05
_Waiter = asyncio.Future[None]


class WaitingLine:
    """Lets tasks take connections as they become free.

    Args:
        free: how many connections can be taken at once.
        most: how many ordinary tasks may wait (DB_POOL_QUEUE).
        seconds: how long a task waits that names no time of its own (DB_POOL_TIMEOUT).
    """

    def __init__(self, free: Callable[[], int], *, most: int, seconds: float) -> None:
        self._free = free
        self._most = most
        self._seconds = seconds
        self._lines: dict[Priority, deque[_Waiter]] = {priority: deque() for priority in Priority}
        self._length = 0
        self._promised = 0
        self._check: asyncio.TimerHandle | None = None

    @property
    def is_needed(self) -> bool:
        """Whether a task that wants a connection now has to wait."""
        return self._length > 0 or self._free() <= self._promised

    async def wait(self) -> None:
        """Return when a connection is free. The caller takes it before it awaits anything.

        Raises:
            DatabaseOverloadedError: too many tasks wait.
            PoolTimeoutError: no connection became free in time.
        """
        patience = current_patience()
        line = self._lines[patience.priority]
        if patience.priority is Priority.ORDINARY and len(line) >= self._most:
            raise DatabaseOverloadedError(
                f"all connections to PostgreSQL are in use, and {self._most} tasks wait for one (DB_POOL_QUEUE); "
                "repeat it in a few seconds"
            )
        waiter = asyncio.get_running_loop().create_future()
        line.append(waiter)
        self._length += 1
        self._check_soon()
        try:
            async with asyncio.timeout(self._seconds if patience.seconds is None else patience.seconds):
                await waiter
        except BaseException as error:
            self._leave(line, waiter)
            if isinstance(error, TimeoutError):
                raise PoolTimeoutError(NONE_FREE) from None
            raise
        self._promised -= 1

    def wake(self) -> None:
        """Let tasks go on for which connections are free."""
        while self._length and self._free() > self._promised:
            line = next(line for line in self._lines.values() if line)
            waiter = line.popleft()
            self._length -= 1
            if not waiter.done():
                self._promised += 1
                waiter.set_result(None)

    def _leave(self, line: deque[_Waiter], waiter: _Waiter) -> None:
        if waiter.done() and not waiter.cancelled():
            # It was let through at the moment at which it gave up.
            self._promised -= 1
            self.wake()
            return
        with suppress(ValueError):
            line.remove(waiter)
            self._length -= 1

    def _check_soon(self) -> None:
        """Look again soon: a connection may become free in other ways than by ``Database.give_back``."""
        if self._check is None:
            self._check = asyncio.get_running_loop().call_later(_CHECK_SECONDS, self._check_now)

    def _check_now(self) -> None:
        self._check = None
        self.wake()
        if self._length:
            self._check_soon()
