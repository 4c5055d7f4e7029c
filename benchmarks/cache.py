"""``make bench-cache``: the cache against named peers, on one server in one run.

- one and 32 workers: ``get`` and ``set`` of 1 KB without a copy in the process, against redis-py, valkey-glide and
  node-redis (a child process that runs the same loop). "data layer" and "node-redis, JSON" encode and decode JSON;
  all others move bytes.
- hot reads from the copy in the process, one after the other, against redis-py's ``get``, coredis with its tracking
  cache, and cashews with its client-side cache, bare and by its decorator.
- ``get_many`` of 100, from the server and from the copy in the process, against redis-py's MGET with orjson, and
  cashews, which hands out the very objects.
- a miss through ``get_or_load``, against its loader alone (which sleeps for a millisecond) and one round trip.
- what the copy needs of memory, and how soon another process reads what was written.

Rounds of the candidates alternate, so that a disturbance meets all of them; the median round counts.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import statistics
import tempfile
import tracemalloc
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import perf_counter
from typing import Any

from cache_invalidation import measure_invalidation
from cache_peers import LIVES_SECONDS, STORED, VALUE, Peer, far_peers, near_peers, settings_for, until_near_copy_answers
from rich.console import Console
from rich.table import Table

from data_layer.cache import Cache
from data_layer.testing.redis_server import RedisServer

COPIES = 20_000
console = Console()


async def compare(peers: list[Peer], verb: str, workers: int, rounds: int, seconds: float) -> dict[str, float]:
    """The median rate of each peer."""
    rates: dict[str, list[float]] = {peer.name: [] for peer in peers}
    for peer in peers:
        await peer.rate(verb, workers, min(0.5, seconds))
    for _ in range(rounds):
        for peer in peers:
            rates[peer.name].append(await peer.rate(verb, workers, seconds))
    return {name: statistics.median(values) for name, values in rates.items()}


def who_can(peers: list[Peer], verb: str) -> list[Peer]:
    return [peer for peer in peers if verb in peer.operations]


async def measure_memory(port: int) -> float:
    """Bytes that the near copy needs for a value of 1024 bytes, key and bookkeeping included."""
    async with Cache(settings_for(port, redis_near_size=2**30)) as cache:
        names = [f"memory-{number}" for number in range(COPIES)]
        await cache.set_many(dict.fromkeys(names, VALUE), LIVES_SECONDS)
        await until_near_copy_answers(cache)
        gc.collect()
        tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        for name in names:
            await cache.get(name)
            await cache.get(name)
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert cache.process_stats().near.entries == COPIES
        await cache.flush()
    return (after - before) / COPIES * 1024 / len(STORED)


async def measure_miss(port: int, calls: int) -> dict[str, float]:
    """Median milliseconds of a miss, of what it cannot do without, and of a value that is in Redis."""

    async def load() -> Any:
        await asyncio.sleep(0.001)
        return VALUE

    async with Cache(settings_for(port, redis_near_size=0)) as cache:
        candidates: dict[str, Callable[[str], Awaitable[Any]]] = {
            "a value in Redis": lambda _: cache.get_or_load("there", load, LIVES_SECONDS),
            "one round trip (get)": lambda _: cache.get("absent"),
            # Behind the others, because what follows it waits until its value is stored.
            "the loader alone": lambda _: load(),
            "a miss": lambda key: cache.get_or_load(key, load, LIVES_SECONDS),
        }
        await cache.get_or_load("there", load, LIVES_SECONDS)
        taken: dict[str, list[float]] = {name: [] for name in candidates}
        for number in range(calls):
            for name, call in candidates.items():
                started = perf_counter()
                await call(f"miss-{number}")
                taken[name].append((perf_counter() - started) * 1000)
        await cache.flush()
    return {name: statistics.median(values) for name, values in taken.items()}


async def run(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All figures."""
    results: dict[str, Any] = {}
    with RedisServer() as server:
        async with far_peers(server.port, folder) as peers:
            for workers in (1, 32):
                for verb in ("get", "set"):
                    title = f"{verb}, {workers} worker{'s' if workers > 1 else ''}"
                    results[title] = await compare(peers, verb, workers, options.rounds, options.seconds)
                    report(title, results[title])
            title = "get_many of 100, from the server"
            results[title] = await compare(who_can(peers, "many"), "many", 1, options.rounds, options.seconds)
            report(title, results[title])
        async with near_peers(server.port) as peers:
            title = "hot read from the copy in the process"
            results[title] = await compare(peers, "hot", 1, options.rounds, options.seconds)
            report(title, results[title])
            title = "get_many of 100, from the copy in the process"
            results[title] = await compare(who_can(peers, "many"), "many", 1, options.rounds, options.seconds)
            report(title, results[title])
        results["milliseconds of a miss"] = await measure_miss(server.port, options.misses)
        report_miss(results["milliseconds of a miss"])
        results["bytes per cached kilobyte"] = await measure_memory(server.port)
        console.print(f"near copy: {results['bytes per cached kilobyte']:,.0f} bytes of memory per cached kilobyte\n")
        latencies = await measure_invalidation(server.port, options.writes)
        results["milliseconds until another process knows"] = latencies
        report_latencies(latencies)
    return results


def report(title: str, rates: dict[str, float]) -> None:
    """Print one comparison."""
    ours = next(iter(rates.values()))
    table = Table(title=title, title_justify="left", box=None)
    for column in ("candidate", "per second", "data layer / candidate"):
        table.add_column(column, justify="left" if column == "candidate" else "right")
    for name, rate in rates.items():
        table.add_row(name, f"{rate:,.0f}", f"{ours / rate:.2f}")
    console.print(table)
    console.print()


def report_miss(figures: dict[str, float]) -> None:
    """Print the medians, and how many times the loader's own time a miss takes beside its round trip."""
    table = Table(title="a miss through get_or_load", title_justify="left", box=None)
    table.add_column("what")
    table.add_column("ms, median", justify="right")
    for name, figure in figures.items():
        table.add_row(name, f"{figure:.3f}")
    console.print(table)
    round_trip, loader, miss = list(figures.values())[1:]
    console.print(f"a miss less one round trip is {(miss - round_trip) / loader:.2f} times its loader\n")


def report_latencies(latencies: dict[str, dict[str, float]]) -> None:
    """Print medians and 99th percentiles."""
    table = Table(title="milliseconds until another process knows of a write", title_justify="left", box=None)
    for column in ("candidate", "median", "p99"):
        table.add_column(column, justify="left" if column == "candidate" else "right")
    for name, figures in latencies.items():
        table.add_row(name, f"{figures['median']:.2f}", f"{figures['p99']:.2f}")
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds of each candidate")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a round")
    parser.add_argument("--writes", type=int, default=1000, help="writes whose way to another process is timed")
    parser.add_argument("--misses", type=int, default=1000, help="misses that are timed")
    parser.add_argument("--json", type=Path, help="also write the figures into this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        results = asyncio.run(run(options, Path(folder)))
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
