"""How soon another process knows of a write: this library's reads, and a raw tracking connection.

Run as a program it is the process that writes: one line of input orders one write, one line of output says when it
began. Both processes read the same monotonic clock.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import hiredis
from cache_peers import LIVES_SECONDS, PREFIX, VALUE, settings_for, until_near_copy_answers

from data_layer.cache import Cache

KEY = "watched"
_BLOCK = 50


class Writer:
    """The other process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    def order(self, number: int) -> None:
        assert self._process.stdin
        self._process.stdin.write(f"{number}\n".encode())

    async def began(self) -> float:
        """When the write that was ordered began."""
        assert self._process.stdout
        async with asyncio.timeout(30):
            return float(await self._process.stdout.readline())


@asynccontextmanager
async def another_process(port: int) -> AsyncIterator[Writer]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, __file__, str(port)), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield Writer(process)
    finally:
        process.kill()
        await process.wait()


async def measure_invalidation(port: int, writes: int) -> dict[str, dict[str, float]]:
    """Milliseconds: median and 99th percentile."""
    ours: list[float] = []
    raw: list[float] = []
    async with another_process(port) as writer, Cache(settings_for(port)) as cache, tracking(port) as messages:
        writer.order(-1)
        await writer.began()
        await until_near_copy_answers(cache)
        for start in range(0, writes, _BLOCK):
            numbers = range(start, start + _BLOCK)
            ours += [await until_read(cache, writer, number) for number in numbers]
            raw += [await until_told(messages, writer, -number - 2) for number in numbers]
    return {
        "data layer: the new value is read": _summary(ours),
        "raw tracking connection: the message has come": _summary(raw),
    }


async def until_read(cache: Cache, writer: Writer, number: int) -> float:
    """The value is in the near copy, is changed by the other process, and is read here all the time."""
    await cache.get(KEY)
    writer.order(number)
    while (await cache.get(KEY))["number"] != number:  # noqa: ASYNC110  (what is measured)
        await asyncio.sleep(0)
    seen = time.monotonic()
    return seen - await writer.began()


async def until_told(messages: asyncio.Queue[float], writer: Writer, number: int) -> float:
    while not messages.empty():
        messages.get_nowait()
    writer.order(number)
    async with asyncio.timeout(30):
        told = await messages.get()
    return told - await writer.began()


@asynccontextmanager
async def tracking(port: int) -> AsyncIterator[asyncio.Queue[float]]:
    """When each message of a raw connection has come."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    messages: asyncio.Queue[float] = asyncio.Queue()

    async def listen() -> None:
        parser = hiredis.Reader()
        while data := await reader.read(65536):
            parser.feed(data)
            while (message := parser.gets()) is not False:
                if isinstance(message, list) and message[0] == b"invalidate":
                    messages.put_nowait(time.monotonic())

    listening = asyncio.create_task(listen())
    writer.write(f"HELLO 3\r\nCLIENT TRACKING ON BCAST PREFIX {PREFIX}:{KEY}\r\n".encode())
    try:
        yield messages
    finally:
        listening.cancel()
        writer.close()


def _summary(seconds: list[float]) -> dict[str, float]:
    return {"median": statistics.median(seconds) * 1000, "p99": statistics.quantiles(seconds, n=100)[98] * 1000}


async def write_when_told(port: int) -> None:
    loop = asyncio.get_running_loop()
    orders: Any = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    async with Cache(settings_for(port)) as cache:
        while line := await orders.readline():
            began = time.monotonic()
            await cache.set(KEY, VALUE | {"number": int(line)}, LIVES_SECONDS)
            print(began, flush=True)


if __name__ == "__main__":
    asyncio.run(write_when_told(int(sys.argv[1])))
