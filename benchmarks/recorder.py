"""What recording costs a page: the same answers through the same server, with and without us in between.

One create with four variants of 60 KB is sent as the application sends it, the whole code again and again: about 3,300
messages, 102 MB. The page reads over a real WebSocket, with its compression. Run: make bench-recorder
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import socket
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
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


class Application:
    """Sends the messages, and says how long that took."""

    def __init__(self) -> None:
        self.messages = messages()
        self.seconds: list[float] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise RuntimeError("no lifespan")
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        start = time.perf_counter()
        for message in self.messages:
            await send({"type": "websocket.send", "text": encoded(message)})
            await asyncio.sleep(0)  # As an application does that waits for a model.
        self.seconds.append(time.perf_counter() - start)
        await send({"type": "websocket.close", "code": 1000})


def read(port: int, runs: int) -> None:
    """The page, in a process of its own."""

    async def run() -> None:
        for _ in range(runs):
            async with connect(f"ws://127.0.0.1:{port}/generate-code", max_size=None, proxy=None) as websocket:
                await websocket.send(json.dumps({"generationType": "create", "prompt": {"text": "A shop"}}))
                async for _message in websocket:
                    pass

    uvloop.run(run())


@asynccontextmanager
async def served(application: Any) -> AsyncIterator[int]:
    listener = socket.create_server(("127.0.0.1", 0))
    server = HttpServer(application, listener, finish_seconds=5, largest_message=LARGEST)
    server.start()
    try:
        yield listener.getsockname()[1]
    finally:
        await server.close()


async def measure(application: Any, sender: Application, runs: int) -> float:
    """Seconds for sending everything: the best of some runs, because other work on the machine only adds to it."""
    sender.seconds.clear()
    async with served(application) as port:
        process = multiprocessing.get_context("spawn").Process(target=read, args=(port, runs))
        process.start()
        await asyncio.to_thread(process.join)
    return min(sender.seconds)


def hearing(sender: Application) -> float:
    """Microseconds that hearing one message takes."""
    durations, heard = [], [encoded(message) for message in sender.messages]
    for _ in range(5):
        tape = Tape()
        start = time.perf_counter()
        for message in heard:
            tape.hear(message)
        durations.append((time.perf_counter() - start) / len(sender.messages))
    return statistics.median(durations) * 1e6


async def main(runs: int) -> None:
    sender = Application()
    size = sum(len(encoded(message)) for message in sender.messages)
    print(f"{len(sender.messages)} messages, {size / 1e6:.0f} MB")
    print(f"hearing a message:       {hearing(sender):8.1f} µs")
    with tempfile.TemporaryDirectory(prefix="dl-") as folder:
        settings = Settings(data_folder=Path(folder) / "data", local_storage_path=Path(folder) / "uploads")
        plain, between = [], []
        async with (
            DataLayer(settings) as data,
            recorded(data, create_app(data), sender, RecorderOptions()) as application,
        ):
            for _ in range(runs):  # In turns, so that both meet the same machine.
                plain.append(await measure(sender, sender, 2))
                between.append(await measure(application, sender, 2))
    without, with_it = min(plain), min(between)
    print(f"without the recorder:    {without:8.3f} s")
    print(f"with the recorder:       {with_it:8.3f} s  ({(with_it / without - 1) * 100:+.1f} %)")
    print(f"for each message:        {(with_it - without) / len(sender.messages) * 1e6:8.1f} µs")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    uvloop.run(main(parser.parse_args().runs))
