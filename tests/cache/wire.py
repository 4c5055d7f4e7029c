"""Runners of commands, and peers that misbehave, for the tests of the way to the servers."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Self

import hiredis

from data_layer.cache.address import find_cache
from data_layer.cache.commands import CommandRunner
from data_layer.cache.statistics import Counters
from data_layer.config import Settings
from data_layer.testing.redis_server import RedisServer

Behave = Callable[[list[bytes], asyncio.StreamWriter], Awaitable[None]]

LIMIT = 20
"""Seconds that something may take on a busy machine before the test fails."""


@asynccontextmanager
async def running(
    url: str | None = None, *, connect: int = 5000, command: int = 5000, **settings: Any
) -> AsyncIterator[CommandRunner]:
    """An open runner; time limits are in milliseconds."""
    options = Settings(redis_connect_timeout=connect, redis_command_timeout=command, **settings)
    runner = CommandRunner(find_cache(options.redis, url), options.redis, Counters())
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
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise NotImplementedError


class Peer(Listening):
    """Greets like a primary, and then behaves as it is told.

    Args:
        behave: gets each command, and may answer.
        is_silent: also leave the questions for the role unanswered that come after the greeting.
    """

    def __init__(self, behave: Behave, *, is_silent: bool = False) -> None:
        super().__init__()
        self._is_silent = is_silent
        self.commands: list[list[bytes]] = []
        self._behave = behave

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        parser = hiredis.Reader()
        while data := await reader.read(65536):
            parser.feed(data)
            while (command := parser.gets()) is not False:
                if command == [b"HELLO"] and self._is_silent:
                    continue
                if command[0] == b"HELLO":
                    writer.write(b"%1\r\n$4\r\nrole\r\n$6\r\nmaster\r\n")
                    continue
                if command == [b"INFO", b"server"]:
                    writer.write(b"$9\r\nrun_id:me\r\n")
                    continue
                self.commands.append(command)
                await self._behave(command, writer)
                await writer.drain()


class Endpoint(Listening):
    """One name for whichever server is the primary now: a proxy on a port.

    Connections stay with the server to which they were made, as behind HAProxy or a Kubernetes service.
    """

    def __init__(self, server: RedisServer) -> None:
        super().__init__()
        self.server = server
        self._passing: set[asyncio.Event] = set()
        self._sockets: set[asyncio.StreamWriter] = set()

    def cut(self, *, every: int = 1) -> None:
        """Reset each connection, or each second, or each third."""
        for number, writer in enumerate(list(self._sockets)):
            if number % every == 0:
                writer.transport.abort()

    def forget(self) -> None:
        """From now on, drop everything on the connections that exist, as a NAT does that lost its table."""
        for event in self._passing:
            event.clear()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        passing = asyncio.Event()
        passing.set()
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self.server.port)
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._passing.add(passing)
        self._sockets.add(writer)
        back = asyncio.create_task(self._pass_on(there_reader, writer, passing))
        try:
            await self._pass_on(reader, there_writer, passing)
        finally:
            self._passing.discard(passing)
            self._sockets.discard(writer)
            there_writer.close()
            back.cancel()

    @staticmethod
    async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, passing: asyncio.Event) -> None:
        try:
            while data := await reader.read(65536):
                if passing.is_set():
                    writer.write(data)
                    await writer.drain()
        except ConnectionError:
            pass
        finally:
            if passing.is_set():
                writer.close()


class DelayingProxy(Listening):
    """Passes everything on to a server, and what it answers after a time."""

    def __init__(self, server: RedisServer, seconds: float) -> None:
        super().__init__()
        self._port = server.port
        self._seconds = seconds

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._port)

        async def answer_late() -> None:
            while data := await there_reader.read(65536):
                loop.call_later(self._seconds, writer.write, data)

        back = asyncio.create_task(answer_late())
        try:
            while data := await reader.read(65536):
                there_writer.write(data)
        finally:
            there_writer.close()
            back.cancel()


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
