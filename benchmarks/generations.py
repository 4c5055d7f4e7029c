"""``make bench-generations``: 200 generations that grow at once, 20 pieces a second each, and a reader of each.

One process writes them all; the readers are in the same process, and then in one of their own. Each piece carries the
time at which it was handed over, so a reader knows how late it comes. Processor time is that of each process, with
everything that it does: checkpoints, publishing, following.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import re
import resource
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

from rich.console import Console
from rich.table import Table

from data_layer import DataLayer, Settings
from data_layer.embedded import EmbeddedServers
from data_layer.entities import Project, User
from data_layer.schemas.actors import Actor
from data_layer.schemas.generation_stream import CodePatch, CodeState
from data_layer.schemas.generations import CodePiece, GenerationRequest, VariantModel

PIECE = "<p class='text-lg'>{:.6f}</p>\n"
TIMES = re.compile(r">(\d+\.\d{6})<")
ENDS_AT_ONCE = asyncio.Semaphore(4)
"""In life they do not all end in the same moment."""
console = Console()


class Written(NamedTuple):
    """A generation that is written."""

    actor: Actor
    id: UUID
    token: str


async def start(data: DataLayer, count: int) -> list[Written]:
    """Begin this many generations, each in a project of its own."""
    user = User(email="bench@example.com", first_name="A", last_name="B")
    projects = [Project(user_id=user.id, name=f"Project {number}") for number in range(count)]
    async with data.transaction() as tx:
        for row in (user, *projects):
            tx.add(row)
    actor = Actor.user(user.id)
    written = []
    for project in projects:
        found = await data.generations.start(actor, project.id, GenerationRequest(), [VariantModel()])
        written.append(Written(actor, found.id, found.writer_token))
    return written


async def write(data: DataLayer, each: Written, rate: float, seconds: float, offset: float) -> None:
    """Append pieces of 40 bytes at this rate, then complete."""
    begin = time.monotonic() + offset
    for number in range(1, int(rate * seconds) + 1):
        await asyncio.sleep(max(0.0, begin + number / rate - time.monotonic()))
        piece = CodePiece(PIECE.format(time.monotonic()))
        await data.generations.append(each.actor, each.token, 0, number, piece)
    async with ENDS_AT_ONCE:
        await data.generations.complete(each.actor, each.token, 0)


class Delays(list[float]):
    """How late pieces came; ``begun`` counts the readers that have received something."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = asyncio.Semaphore(0)

    async def all_have_begun(self, readers: int) -> None:
        """Wait for it."""
        for _ in range(readers):
            await self.begun.acquire()


async def read(data: DataLayer, actor: Actor, generation_id: UUID, delays: Delays) -> None:
    """Follow to the end, and note how late each piece comes."""
    is_first = True
    async for event in data.generations.follow(actor, generation_id):
        now = time.monotonic()
        if is_first:
            delays.begun.release()
            is_first = False
        if isinstance(event, CodePatch | CodeState):
            added = event.text if isinstance(event, CodePatch) else event.code
            delays.extend(now - float(found) for found in TIMES.findall(added))


async def follow(settings: Settings, actor: Actor, ids: Sequence[UUID], connection: Connection) -> None:
    """The readers, in a process of their own."""
    delays = Delays()
    async with DataLayer(settings) as data:
        reading = [asyncio.create_task(read(data, actor, each, delays)) for each in ids]
        await delays.all_have_begun(len(ids))
        before = processor_time()
        connection.send("ready")
        await asyncio.gather(*reading)
        connection.send((list(delays), processor_time() - before))


def follow_in_process(settings: Settings, actor: Actor, ids: Sequence[UUID], connection: Connection) -> None:
    asyncio.run(follow(settings, actor, ids, connection))


def processor_time() -> float:
    """Seconds that this process has computed."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


class Figures(NamedTuple):
    """What one run has shown."""

    wall: float
    writing: float
    reading: float | None
    delays: list[float]


async def measure(settings: Settings, options: argparse.Namespace, *, apart: bool) -> Figures:
    async with DataLayer(settings, prepare=True) as data:
        written = await start(data, options.generations)
        delays = Delays()
        ids = [each.id for each in written]
        ours, theirs = multiprocessing.Pipe()
        reading: list[asyncio.Task[None]] = []
        process = multiprocessing.get_context("spawn").Process(
            target=follow_in_process, args=(settings, written[0].actor, ids, theirs)
        )
        if apart:
            process.start()
            await asyncio.to_thread(ours.recv)
        else:
            reading = [asyncio.create_task(read(data, each.actor, each.id, delays)) for each in written]
            await delays.all_have_begun(len(written))
        begun, before = time.monotonic(), processor_time()
        rate, seconds = options.rate, options.seconds
        await asyncio.gather(
            *(write(data, each, rate, seconds, number / len(written) / rate) for number, each in enumerate(written))
        )
        await asyncio.gather(*reading)
        wall, used = time.monotonic() - begun, processor_time() - before
        theirs_used = None
        if apart:
            found, theirs_used = await asyncio.to_thread(ours.recv)
            delays.extend(found)
            process.join()
        return Figures(wall, used, theirs_used, delays)


async def run(folder: Path, options: argparse.Namespace) -> None:
    for apart in (False, True):
        servers = EmbeddedServers(folder / str(apart), postgresql=True, valkey=True, database_name="bench")
        addresses = await servers.start()
        try:
            settings = Settings(
                database_url=addresses.database_url,
                redis_url=addresses.redis_url,
                data_folder=folder / "data",
                local_storage_path=folder / "uploads",
                log_level="warn",
            )
            console.print(table(await measure(settings, options, apart=apart), options, apart=apart))
        finally:
            with suppress(ProcessLookupError):
                await servers.stop()


def table(figures: Figures, options: argparse.Namespace, *, apart: bool) -> Table:
    where = "readers in another process" if apart else "readers in the writer's process"
    shown = Table(title=f"{options.generations} generations, {options.rate:g} pieces a second each, {where}")
    for column in ("figure", "value"):
        shown.add_column(column, justify="right" if column == "value" else "left")
    delays = sorted(figures.delays)
    expected = options.generations * int(options.rate * options.seconds)
    shown.add_row("pieces seen live", f"{len(delays):,} of {expected:,}")
    for share in (0.5, 0.95, 0.99, 1.0):
        late = delays[min(len(delays) - 1, int(len(delays) * share))]
        shown.add_row(f"delay of a reader, {share:.0%}", f"{late * 1000:.0f} ms")
    shown.add_row("seconds", f"{figures.wall:.0f}")
    shown.add_row("processor, writer", f"{figures.writing / figures.wall:.2f} cores")
    if figures.reading is not None:
        shown.add_row("processor, readers", f"{figures.reading / figures.wall:.2f} cores")
    shown.add_row("load average of the machine", " ".join(f"{load:.1f}" for load in os.getloadavg()))
    shown.add_row("cores of the machine", str(os.cpu_count()))
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--generations", type=int, default=200, help="how many grow at once")
    parser.add_argument("--rate", type=float, default=20, help="pieces a second of each")
    parser.add_argument("--seconds", type=float, default=20, help="how long")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        asyncio.run(run(Path(folder), options))


if __name__ == "__main__":
    main()
