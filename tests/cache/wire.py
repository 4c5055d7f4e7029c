"""Runners of commands, and peers that misbehave, for the tests of the way to the servers."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Self

import hiredis

from data_layer.cache.address import find_cache
from data_layer.cache.commands import CommandRunner
from data_layer.cache.statistics import Counters
from data_layer.config import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    Behave = Callable[[list[bytes], asyncio.StreamWriter], Awaitable[None]]

LIMIT = 20
"""Seconds that something may take on a busy machine before the test fails."""


@asynccontextmanager
async def running(
    url: str | None = None, *, connect: int = 5000, command: int = 5000, **settings: Any
) -> AsyncIterator[CommandRunner]:
    """An open runner; time limits are in milliseconds."""
    options = Settings(redis_connect_timeout=connect, redis_command_timeout=command, **settings)
    runner = CommandRunner(find_cache(options, url), options, Counters())
    try:
        yield runner
    finally:
        await runner.close()


class Listening:
    """Something on a port of 127.0.0.1, for an ``async with`` block."""

    def __init__(self) -> None:
        self.connections = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.close()
        await self._server.wait_closed()

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        try:
            await self.serve(reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise NotImplementedError


class Peer(Listening):
    """Greets like a server, and then behaves as it is told."""

    def __init__(self, behave: Behave) -> None:
        super().__init__()
        self.commands: list[list[bytes]] = []
        self._behave = behave

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        parser = hiredis.Reader()
        while data := await reader.read(65536):
            parser.feed(data)
            while (command := parser.gets()) is not False:
                if command[0] == b"HELLO":
                    writer.write(b"%1\r\n+server\r\n+peer\r\n")
                    continue
                self.commands.append(command)
                await self._behave(command, writer)
                await writer.drain()


class HoldingProxy(Listening):
    """Passes everything on to a server, but holds back connections that have sent much, until they are released."""

    def __init__(self, port: int, much: int = 70_000) -> None:
        super().__init__()
        self.released = asyncio.Event()
        self.held = asyncio.Event()
        self._port = port
        self._much = much

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._port)
        back = asyncio.create_task(self._pass_on(there_reader, writer))
        try:
            sent = 0
            while data := await reader.read(65536):
                sent += len(data)
                if sent > self._much and not self.released.is_set():
                    self.held.set()
                    await self.released.wait()
                there_writer.write(data)
                await there_writer.drain()
        finally:
            there_writer.close()
            back.cancel()

    @staticmethod
    async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
