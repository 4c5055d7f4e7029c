"""``make bench-cache``: what ``get_many`` of 100 hot keys costs where other work keeps the event loop busy.

The copy in the process answers only while it is proved to be fresh, and the proof needs the event loop. Something else
computes for so many milliseconds in each turn of the loop, and workers read between; with none at all the workers keep
the loop busy themselves, because a read from the copy never gives up its turn. Processor time is of this process.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

from rich.console import Console
from rich.table import Table

from data_layer.cache import Cache
from data_layer.config import Settings
from data_layer.errors import CacheError
from data_layer.testing.redis_server import RedisServer

MANY = 100
LIVES_SECONDS = 600
VALUE = {"id": "0192f3a4-5b6c-7d8e-9fa0-b1c2d3e4f506", "name": "Project", "text": "x" * 900, "tags": ["a", "b"]}
console = Console()


@dataclass(frozen=True)
class Figures:
    """Of one load."""

    workers: int
    busy_milliseconds: float
    per_second: float
    processor_milliseconds: float
    """For each call, without what the other work was meant to compute."""
    near_share: float
    errors: int
    p50: float
    p99: float


def compute(seconds: float) -> float:
    """Keep the interpreter busy for so long, and return the processor time that this took."""
    end, processor = perf_counter() + seconds, process_time()
    while perf_counter() < end:
        pass
    return process_time() - processor


async def measure(cache: Cache, workers: int, busy_seconds: float, seconds: float) -> Figures:
    names = [f"key-{number}" for number in range(MANY)]
    while not cache.process_stats().near.is_answering:  # noqa: ASYNC110  (no event tells)
        await asyncio.sleep(0.01)
    for _ in range(2):
        await cache.get_many(names)
    taken: list[float] = []
    errors: list[float] = []
    end = perf_counter() + seconds
    computed = 0.0

    async def work() -> None:
        while (started := perf_counter()) < end:
            try:
                found = await cache.get_many(names)
            except CacheError:
                errors.append(perf_counter() - started)
            else:
                taken.append(perf_counter() - started)
                assert len(found) == MANY
            if busy_seconds:
                await asyncio.sleep(0)

    async def disturb() -> None:
        nonlocal computed
        while busy_seconds and perf_counter() < end:
            computed += compute(busy_seconds)
            await asyncio.sleep(0)

    near_before, started, processor = cache.process_stats().near.hits, perf_counter(), process_time()
    await asyncio.gather(disturb(), *(work() for _ in range(workers)))
    processor, elapsed = process_time() - processor - computed, perf_counter() - started
    hits = cache.process_stats().near.hits - near_before
    taken.sort()
    return Figures(
        workers,
        busy_seconds * 1000,
        len(taken) / elapsed,
        processor / len(taken) * 1000,
        hits / (len(taken) * MANY),
        len(errors),
        taken[len(taken) // 2] * 1000,
        taken[len(taken) * 99 // 100] * 1000,
    )


async def run(options: argparse.Namespace) -> list[Figures]:
    """All figures."""
    results = []
    with RedisServer() as server:
        settings = Settings(redis_host="127.0.0.1", redis_port=server.port, redis_key_prefix="bench").redis
        for busy in options.busy:
            for workers in (1, 32):
                async with Cache(settings) as cache:
                    await cache.set_many({f"key-{number}": VALUE for number in range(MANY)}, LIVES_SECONDS)
                    results.append(await measure(cache, workers, busy / 1000, options.seconds))
    return results


def report(results: list[Figures]) -> None:
    """Print all loads."""
    table = Table(title=f"get_many of {MANY} hot keys in a busy event loop", title_justify="left", box=None)
    for column in (
        "busy, ms a turn",
        "workers",
        "per second",
        "CPU ms a call",
        "from the copy",
        "errors",
        "p50 ms",
        "p99 ms",
    ):
        table.add_column(column, justify="right")
    for each in results:
        figures: list[Any] = [
            f"{each.busy_milliseconds:g}",
            str(each.workers),
            f"{each.per_second:,.0f}",
            f"{each.processor_milliseconds:.3f}",
            f"{each.near_share:.1%}",
            str(each.errors),
            f"{each.p50:.2f}",
            f"{each.p99:.2f}",
        ]
        table.add_row(*figures)
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=6.0, help="length of each load")
    parser.add_argument("--busy", type=float, nargs="*", default=[0, 10, 50, 100, 150, 250], help="milliseconds a turn")
    parser.add_argument("--json", type=Path, help="also write the figures into this file")
    options = parser.parse_args()
    results = asyncio.run(run(options))
    report(results)
    if options.json:
        options.json.write_text(json.dumps([asdict(each) for each in results], indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
