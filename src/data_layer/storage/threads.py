"""Blocking file operations in threads of their own, and what cancellation means for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, ParamSpec, TypeVar

from data_layer.concurrency import settled
from data_layer.errors import NotInitializedError

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


class FileThreads:
    """A bounded number of threads that run file operations.

    Not the event loop's own threads: those are few, and look up host names for everyone else. Waiting for a disk
    keeps a thread busy but no processor, so there may be many more of them than processors.
    """

    def __init__(self, count: int) -> None:
        self._executor = ThreadPoolExecutor(count, thread_name_prefix="storage")

    async def run(
        self, function: Callable[_Parameters, _Result], *arguments: _Parameters.args, **options: _Parameters.kwargs
    ) -> _Result:
        """Run a function in a thread. Cancellation waits until it has ended, so that nothing goes on unseen."""
        return await self.run_until_cancelled(_nothing, function, *arguments, **options)

    async def run_until_cancelled(
        self,
        on_cancel: Callable[[], None],
        function: Callable[_Parameters, _Result],
        *arguments: _Parameters.args,
        **options: _Parameters.kwargs,
    ) -> _Result:
        """Like ``run``, and inform the function through ``on_cancel`` that its result is not wanted any more."""
        try:
            job = self._executor.submit(function, *arguments, **options)
        except RuntimeError as error:
            raise NotInitializedError("the storage is closed") from error
        ended = _end_of(job)

        def cut_short() -> None:
            job.cancel()  # It does not begin any more; what has begun goes on.
            on_cancel()

        cancellation = await settled(ended, on_cancel=cut_short)
        if cancellation is not None:
            raise cancellation
        return job.result()

    async def close(self) -> None:
        """Wait for the functions that are running, and end the threads."""
        await asyncio.to_thread(self._executor.shutdown)


def _end_of(job: Future[Any]) -> asyncio.Future[None]:
    """Wait for a job's end, in fewer turns of the loop than ``asyncio.wrap_future``, which copies the outcome also."""
    loop = asyncio.get_running_loop()
    ended = loop.create_future()

    def wake(_: Future[Any]) -> None:
        with suppress(RuntimeError):  # The loop was closed without waiting.
            loop.call_soon_threadsafe(ended.set_result, None)

    job.add_done_callback(wake)
    return ended


def _nothing() -> None:
    """Nobody is informed."""
