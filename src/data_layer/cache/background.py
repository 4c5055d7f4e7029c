"""Background work, until the cache is closed."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from data_layer.concurrency import cancel_and_wait


class Background:
    """Holds on to its tasks, which the event loop does not."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run it; it handles its own errors."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def finish(self, seconds: float) -> None:
        """Wait for all tasks, and cancel what is not done in time."""
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=seconds)
            await cancel_and_wait(*late)
