"""``make bench-followers``: memory of each follower of server-sent events, and how late events are, in one process.

The service is ``data-layer start`` in a process of its own. This process writes through its own data layer and follows
over HTTP on plain sockets: the time of writing stands in the text, so a follower knows how late it is. A generation is
published ten times a second at most, so up to 100 ms of the delay are meant.
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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

import httpx
from rich.console import Console
from rich.table import Table

from data_layer import DataLayer, Settings
from data_layer.schemas.actors import SYSTEM, Actor
from data_layer.schemas.generations import CodePiece, GenerationRequest, VariantModel
from data_layer.schemas.projects import ProjectDraft
from data_layer.testing.free_ports import free_port

EMAIL, PASSWORD = "bench@example.com", "correct horse battery staple"
WRITTEN = re.compile(rb"<p>(\d{10,})</p>")
KIB = 1024
AT_ONCE = 50
console = Console()


class Written(NamedTuple):
    """A generation that is written here."""

    id: UUID
    token: str


class Follower(asyncio.Protocol):
    """Asks for the events of one generation, and notes how late each text is."""

    delays: list[float] = []  # noqa: RUF012  (of all followers together)

    def __init__(self, request: bytes) -> None:
        self._request = request
        self.begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.lost = False
        self._last = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if not self.begun.done():
            assert data.startswith(b"HTTP/1.1 200"), data
            self.begun.set_result(None)
        found = WRITTEN.findall(data)
        if found and (last := int(found[-1])) > self._last:
            self._last = last
            self.delays.append((time.monotonic_ns() - last) / 1e9)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self.lost = True
        if not self.begun.done():
            self.begun.set_exception(ConnectionError("a follower was cut off"))


@contextmanager
def service(folder: Path, settings: Settings, followers: int) -> Iterator[tuple[int, int]]:
    """``data-layer start`` in a process of its own; its port, and the number of the process."""
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
        "HTTP_MAX_CONNECTIONS": str(followers + 100),
        "REQUEST_LIMIT_PERSON": "0",
        "REQUEST_LIMIT_ADDRESS": "0",
    }
    program = Path(sys.executable).with_name("data-layer")
    with (folder / "service.jsonl").open("w") as log:
        process = subprocess.Popen([str(program), "start"], cwd=folder, env=environment, stdout=log, stderr=log)
        try:
            yield port, process.pid
        finally:
            process.terminate()
            process.wait(60)


async def until_ready(port: int) -> None:
    async with httpx.AsyncClient() as client:
        for _ in range(300):
            try:
                if (await client.get(f"http://127.0.0.1:{port}/readyz")).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.1)
    raise SystemExit("the service did not become ready in time")


def memory_of(pid: int) -> int:
    """Bytes of memory that are the process's own."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(size) * KIB for size in re.findall(r"^Private_\w+:\s+(\d+) kB", text, re.MULTILINE))


def processor_time_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def begin(data: DataLayer, generations: int) -> tuple[str, Actor, list[Written]]:
    """Somebody who is logged in, and generations that run."""
    await data.accounts.create(
        SYSTEM, email=EMAIL, password=PASSWORD, first_name="Bench", last_name="Mark", email_verified=True
    )
    new = await data.accounts.log_in(EMAIL, PASSWORD)
    actor = new.session.actor
    project = await data.projects.create(actor, ProjectDraft(name="Project"))
    written = []
    for _ in range(generations):
        started = await data.generations.start(actor, project.id, GenerationRequest(), [VariantModel()])
        written.append(Written(started.id, started.writer_token))
    return new.token.get_secret_value(), actor, written


async def follow(port: int, token: str, written: list[Written], followers: int, encoding: str) -> list[Follower]:
    """So many followers, which have their first bytes."""
    loop = asyncio.get_running_loop()
    found: list[Follower] = []
    for first in range(0, followers, AT_ONCE):
        some = []
        for number in range(first, min(first + AT_ONCE, followers)):
            path = f"/v1/generations/{written[number % len(written)].id}/events"
            head = f"GET {path} HTTP/1.1\r\nhost: service\r\nauthorization: Bearer {token}\r\n"
            request = f"{head}accept-encoding: {encoding}\r\n\r\n".encode()
            some.append(Follower(request))
            await loop.create_connection(lambda follower=some[-1]: follower, "127.0.0.1", port)  # type: ignore[misc]
        await asyncio.gather(*(follower.begun for follower in some))
        found += some
    return found


async def write(data: DataLayer, actor: Actor, written: list[Written], rate: float, seconds: float) -> int:
    """Write so many pieces a second, to the generations in turn; how many there were."""
    started, number = time.monotonic(), 0
    sequences = dict.fromkeys(written, 0)
    while (now := time.monotonic() - started) < seconds:
        await asyncio.sleep(max(0.0, number / rate - now))
        target = written[number % len(written)]
        sequences[target] += 1
        piece = CodePiece(f"<p>{time.monotonic_ns()}</p>")
        await data.generations.append(actor, target.token, 0, sequences[target], piece)
        number += 1
    return number


async def renew(data: DataLayer, actor: Actor, written: list[Written]) -> None:
    """Keep the writers' leases while followers connect, which takes long on a machine that is busy."""
    while True:
        for target in written:
            await data.generations.renew(actor, target.token)
        await asyncio.sleep(15)


async def measure(data: DataLayer, settings: Settings, folder: Path, options: argparse.Namespace) -> None:
    token, actor, written = await begin(data, options.generations)
    renewing = asyncio.create_task(renew(data, actor, written))
    table = Table(title=f"{options.followers} followers, {options.generations} generations", box=None)
    for column in ("encoding", "memory of each", "events a second", "p50", "p99", "longest", "processor"):
        table.add_column(column, justify="left" if column == "encoding" else "right")
    for encoding in ("identity", "gzip"):
        with service(folder, settings, options.followers) as (port, pid):
            await until_ready(port)
            warm = await follow(port, token, written, 20, encoding)
            for follower in warm:
                follower.transport.close()
            await asyncio.sleep(1)
            before = memory_of(pid)
            followers = await follow(port, token, written, options.followers, encoding)
            await asyncio.sleep(2)
            each = (memory_of(pid) - before) / options.followers / KIB
            shown = [encoding, f"{each:.1f} KiB"]
            if encoding == "identity":
                Follower.delays.clear()
                used = processor_time_of(pid)
                count = await write(data, actor, written, options.rate, options.seconds)
                used = processor_time_of(pid) - used
                await asyncio.sleep(2)
                delays = sorted(Follower.delays)
                p99 = statistics.quantiles(delays, n=100)[98]
                shown += [f"{count / options.seconds:.0f}", f"{statistics.median(delays) * 1000:.0f} ms"]
                shown += [f"{p99 * 1000:.0f} ms", f"{delays[-1] * 1000:.0f} ms", f"{used / options.seconds:.0%}"]
                console.print(f"{len(delays):,} deliveries")
            lost = sum(follower.lost for follower in followers)
            if lost:
                raise SystemExit(f"{lost} followers were cut off")
            for follower in followers:
                follower.transport.close()
        table.add_row(*shown)
    renewing.cancel()
    console.print(table)


async def run(options: argparse.Namespace) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = options.followers + 500
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        embedded = Settings(data_folder=folder / "servers", local_storage_path=folder / "uploads", _env_file=None)
        async with DataLayer(embedded) as data:
            url = data.database.address.url.set(drivername="postgresql")
            settings = Settings(
                database_url=url.render_as_string(hide_password=False),
                redis_url=f"unix://{data.cache.address}",
                _env_file=None,
            )
            await measure(data, settings, folder, options)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--followers", type=int, default=2000)
    parser.add_argument("--generations", type=int, default=100, help="running at once; each has its share of followers")
    parser.add_argument("--rate", type=float, default=100, help="pieces that are written in a second, to all together")
    parser.add_argument("--seconds", type=float, default=20, help="length of the measurement")
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
