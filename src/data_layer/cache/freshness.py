"""Prove, three times a second and whenever a reader waits for it, that every change has been heard."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from time import monotonic

from data_layer.cache.wire.connection import Connection

_PAUSE_SECONDS = 0.3
_PATIENCE_SECONDS = 0.5
_GRACE_SECONDS = 0.02


class Prover:
    """Prove again and again that everything was heard that changed before a moment.

    Each connection is asked twice, the second time as soon as it has answered. That takes two turns of the event loop
    and no task, however many tasks keep the loop busy. When it took longer than the usual pause, the next proof follows
    at once.

    Args:
        connections: those that listen; all have to answer.
        proved: called with each such moment, in monotonic time.
    """

    def __init__(self, connections: Sequence[Connection], proved: Callable[[float], None]) -> None:
        self._connections = connections
        self._proved = proved
        self._loop = asyncio.get_running_loop()
        self._asked = 0.0
        self._unanswered = 0
        self._outcome: asyncio.Future[bool] = self._loop.create_future()
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False

    def ask(self) -> None:
        """Begin a proof, unless one is under way."""
        if self._unanswered or self._is_closed:
            return
        self._asked, self._unanswered = monotonic(), len(self._connections)
        self._outcome = self._loop.create_future()
        self._wait(_PATIENCE_SECONDS, self._doubt)
        for connection in self._connections:
            connection.ask_role(partial(connection.ask_role, self._note_answer))

    async def prove(self) -> bool:
        """Wait for the proof that is under way, or for a new one; returns whether it came before patience ended."""
        self.ask()
        outcome = self._outcome
        await asyncio.wait([outcome])  # A caller that is cancelled does not end it for the others.
        return outcome.result()

    def close(self) -> None:
        """Stop asking; waiting callers learn that nothing was proved."""
        self._is_closed = True
        self._end(is_proved=False)
        if self._timer is not None:
            self._timer.cancel()

    def _note_answer(self) -> None:
        self._unanswered -= 1
        if self._unanswered or self._is_closed:
            return
        self._proved(self._asked)
        self._end(is_proved=True)
        pause = self._asked + _PAUSE_SECONDS - monotonic()
        if pause > 0:
            self._wait(pause, self.ask)
        else:  # A timer would take another turn.
            self.ask()

    def _doubt(self) -> None:
        # If the loop was busy for long, the answer may be there already and only has to be read.
        self._wait(_GRACE_SECONDS, partial(self._end, is_proved=False))

    def _end(self, *, is_proved: bool) -> None:
        if not self._outcome.done():
            self._outcome.set_result(is_proved)

    def _wait(self, seconds: float, then: Callable[[], None]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, then)
