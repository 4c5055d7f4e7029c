"""``make bench-soak``: memory of a service that serves 1,000 sessions and 10,000 hot projects, and whether it grows.

Two processes with their default settings serve the same load at the same time, each half of it, as two replicas behind
a load balancer do. The memory of one counts. The other one has tracemalloc in it, which takes memory itself and shows
where what is kept was allocated. Both are measured from the outside.

A cached project lives for a minute, and a machine that also runs the clients, PostgreSQL and tracemalloc may not open
10,000 of them twice a minute. So that all of them are hot nevertheless, these two keep projects for longer, as if each
was opened again in time (``--cached-seconds``).

``TRUSTED_PROXIES`` is set, so that each client can have its own address.

Memory is what the process holds at most (``VmHWM``), what it holds now (RSS, with the libraries that are mapped), and
what nobody shares with it (private). The run fails when the peak reaches 250 MiB, when the private memory of the last
minutes is larger by more than ``--growth`` MiB than right after the warm-up, or when what Python allocated is larger by
more than ``--traced-growth`` MiB. All projects have been opened before. What still grows after the warm-up are tables
with a bound that is not reached yet (addresses, names), values that were read in a form that takes more, and uploads
under way: 3 MiB in two runs, of 240,000 and of 480,000 requests.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
import psycopg
from rich.console import Console
from rich.table import Table
from soak_load import Load, fill

from data_layer import DataLayer, Settings
from data_layer.testing.free_ports import free_port

LIMIT = 250
MIB = 2**20
SAMPLE_SECONDS = 5
COMPARED = 3
"""So many minutes at the beginning and at the end are compared, by their medians."""
MOST_WRONG = 0.05
COLUMNS = (
    *("minute", "requests", "a second", "RSS", "private", "peak"),
    *("opened", "near copy", "series", "files", "traced RSS"),
)
console = Console()


class Sample(NamedTuple):
    """Memory of a process in MiB."""

    resident: float
    private: float
    peak: float


class Service:
    """One that runs."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, metrics_port: int) -> None:
        self.process = process
        self.port = port
        self._metrics_port = metrics_port
        self.samples: list[list[Sample]] = []  # Of each minute.

    async def until_ready(self) -> None:
        async with httpx.AsyncClient() as client:
            for _ in range(600):
                if self.process.poll() is not None:
                    break
                try:
                    if (await client.get(f"http://127.0.0.1:{self.port}/readyz")).status_code == 200:
                        return
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.1)
        raise SystemExit("a service did not become ready in time")

    def sample(self) -> Sample:
        """What it holds now."""
        folder = Path(f"/proc/{self.process.pid}")
        rollup = (folder / "smaps_rollup").read_text()
        private = sum(int(size) for size in re.findall(r"^Private_\w+:\s+(\d+) kB", rollup, re.MULTILINE))
        status = dict(re.findall(r"^(\w+):\s+(\d+) kB", (folder / "status").read_text(), re.MULTILINE))
        return Sample(*(int(each) / 1024 for each in (status["VmRSS"], private, status["VmHWM"])))

    def median(self, first: int, last: int) -> Sample:
        """Of some minutes, the last one left out."""
        found = [sample for minute in self.samples[first:last] for sample in minute]
        return Sample(*map(statistics.median, zip(*found, strict=True)))

    async def series(self) -> tuple[int, float]:
        """How many series its metrics have, and the bytes of its copy of the cache, by its own estimate."""
        async with httpx.AsyncClient() as client:
            text = (await client.get(f"http://127.0.0.1:{self._metrics_port}/metrics", timeout=60)).text
        near = re.search(r"^data_layer_cache_near_bytes (\S+)", text, re.MULTILINE)
        return sum(not line.startswith("#") for line in text.splitlines()), float(near[1]) if near else 0.0

    def handles(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))


@contextmanager
def service(folder: Path, name: str, servers: DataLayer, command: list[str]) -> Iterator[Service]:
    """A service with its default settings on these servers."""
    own = folder / name
    own.mkdir()
    port, metrics_port = free_port(), free_port()
    environment = {
        "PATH": os.environ["PATH"],
        "DATABASE_URL": servers.database.address.url.set(drivername="postgresql").render_as_string(hide_password=False),
        "REDIS_URL": f"unix://{servers.cache.address}",
        "LOCAL_STORAGE_PATH": str(folder / "uploads"),
        "PORT": str(port),
        "METRICS_PORT": str(metrics_port),
        "TRUSTED_PROXIES": "127.0.0.1",
    }
    environment |= {key: os.environ[key] for key in os.environ if key.startswith("MALLOC_")}
    with (own / "service.jsonl").open("w") as log:
        process = subprocess.Popen(command, cwd=own, env=environment, stdin=subprocess.PIPE, stdout=log, stderr=log)
        try:
            yield Service(process, port, metrics_port)
        finally:
            process.terminate()
            process.wait(60)


async def do_not_wait_for_the_disk(servers: DataLayer) -> None:
    """Have PostgreSQL answer without it: memory is measured, not time, and what is stored is thrown away."""
    url = servers.database.address.url.set(drivername="postgresql").render_as_string(hide_password=False)
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        for setting in ("fsync", "full_page_writes", "synchronous_commit"):
            await connection.execute(f"ALTER SYSTEM SET {setting} = off")
        await connection.execute("SELECT pg_reload_conf()")


def wait_for(path: Path) -> None:
    """Return when a file is there."""
    while not path.exists():
        time.sleep(0.2)


async def snapshot(traced: Service, path: Path) -> None:
    """Have the traced service write one."""
    assert traced.process.stdin
    traced.process.stdin.write(f"{path}\n".encode())
    traced.process.stdin.flush()
    await asyncio.to_thread(wait_for, path)


async def watch(load: Load, plain: Service, traced: Service, folder: Path, options: argparse.Namespace) -> None:
    """Measure until the time is over; a line each minute."""
    started = time.monotonic()
    table = Table(box=None, title=f"{options.people:,} sessions, {options.projects:,} projects", title_justify="left")
    for column in COLUMNS:
        table.add_column(column, justify="right")
    console.print("  ".join(COLUMNS))
    sent = 0
    for minute in range(1, options.minutes + 1):
        begun = time.monotonic()
        for each in (plain, traced):
            each.samples.append([])
        while time.monotonic() < started + 60 * minute:
            await asyncio.sleep(SAMPLE_SECONDS)
            for each in (plain, traced):
                each.samples[-1].append(each.sample())
        now = plain.median(minute - 1, minute)
        count, near = await plain.series()
        total = load.asked.total()
        row = (
            *(f"{minute}", f"{total:,}", f"{(total - sent) / (time.monotonic() - begun):.0f}"),
            *(f"{size:.1f}" for size in (now.resident, now.private, plain.sample().peak)),
            *(f"{len(load.opened[plain.port]):,}", f"{near / MIB:.1f}", f"{count}", f"{plain.handles()}"),
            f"{traced.median(minute - 1, minute).resident:.1f}",
        )
        sent = total
        table.add_row(*row)
        console.print("  ".join(f"{text:>{len(name)}}" for text, name in zip(row, COLUMNS, strict=True)))
        if minute == options.warm_up:
            await snapshot(traced, folder / "warm.snapshot")
    await snapshot(traced, folder / "end.snapshot")
    console.print(table)


def compare_snapshots(folder: Path, lines: int) -> float:
    """Print where the most was allocated that was not there before; MiB of all together."""
    ignored = [
        tracemalloc.Filter(inclusive=False, filename_pattern=name) for name in (tracemalloc.__file__, "*/pickle.py")
    ]
    before, after = (
        tracemalloc.Snapshot.load(str(folder / f"{name}.snapshot")).filter_traces(ignored) for name in ("warm", "end")
    )
    differences = after.compare_to(before, "lineno")
    table = Table(title="tracemalloc, after the warm-up and at the end", title_justify="left", box=None)
    for column in ("KiB more", "blocks more", "KiB", "where"):
        table.add_column(column, justify="left" if column == "where" else "right")
    for each in differences[:lines]:
        frame = each.traceback[0]
        name = "/".join(Path(frame.filename).parts[-3:])
        sizes = (each.size_diff / 1024, each.count_diff, each.size / 1024)
        table.add_row(*(f"{size:+,.0f}" for size in sizes), f"{name}:{frame.lineno}")
    console.print(table)
    total = sum(each.size for each in differences) / MIB
    grown = sum(each.size_diff for each in differences) / MIB
    console.print(f"all together: {grown:+.2f} MiB, of {total:.1f} MiB")
    return grown


async def measure(folder: Path, servers: DataLayer, options: argparse.Namespace) -> bool:
    program = [sys.executable, str(Path(__file__).with_name("soak_service.py")), str(options.cached_seconds)]
    with (
        service(folder, "plain", servers, program) as plain,
        service(folder, "traced", servers, [*program, "traced"]) as traced,
    ):
        await plain.until_ready()
        await traced.until_ready()
        console.print(f"idle: RSS {plain.sample().resident:.1f} MiB, private {plain.sample().private:.1f} MiB")
        await do_not_wait_for_the_disk(servers)
        people = await fill(servers, options.people, options.projects)
        load = Load(servers, people, [plain.port, traced.port], options.rate)
        await load.open_everything()
        opened = ", ".join(f"{len(each):,}" for each in load.opened.values())
        console.print(f"opened {opened}: RSS {plain.sample().resident:.1f} MiB")
        running = asyncio.create_task(load.run(options.clients))
        watching = asyncio.create_task(watch(load, plain, traced, folder, options))
        done, _ = await asyncio.wait([running, watching], return_when=asyncio.FIRST_COMPLETED)
        running.cancel()
        for each in done:
            each.result()
        first = plain.median(options.warm_up, options.warm_up + COMPARED)
        last = plain.median(options.minutes - COMPARED, options.minutes)
        peak = plain.sample().peak
    traced_growth = compare_snapshots(folder, options.lines)
    for name, count in sorted(load.sent.items()):
        console.print(f"{count:9,} {name}")
    for name, count in load.wrong.most_common():
        console.print(f"{count:9,} not expected: {name}")
    growth = last.private - first.private
    console.print(f"peak: {peak:.1f} MiB (less than {LIMIT})")
    console.print(
        f"private: {first.private:.1f} MiB after the warm-up, {last.private:.1f} MiB at the end, "
        f"{growth:+.1f} MiB (at most {options.growth:+.1f})"
    )
    console.print(f"allocated by Python: {traced_growth:+.2f} MiB (at most {options.traced_growth:+.1f})")
    is_served = load.wrong.total() <= MOST_WRONG * load.sent.total()
    return is_served and peak < LIMIT and growth <= options.growth and traced_growth <= options.traced_growth


async def run(options: argparse.Namespace) -> bool:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        settings = Settings(
            data_folder=folder / "servers", local_storage_path=folder / "uploads", log_level="error", _env_file=None
        )
        async with DataLayer(settings) as servers:
            return await measure(folder, servers, options)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", type=int, default=20)
    parser.add_argument("--warm-up", type=int, default=5, help="minutes of the load before the growth is measured")
    parser.add_argument("--people", type=int, default=1000, help="each with a session")
    parser.add_argument("--projects", type=int, default=10_000, help="of all people together")
    parser.add_argument("--cached-seconds", type=int, default=3600, help="how long Redis keeps an opened project")
    parser.add_argument("--rate", type=float, default=400, help="requests a second, of both services together")
    parser.add_argument("--clients", type=int, default=200, help="connections at once, of both services together")
    parser.add_argument("--growth", type=float, default=8, help="MiB that private memory may grow by after the warm-up")
    parser.add_argument("--traced-growth", type=float, default=5, help="MiB that Python may have allocated in addition")
    parser.add_argument("--lines", type=int, default=25, help="lines of tracemalloc's difference that are shown")
    options = parser.parse_args()
    if options.minutes < options.warm_up + COMPARED:
        parser.error(f"--minutes must be {COMPARED} more than --warm-up, or more")
    console.print(f"load average {os.getloadavg()[0]:.1f}")
    if not asyncio.run(run(options)):
        raise SystemExit("the service holds or grows by more memory than it may, or has refused too much")


if __name__ == "__main__":
    main()
