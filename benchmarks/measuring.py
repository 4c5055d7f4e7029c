"""How often a second something is done, and how much processor time of its process each time takes.

With many workers on a machine that others use too, the rate says as much about the others; the processor time does not.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

Operation = Callable[[], Awaitable[object]]
"""What each worker does."""


class Figures(NamedTuple):
    """What was measured.

    Attributes:
        rate: times a second.
        processor: microseconds of the process, all threads together, for each time. What servers use is not in it.
    """

    rate: float
    processor: float


async def measure(operation: Operation, workers: int, seconds: float) -> Figures:
    """Do it again and again, by so many workers at once."""
    return await measure_each([operation] * workers, seconds)


async def measure_each(operations: Sequence[Operation], seconds: float) -> Figures:
    """Do these again and again, all at once."""
    end = time.perf_counter() + seconds
    done = 0

    async def work(operation: Operation) -> None:
        nonlocal done
        while time.perf_counter() < end:
            await operation()
            done += 1

    started, used = time.perf_counter(), time.process_time()
    await asyncio.gather(*map(work, operations))
    return Figures(done / (time.perf_counter() - started), (time.process_time() - used) / done * 1e6)


def median(figures: Sequence[Figures]) -> Figures:
    """The median of each figure."""
    return Figures(*map(statistics.median, zip(*figures, strict=True)))
