"""Blocking file operations in threads of their own, and what cancellation means for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

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
        result = asyncio.wrap_future(job)

        def cut_short() -> None:
            job.cancel()  # It does not begin any more; what has begun goes on.
            on_cancel()

        cancellation = await settled(result, on_cancel=cut_short)
        if cancellation is not None:
            raise cancellation
        return result.result()

    async def close(self) -> None:
        """Wait for the functions that are running, and end the threads."""
        await asyncio.to_thread(self._executor.shutdown)


def _nothing() -> None:
    """Nobody is informed."""
