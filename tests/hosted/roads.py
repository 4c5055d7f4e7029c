"""The ways to PostgreSQL and Redis, which can be slow, frozen, closed, or cut while something passes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Self
from urllib.parse import unquote, urlsplit

from sqlalchemy import make_url


class Road:
    """Passes everything on to a server that listens on a port or a Unix socket, for an ``async with`` block."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._target = host, port
        self._writers: set[asyncio.StreamWriter] = set()
        self._events: list[tuple[int, Callable[[], object]]] = []
        self._passed = 0
        self._cuts = 0
        self.round_trips = 0
        """How often something was sent after an answer, of all connections."""
        self.pause = 0.0
        """Seconds for which each piece is held back."""
        self.is_open = True
        self.refused = asyncio.Event()
        self._flows = asyncio.Event()
        self._flows.set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()

    @property
    def port(self) -> int:
        return int(self._server.sockets[0].getsockname()[1])

    def cut(self) -> None:
        """Reset all connections, also those that are being made; new ones can be made."""
        self._cuts += 1
        for writer in list(self._writers):
            writer.transport.abort()

    def close(self) -> None:
        """Cut, and refuse every new connection until ``open``."""
        self.is_open = False
        self.cut()

    def open(self) -> None:
        self.is_open = True
        self.refused.clear()

    def freeze(self) -> None:
        """Take connections and what comes on them, and pass nothing on until ``thaw``."""
        self._flows.clear()

    def thaw(self) -> None:
        self._flows.set()

    def after(self, size: int, act: Callable[[], object]) -> None:
        """Do something when so many further bytes have been sent to the server."""
        self._events.append((self._passed + size, act))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.is_open:
            self.refused.set()
            writer.transport.abort()
            return
        before = self._cuts
        if self._target == 0:
            there, away = await asyncio.open_unix_connection(self._host)
        else:
            there, away = await asyncio.open_connection(self._host, self._target)
        self._writers |= {writer, away}
        if self._cuts != before:
            writer.transport.abort()
            away.transport.abort()
        answered = asyncio.Event()
        answered.set()
        try:
            await asyncio.gather(
                self._pump(reader, away, answered, counts=True), self._pump(there, writer, answered, counts=False)
            )
        finally:
            self._writers -= {writer, away}

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answered: asyncio.Event, *, counts: bool
    ) -> None:
        try:
            with suppress(OSError):
                while piece := await reader.read(65536):
                    if not counts:
                        answered.set()
                    elif answered.is_set():
                        answered.clear()
                        self.round_trips += 1
                    if self.pause:
                        await asyncio.sleep(self.pause)
                    await self._flows.wait()
                    writer.write(piece)
                    await writer.drain()
                    if counts:
                        self._count(len(piece))
        finally:
            writer.transport.abort()

    def _count(self, size: int) -> None:
        self._passed += size
        due = [act for at, act in self._events if at <= self._passed]
        self._events = [event for event in self._events if event[0] > self._passed]
        for act in due:
            act()


def road_to_database(url: str) -> Road:
    parts = make_url(url)
    folder = str(parts.query.get("host") or parts.host)
    port = int(str(parts.query.get("port") or parts.port or 5432))
    return Road(f"{folder}/.s.PGSQL.{port}", 0) if folder.startswith("/") else Road(folder, port)


def database_url(url: str, road: Road) -> str:
    """The same database, by this road."""
    parts = make_url(url).set(host="127.0.0.1", port=road.port, query={"sslmode": "disable"})
    return parts.render_as_string(hide_password=False)


def road_to_redis(url: str) -> Road:
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return Road(unquote(parts.path), 0)
    return Road(str(parts.hostname), parts.port or 6379)


def redis_url(url: str, road: Road) -> str:
    """The same server, by this road."""
    parts = urlsplit(url)
    user = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
    path = "" if parts.scheme == "unix" else parts.path
    return f"redis://{user}127.0.0.1:{road.port}{path}"
