"""``make bench-operations``: what metrics and logs cost, what tracing costs that is off, and how memory behaves.

- On and off: the same work with metrics and logs as in production, and without both, in one run. Most work logs
  nothing; a whole request logs one event, which costs more than the rest of a request without a network. Rounds
  alternate, so that a disturbance meets both; each round of one is compared with that of the other beside it, and the
  median of the comparisons counts. Hot paths (reads from the cache, saves) may cost 5 % more at most.
- Tracing off: statements with the hook in which traces and metrics take part while nobody does, and without the hook.
- Memory of a service process: when it has nothing to do, and while it answers as many requests as it has in an hour at
  ten a second, as fast as it can; also with several workers, if asked for.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI
from rich.console import Console
from rich.table import Table

from data_layer import AuditAction, AuditLog, DataLayer, GeneratedCode, GenerationProvider, Project, Settings, User
from data_layer.api.app import create_app
from data_layer.database.observation import Observation
from data_layer.observability.configuration import configure_logging
from data_layer.observability.masking import secrets_of
from data_layer.testing.free_ports import free_port

Operation = Callable[[], Awaitable[Any]]

CODE = "<div class='card'>" + "x" * 2000 + "</div>"
PATHS = ("/readyz", "/livez", "/v1/files/unknown.png", "/health")
AT_MOST_PERCENT = 5.0
console = Console()


class Paths:
    """The hot paths of one data layer."""

    def __init__(self, data: DataLayer, without_copy: DataLayer, project: Project) -> None:
        self._data = data
        self._without_copy = without_copy
        self._project = project
        self._app: FastAPI = create_app(data)

    async def read_near(self) -> None:
        for _ in range(100):
            await self._data.cache.get("key")

    async def read_far(self) -> None:
        await self._without_copy.cache.get("key")

    async def read_row(self) -> None:
        async with self._data.transaction() as tx:
            await tx.projects.get(self._project.id)

    async def save_code(self) -> None:
        code = GeneratedCode(project_id=self._project.id, code=CODE, provider=GenerationProvider.CLAUDE, model="model")
        async with self._data.transaction() as tx:
            tx.add(code)
            tx.add(
                AuditLog.data_action(
                    AuditAction.CODE_GENERATE, self._project.user_id, "generated_code", code.id, "Generated"
                )
            )

    async def request(self) -> None:
        """The way through all middleware, without a network."""
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": "/",
            "raw_path": b"/",
            "query_string": b"",
            "root_path": "",
            "headers": [],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 2),
        }

        async def receive() -> dict[str, Any]:
            return {"type": "http.request"}

        async def send(_: Any) -> None:
            pass

        await self._app(scope, receive, send)


async def rate(operation: Operation, seconds: float) -> float:
    """How often per second it is done."""
    started = time.perf_counter()
    end, done = started + seconds, 0
    while (now := time.perf_counter()) < end:
        for _ in range(10):
            await operation()
        done += 10
        await asyncio.sleep(0)
    return done / (now - started)


@contextmanager
def silence() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


@dataclass
class Compared:
    """The rates of both, and by how many percent the second one is slower: all differences, one for each round."""

    first: list[float]
    second: list[float]

    @property
    def percent(self) -> float:
        return statistics.median(
            (without / with_it - 1) * 100 for without, with_it in zip(self.first, self.second, strict=True)
        )


async def compare(
    without: Operation, with_it: Operation, options: argparse.Namespace, *, silent: tuple[bool, bool] = (True, False)
) -> Compared:
    """Alternate between the two; ``silent`` says which of them log nothing."""
    found = Compared([], [])
    sides = [(found.first, without, silent[0]), (found.second, with_it, silent[1])]
    for number in range(-1, options.rounds):
        for rates, operation, is_silent in sides if number % 2 else reversed(sides):
            with silence() if is_silent else nullcontext():
                measured = await rate(operation, options.seconds)
            if number >= 0:  # The first round warms up.
                rates.append(measured)
    return found


def report(title: str, rows: dict[str, Compared], first: str, second: str) -> None:
    table = Table(title=title, title_justify="left", box=None)
    for column in ("path", f"{first}, µs", f"{second}, µs", "cost"):
        table.add_column(column, justify="left" if column == "path" else "right")
    for name, found in rows.items():
        per_operation = 100 if name == "cached read, near" else 1
        times = (1e6 / statistics.median(rates) / per_operation for rates in (found.first, found.second))
        table.add_row(name, *(f"{each:,.2f}" for each in times), f"{found.percent:+.1f} %")
    console.print(table)
    console.print()


async def bench_costs(folder: Path, settings: Settings, options: argparse.Namespace) -> None:
    """Metrics and logs, on and off; the hook of observers, with and without."""
    off = settings.replaced(enable_metrics=False)
    no_copy = {"redis_near_size": 0}
    with (folder / "log.jsonl").open("w") as log:
        configure_logging(
            settings.log.replaced(log_format="json"),
            secrets=secrets_of(settings.flat().values()),
            production=False,
            stream=log,
        )
        async with (
            DataLayer(settings) as on_data,
            DataLayer(settings.replaced(**no_copy)) as on_far,
            DataLayer(off) as off_data,
            DataLayer(off.replaced(**no_copy)) as off_far,
            DataLayer(off) as bare_data,
        ):
            user = User(email=f"bench{time.time_ns()}@example.com", first_name="Bench", last_name="Mark")
            project = Project(user_id=user.id, name="Project")
            async with on_data.transaction() as tx:
                tx.add(user)
                tx.add(project)
            await on_data.cache.set("key", {"name": "John", "numbers": [1, 2, 3]}, 3600)
            await wait_for_copies(on_data, off_data)
            on, without = Paths(on_data, on_far, project), Paths(off_data, off_far, project)
            rows = {
                "cached read, near": await compare(without.read_near, on.read_near, options),
                "cached read, far": await compare(without.read_far, on.read_far, options),
                "read of a row": await compare(without.read_row, on.read_row, options),
                "save of a generated code": await compare(without.save_code, on.save_code, options),
                "whole request": await compare(without.request, on.request, options),
                "whole request, metrics alone": await compare(
                    without.request, on.request, options, silent=(True, True)
                ),
            }
            report(f"Metrics and logs (at most {AT_MOST_PERCENT:.0f} %)", rows, "off", "on")
            unhook(bare_data)
            bare = Paths(bare_data, off_far, project)
            rows = {
                "read of a row": await compare(bare.read_row, without.read_row, options, silent=(False, False)),
                "save of a generated code": await compare(
                    bare.save_code, without.save_code, options, silent=(False, False)
                ),
            }
            report("Tracing that is off", rows, "no hook", "hook")


async def wait_for_copies(*datas: DataLayer) -> None:
    """Return when the copies in the process answer, so that reads are as near as they will be."""
    for data in datas:
        while not data.cache.process_stats().near.hits:
            await data.cache.get("key")
            await asyncio.sleep(0.01)


def unhook(data: DataLayer) -> None:
    """Statements as if nobody could observe them."""

    class Unobservable(Observation):
        def watch(self, *_: Any) -> Any:
            return _NOTHING

    data.database.observation = Unobservable(data.settings.database)


_NOTHING = nullcontext()


class Service:
    """``data-layer start`` in a process of its own, asked by a few clients that keep their connections."""

    def __init__(self, folder: Path, settings: Settings, workers: int) -> None:
        self.port, self._metrics_port = free_port(), free_port()
        assert settings.database.database_url
        assert settings.redis.redis_url
        self._workers = workers
        environment = {
            "PATH": os.environ["PATH"],
            "DATABASE_URL": settings.database.database_url.get_secret_value(),
            "REDIS_URL": settings.redis.redis_url.get_secret_value(),
            "LOCAL_STORAGE_PATH": str(folder / "uploads"),
            "PORT": str(self.port),
            "METRICS_PORT": str(self._metrics_port),
            "WORKERS": str(workers),
            "DB_MAX_CONNECTIONS": str(10 * workers),
        }
        self._log = (folder / f"service-{workers}.jsonl").open("w")
        program = Path(sys.executable).with_name("data-layer")
        self.process = subprocess.Popen(
            [str(program), "start"], cwd=folder, env=environment, stdout=self._log, stderr=subprocess.STDOUT
        )

    async def wait_until_ready(self) -> None:
        async with httpx.AsyncClient() as client:
            for _ in range(600):
                if self.process.poll() is not None:
                    raise SystemExit(f"the service ended; see {self._log.name}")
                try:
                    if (await self.figures(client))["data_layer_workers"] == self._workers:
                        return
                except (httpx.TransportError, KeyError):
                    pass
                await asyncio.sleep(0.1)
        raise SystemExit("the service did not become ready in time")

    async def figures(self, client: httpx.AsyncClient) -> dict[str, float]:
        """What it tells about its processes."""
        text = (await client.get(f"http://127.0.0.1:{self._metrics_port}/metrics", timeout=30)).text
        lines = (line.rsplit(" ", 1) for line in text.splitlines() if line.startswith(("process_", "data_layer_w")))
        return {name: float(value) for name, value in lines}

    async def request(self, number: int, clients: int = 8) -> float:
        """Send requests; how many were answered in a second."""
        started = time.perf_counter()
        await asyncio.gather(*(self._client(number // clients) for _ in range(clients)))
        return number // clients * clients / (time.perf_counter() - started)

    async def _client(self, number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        for turn in range(number):
            path = PATHS[0 if turn % 50 else turn // 50 % len(PATHS)]
            writer.write(f"GET {path} HTTP/1.1\r\nHost: service\r\n\r\n".encode())
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
        writer.close()

    def end(self) -> None:
        self.process.terminate()
        self.process.wait(60)
        self._log.close()


async def bench_memory(folder: Path, settings: Settings, options: argparse.Namespace) -> None:
    """Resident memory before, while and after an hour's worth of requests is answered."""
    for workers in options.workers:
        service = Service(folder, settings, workers)
        client = httpx.AsyncClient()
        try:
            await service.wait_until_ready()
            await asyncio.sleep(2)
            name = f"Memory of {workers} worker{'s' if workers > 1 else ''}"
            table = Table(title=name, title_justify="left", box=None)
            for column in ("requests", "resident, MiB", "file handles", "requests per second"):
                table.add_column(column, justify="right")
            sizes = []
            steps = 8
            for step in range(steps + 1):
                speed = await service.request(options.requests // steps) if step else None
                figures = await service.figures(client)
                sizes.append(figures["process_resident_memory_bytes"] / 2**20)
                handles = f"{figures['process_open_fds']:.0f}"
                done = f"{options.requests // steps * step:,}"
                table.add_row(done, f"{sizes[-1]:.1f}", handles, f"{speed:,.0f}" if speed else "idle")
            console.print(table)
            console.print(f"from the first quarter to the end: {sizes[-1] - sizes[steps // 4]:+.1f} MiB\n")
        finally:
            await client.aclose()
            service.end()


async def run(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        embedded = Settings(data_folder=folder / "servers", local_storage_path=folder / "uploads", _env_file=None)
        async with DataLayer(embedded) as servers:
            url = servers.database.address.url.set(drivername="postgresql")
            settings = Settings(
                database_url=url.render_as_string(hide_password=False),
                redis_url=f"unix://{servers.cache.address}",
                local_storage_path=folder / "uploads",
                db_max_connections=5,
                _env_file=None,
            )
            await bench_costs(folder, settings, options)
            await bench_memory(folder, settings, options)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=9, help="measured rounds of each candidate")
    parser.add_argument("--seconds", type=float, default=0.5, help="length of a round")
    parser.add_argument("--requests", type=int, default=36_000, help="an hour's worth: ten a second")
    parser.add_argument("--workers", type=int, nargs="*", default=[1], help="measure memory with so many workers")
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
