"""A proxy between a client and a server that cuts connections, slows them down, or lets nothing through."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Self


class Proxy:
    """On a free port, for an ``async with`` block."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._left: int | None = None
        self._heard = asyncio.Event()
        self._heard.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._delay = 0.0
        self._bytes_per_second: float | None = None
        self._generation = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def mute(self) -> None:
        """Take everything and answer nothing."""
        self._heard.clear()

    def unmute(self) -> None:
        self._heard.set()

    def forget(self) -> None:
        """From now on, drop everything on the connections that exist, as a NAT does that lost its table."""
        self._generation += 1

    def slow_down(self, *, delay: float, bytes_per_second: float | None) -> None:
        """Hold each piece back for so many seconds, and let no more through than that on each connection."""
        self._delay, self._bytes_per_second = delay, bytes_per_second

    def cut_after(self, size: int | None) -> None:
        """Reset every connection after so many further bytes in all, in both directions; None: never."""
        self._left = size

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            with suppress(OSError, asyncio.CancelledError):
                await self._connect(reader, writer)
        finally:
            writer.transport.abort()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._target)
        pumps = [
            asyncio.ensure_future(self._pump(reader, server_writer)),
            asyncio.ensure_future(self._pump(server_reader, writer)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            # First of all: what comes after it waits, and may be cancelled.
            server_writer.transport.abort()
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        generation = self._generation
        while data := await reader.read(65_536):
            await self._heard.wait()
            if generation != self._generation:
                continue
            if self._delay or self._bytes_per_second:
                await asyncio.sleep(self._delay + len(data) / (self._bytes_per_second or float("inf")))
            if self._left is not None:
                if self._left < len(data):
                    writer.write(data[: self._left])
                    await writer.drain()
                    self._left = 0
                    return
                self._left -= len(data)
            writer.write(data)
            await writer.drain()
