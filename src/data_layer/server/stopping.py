"""The wish that a process ends: by a signal or by its supervisor, gently at first and then by force."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from data_layer.concurrency import cancel_and_wait, is_set_within
from data_layer.observability.log import get_log

Result = TypeVar("Result")
log = get_log(__name__)

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
EXIT_TIMED_OUT = 1


class StoppedBeforeReady(Exception):  # noqa: N818  (not an error: somebody wanted it)
    """The process was asked to stop while it was still starting, by ``signal``."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(f"stopped by {number.name} before it was ready")
        self.signal = number


class StopRequest:
    """Whether this process is to stop, and how soon.

    The first signal asks; the second one forces: nothing is waited for that is not ours. From the first one on a
    watchdog counts, in a thread, because the event loop may be what hangs; at the limit the process ends with code 1.

    Args:
        limit: seconds that the whole end may take.
    """

    def __init__(self, limit: float) -> None:
        self.asked = asyncio.Event()
        self.forced = asyncio.Event()
        self.signal = signal.SIGTERM
        self._at_once = asyncio.Event()
        self._watchdog = threading.Timer(limit, _give_up, [limit])
        self._watchdog.daemon = True

    def ask(self, *, at_once: bool = False) -> None:
        """Ask the process to stop.

        Args:
            at_once: without the pause in which load balancers notice.
        """
        self.watch()
        self.asked.set()
        if at_once:
            self._at_once.set()

    def force_stop(self) -> None:
        """Do not wait for requests under way either."""
        self.ask(at_once=True)
        self.forced.set()

    def watch(self) -> None:
        """Begin to count; from any thread, and harmless when it counts."""
        with suppress(RuntimeError):  # It counts already.
            self._watchdog.start()

    async def unless(self, work: Coroutine[Any, Any, Result]) -> Result:
        """The result of the work, which is cancelled when the process is asked to stop.

        Raises:
            StoppedBeforeReady: it was.
        """
        working, stopping = asyncio.create_task(work), asyncio.create_task(self.asked.wait())
        try:
            await asyncio.wait([working, stopping], return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            if not working.done():
                await cancel_and_wait(working)
        if working.cancelled():
            raise StoppedBeforeReady(self.signal)
        return working.result()

    async def pause(self, seconds: float) -> None:
        """Wait, unless the stop is forced."""
        await is_set_within(self._at_once, seconds)

    async def comes_within(self, seconds: float) -> bool:
        """Whether the process is asked to stop in the next seconds."""
        return await is_set_within(self.asked, seconds)

    @contextmanager
    def by_signals(self) -> Iterator[None]:
        """Let SIGTERM and SIGINT ask inside the block; afterwards they are ignored, because the end is near."""
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._receive, number)
        try:
            yield
        finally:
            for number in _SIGNALS:
                loop.remove_signal_handler(number)
                signal.signal(number, signal.SIG_IGN)

    def _receive(self, number: signal.Signals) -> None:
        if self.asked.is_set():
            self.force_stop()
        else:
            self.signal = number
            self.ask()


def _give_up(limit: float) -> None:
    log.warning("shutdown_timed_out", limit_seconds=limit)
    os._exit(EXIT_TIMED_OUT)
