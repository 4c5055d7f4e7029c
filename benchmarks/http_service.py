"""``make bench-http``: requests a second of the service, against a bare FastAPI route that returns the same bytes.

Both are one worker on loopback behind the same server with the same settings, and wrk asks both (Debian's package
``wrk``). Rounds alternate, so that a disturbance meets both; each round of the service is compared with the bare one
beside it, and the median of the comparisons counts. Processor time is that of the server, without wrk's: what else the
machine does disturbs it less than it does the rate. The service logs and counts every request as it does in production.

The bare routes stand behind our HTTP server, too, or with ``--plain-uvicorn`` behind uvicorn as it comes, with the same
settings.

At the end two workers are asked by twice as many connections, and two processes with the bare routes. On a machine
whose processors they share with wrk the rate cannot double, so what counts is the processor time a request, which must
not grow, that both get their share, and by how much the rate of the bare routes grows.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import re
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import httpx
import uvicorn
import uvloop
from fastapi import FastAPI, Response
from rich.console import Console
from rich.table import Table

from data_layer import DataLayer, Settings
from data_layer.schemas.actors import SYSTEM
from data_layer.schemas.generations import GenerationRequest, VariantModel
from data_layer.schemas.projects import ProjectDraft
from data_layer.server.http_server import HttpServer
from data_layer.testing.free_ports import free_port

VERSIONS = 50
EMAIL, PASSWORD = "bench@example.com", "correct horse battery staple"
RATE = re.compile(r"Requests/sec:\s+([\d.]+)")
NUMBER = re.compile(r"(\d+) requests in")
UNEXPECTED = re.compile(r"Non-2xx or 3xx responses: (\d+)")
console = Console()


class Server(NamedTuple):
    """One of the two: its port and its processes."""

    port: int
    processes: tuple[int, ...]


class Measured(NamedTuple):
    """Requests a second, and the processor time that they take.

    ``microseconds`` of the server for each, ``share`` of the busiest of its processes, and the processors that wrk
    takes.
    """

    rate: float
    microseconds: float
    share: float
    wrk: float


class Case(NamedTuple):
    """A request, and what the service answers."""

    name: str
    path: str
    headers: dict[str, str]
    status: int
    body: bytes


def serve_bare(listener: socket.socket, cases: list[Case], *, plain: bool) -> None:
    """A process with one route for each case, which does nothing.

    Args:
        listener: where it takes connections.
        cases: what it answers.
        plain: whether it is behind uvicorn as it comes.
    """
    app = FastAPI(openapi_url=None)

    def add(case: Case) -> None:
        @app.get(case.path)
        async def answer() -> Response:
            return Response(case.body, case.status, media_type="application/json")

    for case in cases:
        add(case)

    async def serve() -> None:
        if plain:
            config = uvicorn.Config(
                app, http="httptools", ws="none", proxy_headers=False, log_config=None, access_log=False, lifespan="off"
            )
            await uvicorn.Server(config).serve(sockets=[listener])
            return
        server = HttpServer(app, listener, finish_seconds=1)
        server.start()
        await server.wait()

    uvloop.run(serve())


@contextmanager
def service(folder: Path, settings: Settings, workers: int = 1) -> Iterator[Server]:
    """``data-layer start`` in a process of its own, or in several."""
    assert settings.database.database_url
    assert settings.redis.redis_url
    port = free_port()
    environment = {
        "PATH": os.environ["PATH"],
        "DATABASE_URL": settings.database.database_url.get_secret_value(),
        "REDIS_URL": settings.redis.redis_url.get_secret_value(),
        "LOCAL_STORAGE_PATH": str(folder / "uploads"),
        "PORT": str(port),
        "METRICS_PORT": str(free_port()),
        "WORKERS": str(workers),
        # Counted, but never reached.
        "REQUEST_LIMIT_PERSON": "100000000",
        "REQUEST_LIMIT_ADDRESS": "100000000",
    }
    program = Path(sys.executable).with_name("data-layer")
    with (folder / "service.jsonl").open("w") as log:
        process = subprocess.Popen([str(program), "start"], cwd=folder, env=environment, stdout=log, stderr=log)
        try:
            yield Server(
                port, (process.pid,) if workers == 1 else workers_of(process.pid, workers, folder / "service.jsonl")
            )
        finally:
            process.terminate()
            process.wait(60)


def workers_of(supervisor: int, number: int, log: Path) -> tuple[int, ...]:
    """The processes that serve, once all of them have begun."""
    for _ in range(300):
        found = tuple(map(int, Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()))
        if log.read_text().count('"worker_ready"') == number == len(found):
            return found
        time.sleep(0.1)
    raise SystemExit("the workers did not start in time")


@contextmanager
def bare_service(cases: list[Case], workers: int, *, plain: bool) -> Iterator[Server]:
    """The bare routes in processes of their own."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    make = partial(multiprocessing.get_context("spawn").Process, target=serve_bare, args=(listener, cases))
    processes = [make(kwargs={"plain": plain}) for _ in range(workers)]
    for process in processes:
        process.start()
    try:
        yield Server(listener.getsockname()[1], tuple(process.pid for process in processes if process.pid))
    finally:
        for process in processes:
            process.terminate()
            process.join()
        listener.close()


async def until_ready(port: int, path: str) -> None:
    async with httpx.AsyncClient() as client:
        for _ in range(300):
            try:
                answer = await client.get(f"http://127.0.0.1:{port}{path}")
            except httpx.TransportError:
                answer = None
            if answer is not None and answer.status_code < 500:
                return
            await asyncio.sleep(0.1)
    raise SystemExit("a server did not become ready in time")


async def find_cases(port: int, paths: dict[str, str], token: str) -> list[Case]:
    """Each request once, to know its bytes."""
    bearer = {"authorization": f"Bearer {token}"}
    cases = []
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        for name, path in paths.items():
            answer = await client.get(path, headers=bearer)
            answer.raise_for_status()
            cases.append(Case(name, path, bearer, answer.status_code, answer.content))
        path, headers = "/v1/sessions", {"authorization": "Bearer " + "x" * 43}
        refused = await client.get(path, headers=headers)
        cases.append(Case("unauthorised", path, headers, refused.status_code, refused.content))
    return cases


def processor_seconds(server: Server) -> list[float]:
    """The processor time of each process until now, of all its threads."""
    return [seconds_of(process) for process in server.processes]


def seconds_of(process: int) -> float:
    user, system = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def seconds_of_children() -> float:
    """The processor time of the children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def ask(server: Server, case: Case, seconds: float, connections: int) -> Measured:
    """How a server answers."""
    headers = [part for name, value in case.headers.items() for part in ("-H", f"{name}: {value}")]
    url = f"http://127.0.0.1:{server.port}{case.path}"
    command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", *headers, url]
    before, wrk_before = processor_seconds(server), seconds_of_children()
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    used = [after - earlier for after, earlier in zip(processor_seconds(server), before, strict=True)]
    wrk = (seconds_of_children() - wrk_before) / max(1, round(seconds))
    unexpected = UNEXPECTED.search(output)
    if (case.status >= 400) != (unexpected is not None):
        raise SystemExit(f"{case.name}: not the answers that were expected\n{output}")
    rate, number = RATE.search(output), NUMBER.search(output)
    assert rate
    assert number
    share = max(used) / sum(used) if sum(used) else 1.0
    return Measured(float(rate[1]), sum(used) / int(number[1]) * 1e6, share, wrk)


def compare(case: Case, ours: Server, bare: Server, options: argparse.Namespace) -> list[str]:
    """The medians of both, and the median of their ratios."""
    rounds: list[tuple[Measured, Measured]] = []
    for number in range(-1, options.rounds):
        first, second = (ours, bare) if number % 2 else (bare, ours)
        found = {each: ask(each, case, options.seconds, options.connections) for each in (first, second)}
        if number >= 0:  # The first round warms up.
            rounds.append((found[ours], found[bare]))
    rates = [statistics.median(each[which].rate for each in rounds) for which in (1, 0)]
    times = [statistics.median(each[which].microseconds for each in rounds) for which in (1, 0)]
    return [
        *(f"{rate:,.0f}" for rate in rates),
        f"{statistics.median(mine.rate / other.rate for mine, other in rounds):.2f}",
        *(f"{each:,.0f}" for each in times),
        f"{statistics.median(other.microseconds / mine.microseconds for mine, other in rounds):.2f}",
    ]


async def prepare(data: DataLayer) -> tuple[str, dict[str, str]]:
    """A person who is logged in, with what the requests read."""
    await data.accounts.create(
        SYSTEM, email=EMAIL, password=PASSWORD, first_name="Bench", last_name="Mark", email_verified=True
    )
    new = await data.accounts.log_in(EMAIL, PASSWORD)
    actor = new.session.actor
    project = await data.projects.create(actor, ProjectDraft(name="Project"))
    for number in range(VERSIONS):
        started = await data.generations.start(actor, project.id, GenerationRequest(), [VariantModel()])
        await data.generations.complete(actor, started.writer_token, 0, code=f"<p>{number}")
    path = f"/v1/projects/{project.id}"
    paths = {"the own account": "/v1/accounts/me", "a project": path, f"{VERSIONS} versions": f"{path}/versions"}
    return new.token.get_secret_value(), paths


async def run(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        embedded = Settings(data_folder=folder / "servers", local_storage_path=folder / "uploads", _env_file=None)
        async with DataLayer(embedded) as servers:
            token, paths = await prepare(servers)
            url = servers.database.address.url.set(drivername="postgresql")
            settings = Settings(
                database_url=url.render_as_string(hide_password=False),
                redis_url=f"unix://{servers.cache.address}",
                _env_file=None,
            )
            with service(folder, settings) as ours:
                await until_ready(ours.port, "/readyz")
                cases = await find_cases(ours.port, paths, token)
                with bare_service(cases, 1, plain=options.plain_uvicorn) as bare:
                    await until_ready(bare.port, cases[0].path)
                    await asyncio.to_thread(report, cases, ours, bare, options)
                    with bare_service(cases, 2, plain=options.plain_uvicorn) as two:
                        await until_ready(two.port, cases[0].path)
                        await asyncio.to_thread(report_growth, "two bare processes", cases[0], bare, two, options)
                with service(folder, settings, workers=2) as two:
                    await until_ready(two.port, "/readyz")
                    await asyncio.to_thread(report_growth, "two workers", cases[0], ours, two, options)


def report(cases: list[Case], ours: Server, bare: Server, options: argparse.Namespace) -> None:
    table = Table(
        title=f"{options.connections} connections, load {os.getloadavg()[0]:.1f}", title_justify="left", box=None
    )
    table.add_column("request")
    for column in ("bytes", "bare/s", "service/s", "ratio", "bare µs", "service µs", "ratio"):
        table.add_column(column, justify="right")
    started = time.perf_counter()
    for case in cases:
        table.add_row(case.name, f"{len(case.body):,}", *compare(case, ours, bare, options))
    console.print(table)
    console.print(f"{options.rounds} rounds in {time.perf_counter() - started:.0f} s; µs of processor time a request")


def report_growth(name: str, case: Case, one: Server, two: Server, options: argparse.Namespace) -> None:
    """By how much two workers, each on a processor of its own, answer more than one."""
    rounds: list[tuple[Measured, Measured]] = []
    for number in range(-1, options.rounds):
        alone = ask(one, case, options.seconds, options.connections)
        both = ask(two, case, options.seconds, 2 * options.connections)
        if number >= 0:
            rounds.append((alone, both))
    growth = statistics.median(alone.microseconds / both.microseconds / both.share for alone, both in rounds)
    rate = statistics.median(both.rate / alone.rate for alone, both in rounds)
    share = statistics.median(both.share for _, both in rounds)
    wrk = [statistics.median(each[which].wrk for each in rounds) for which in (0, 1)]
    console.print(
        f"{name}: {growth:.2f} times as many by processor time, of which the busier one has {share:.0%}; "
        f"{rate:.2f} times the rate here, where wrk takes {wrk[0]:.2f} and {wrk[1]:.2f} of {os.cpu_count()} processors"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds of each request")
    parser.add_argument("--seconds", type=float, default=2, help="length of a round")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument(
        "--plain-uvicorn", action="store_true", help="put the bare routes behind uvicorn as it comes, not our server"
    )
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is needed: apt-get install wrk")
    asyncio.run(run(options))


if __name__ == "__main__":
    main()
