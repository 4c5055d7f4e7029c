"""Who may send when: callers wait in order while there is no line, or while it is full."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from data_layer.cache.wire.line import Line
    from data_layer.errors import DataLayerError

_ADMITTED_AT_ONCE = 512


class Gate:
    """Open, it shows the line; held, it keeps callers waiting, and lets them pass in the order in which they came."""

    def __init__(self) -> None:
        self.line: Line | None = None
        """The line, if a command may be sent at this moment without waiting."""
        self._usable: Line | None = None
        self._waiting: deque[asyncio.Future[Line]] = deque()

    async def enter(self) -> Line:
        """The line, when it is the caller's turn. The caller limits how long it waits.

        Raises:
            CacheError: what ``refuse`` was called with.
        """
        if self.line is not None:
            return self.line
        turn: asyncio.Future[Line] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        return await turn

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits."""
        return any(not turn.done() for turn in self._waiting)

    def open(self, line: Line) -> None:
        """Lets callers send on this line: first those who wait, then whoever comes."""
        self._usable = line
        self._admit()

    def hold(self) -> None:
        """Makes callers wait."""
        self.line = self._usable = None

    def refuse(self, error: DataLayerError) -> None:
        """Tells all who wait that it is in vain."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_exception(type(error)(str(error)))

    def _admit(self) -> None:
        line = self._usable
        if line is None:
            return
        if not self._waiting:
            self.line = line
            return
        for _ in range(min(len(self._waiting), _ADMITTED_AT_ONCE)):
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(line)
        # Those just admitted send before this runs, so nobody overtakes them.
        asyncio.get_running_loop().call_soon(self._admit)
