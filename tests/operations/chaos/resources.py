"""What a process holds: file handles by kind, tasks, threads of Python's, children."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import monotonic

_PAUSE = 0.05
Holdings = dict[str, int]


def held_now() -> Holdings:
    """How many of each; ``file …`` are handles."""
    gc.collect()
    held: Counter[str] = Counter()
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # That of the folder itself.
            held[f"file {str(descriptor.readlink()).partition(':[')[0]}"] += 1
    held.update(f"task {task.get_coro().__qualname__}" for task in asyncio.all_tasks())  # type: ignore[union-attr]
    # Without those of the loop's own executor, whose number is limited.
    held["threads"] = sum(not thread.name.startswith("asyncio_") for thread in threading.enumerate())
    held["children"] = sum(len(path.read_text().split()) for path in Path("/proc/self/task").glob("*/children"))
    return dict(held)


async def held_after(enough: Holdings, patience: float) -> Holdings:
    """The same, as soon as there is no more of anything than is enough, or after that many seconds."""
    deadline = monotonic() + patience
    while more_than(enough, held := held_now()) and monotonic() < deadline:
        await asyncio.sleep(_PAUSE)
    return held


def more_than(enough: Holdings, held: Holdings) -> list[str]:
    """What there is too much of, in words."""
    return [
        f"{name}: {number}, not {enough.get(name, 0)}" for name, number in held.items() if number > enough.get(name, 0)
    ]


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what other processes do to files."""
    while not condition():
        await asyncio.sleep(_PAUSE)
