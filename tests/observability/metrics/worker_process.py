"""A program: a worker that counts, and tells its supervisor. Arguments: folder, tasks, seconds to hang or 0.

A line on standard input lets it count one more; the end of the input ends it.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from pathlib import Path

from data_layer.observability.metrics.registry import Metrics
from data_layer.observability.metrics.snapshots import telling_supervisor


async def main(folder: str, tasks: str, hangs: str) -> None:
    metrics = Metrics()
    counter = metrics.counter("tasks", "Tasks.")
    metrics.gauge("open_tasks", "Open tasks.").set(1)
    counter.inc(int(tasks))
    async with telling_supervisor(metrics.snapshot, Path(folder)):
        print("ready", flush=True)  # noqa: T201  (read by the test)
        if float(hangs):
            signal.signal(signal.SIGUSR1, lambda *_: time.sleep(float(hangs)))
        while await asyncio.to_thread(sys.stdin.readline):
            counter.inc()
            print("counted", flush=True)  # noqa: T201  (read by the test)


asyncio.run(main(*sys.argv[1:]))
