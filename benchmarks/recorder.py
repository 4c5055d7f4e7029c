"""What recording costs a page: the same answers through the same server, with and without us in between.

One create with four variants of 60 KB is sent as the application sends it, the whole code again and again: about 3,300
messages, 102 MB. The page, in a process of its own, reads over real WebSockets, with their compression.

Each pair sends everything once without and once with the recorder, one right after the other, in changing order; both
are measured by the clock, and by the processor time of this process, which other work on the machine hardly touches.
What is stated is the median of the pairs, and between which values half of them lie. What is recorded after the last
message is not in the time that the page takes, and is stated by itself. Run: make bench-recorder
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import resource
import socket
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import uvloop
from websockets.asyncio.client import connect

from data_layer import DataLayer, Settings
from data_layer.api.app import create_app
from data_layer.recorder.application import RecorderOptions, recorded
from data_layer.recorder.tape import Tape
from data_layer.server.http_server import HttpServer

VARIANTS = 4
PAGE = 60_000
STEPS = 825
LARGEST = 64 * 2**20
QUIET_SECONDS = 0.3
IDLE = 0.05
"""The share of a processor that a process with nothing to do takes at most."""


def messages() -> list[dict[str, Any]]:
    """What the application sends, in the order in which it does."""
    line = '<div class="flex items-center p-4">\n  <p class="text-lg">Lorem ipsum dolor sit amet</p>\n</div>\n'
    page = (line * (PAGE // len(line) + 1))[:PAGE]
    sent: list[dict[str, Any]] = [{"type": "variantCount", "value": str(VARIANTS), "variantIndex": 0}]
    for step in range(1, STEPS + 1):
        code = page[: PAGE * step // STEPS]
        sent += [{"type": "setCode", "value": code, "variantIndex": index} for index in range(VARIANTS)]
    sent += [{"type": "variantComplete", "variantIndex": index} for index in range(VARIANTS)]
    return sent


def encoded(message: dict[str, Any]) -> str:
    """A message as Starlette's ``send_json`` sends it."""
    return json.dumps(message, separators=(",", ":"), ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds by the clock, and of processor time of this process."""

    wall: float
    processor: float

    @classmethod
    def since_start(cls) -> Cost:
        used = resource.getrusage(resource.RUSAGE_SELF)
        return cls(time.perf_counter(), used.ru_utime + used.ru_stime)

    def __sub__(self, other: Cost) -> Cost:
        return Cost(self.wall - other.wall, self.processor - other.processor)


class Application:
    """Sends the messages, and says what that took."""

    def __init__(self) -> None:
        self.messages = messages()
        self.cost = Cost(0, 0)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise RuntimeError("no lifespan")
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        start = Cost.since_start()
        for message in self.messages:
            await send({"type": "websocket.send", "text": encoded(message)})
            await asyncio.sleep(0)  # As an application does that waits for a model.
        self.cost = Cost.since_start() - start
        await send({"type": "websocket.close", "code": 1000})


def read(orders: Connection) -> None:
    """The page, in a process of its own: it reads everything from a port whenever it is given one."""

    async def run(port: int) -> None:
        async with connect(f"ws://127.0.0.1:{port}/generate-code", max_size=None, proxy=None) as websocket:
            await websocket.send(json.dumps({"generationType": "create", "prompt": {"text": "A shop"}}))
            async for _message in websocket:
                pass

    while port := orders.recv():
        uvloop.run(run(port))
        orders.send(port)


@asynccontextmanager
async def served(application: Any) -> AsyncIterator[int]:
    listener = socket.create_server(("127.0.0.1", 0))
    server = HttpServer(application, listener, finish_seconds=5, largest_message=LARGEST)
    server.start()
    try:
        yield listener.getsockname()[1]
    finally:
        await server.close()


class Measurement:
    """Sends everything to the page by a port, again and again.

    Args:
        sender: the application.
        page: takes ports.
    """

    def __init__(self, sender: Application, page: Connection) -> None:
        self._sender = sender
        self._page = page

    async def send(self, port: int) -> Cost:
        """What sending everything took."""
        self._page.send(port)
        await asyncio.to_thread(self._page.recv)  # It ends with EOFError where the page has failed.
        return self._sender.cost

    async def compare(self, without: int, between: int, pairs: int) -> list[tuple[Cost, Cost, Cost]]:
        """For each pair what it took without us, with us, and what we did afterwards."""
        found = []
        for number in range(pairs):
            costs, after = {}, Cost(0, 0)
            for port in (without, between) if number % 2 else (between, without):
                costs[port] = await self.send(port)
                if port == between:
                    after = await quiet()
            found.append((costs[without], costs[between], after))
        return found


async def quiet() -> Cost:
    """Wait until this process has nothing to do; what that took."""
    start = Cost.since_start()
    while True:
        before = Cost.since_start()
        await asyncio.sleep(QUIET_SECONDS)
        if (Cost.since_start() - before).processor < IDLE * QUIET_SECONDS:
            return before - start


def hearing(sender: Application) -> float:
    """Microseconds that hearing one message takes."""
    durations, heard = [], [encoded(message) for message in sender.messages]
    for _ in range(5):
        tape = Tape()
        start = time.perf_counter()
        for message in heard:
            tape.record(message)
        durations.append((time.perf_counter() - start) / len(sender.messages))
    return statistics.median(durations) * 1e6


def stated(label: str, values: Sequence[float], unit: str, form: str = "9.1f") -> None:
    """The median, and between which values half of them lie."""
    low, middle, high = statistics.quantiles(values, n=4)
    print(f"{label:30}{middle:{form}} {unit}   (half of them: {low:{form}} to {high:{form}})")


async def main(pairs: int) -> None:
    sender = Application()
    size = sum(len(encoded(message)) for message in sender.messages)
    print(f"{len(sender.messages)} messages, {size / 1e6:.0f} MB, {pairs} pairs")
    orders, theirs = multiprocessing.get_context("spawn").Pipe()
    reader = multiprocessing.get_context("spawn").Process(target=read, args=(theirs,))
    reader.start()
    theirs.close()
    with tempfile.TemporaryDirectory(prefix="dl-") as folder:
        settings = Settings(data_folder=Path(folder) / "data", local_storage_path=Path(folder) / "uploads")
        async with (
            DataLayer(settings) as data,
            recorded(data, create_app(data), sender, RecorderOptions()) as application,
            served(sender) as without,
            served(application) as between,
        ):
            measurement = Measurement(sender, orders)
            await measurement.compare(without, between, 2)  # Until everything is warm.
            costs = await measurement.compare(without, between, pairs)
    orders.send(0)
    reader.join()
    show(costs, len(sender.messages))
    print(f"{'hearing one message':30}{hearing(sender):9.1f} µs")


def show(costs: Sequence[tuple[Cost, Cost, Cost]], count: int) -> None:
    for name in ("wall", "processor"):
        pairs = [(getattr(plain, name), getattr(ours, name)) for plain, ours, _ in costs]
        clock = "clock" if name == "wall" else "processor"
        stated(f"{clock}, without", [plain for plain, _ in pairs], "s", "9.3f")
        stated(f"{clock}, with the recorder", [ours for _, ours in pairs], "s", "9.3f")
        stated(f"{clock}, more in a pair", [(ours / plain - 1) * 100 for plain, ours in pairs], "%")
        stated(f"{clock}, for each message", [(ours - plain) / count * 1e6 for plain, ours in pairs], "µs")
    stated("processor, after the last one", [after.processor for *_, after in costs], "s", "9.3f")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=20)
    uvloop.run(main(parser.parse_args().pairs))
