"""Work that takes minutes, and shows every second how far it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Generic, TypeVar

from data_layer.concurrency import cancel_and_wait

Result = TypeVar("Result")
_SECONDS = 1.0

HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}
"""For an answer that is sent bit by bit: neither nginx nor our own compression may hold it back."""


class Running(Generic[Result]):
    """Work that has begun.

    Args:
        work: begins it.
        name: of its task.
    """

    def __init__(self, work: Callable[[], Awaitable[Result]], name: str) -> None:
        async def run() -> Result:
            return await work()

        self._task = asyncio.create_task(run(), name=name)

    async def seconds(self) -> AsyncGenerator[None]:
        """Yield once a second until the work has ended, however it ended. Closing this earlier ends the work."""
        try:
            while not self._task.done():
                await asyncio.wait([self._task], timeout=_SECONDS)
                if not self._task.done():
                    yield
        finally:
            await cancel_and_wait(self._task)

    def result(self) -> Result:
        """Return what came of it; raise what it raised."""
        return self._task.result()
