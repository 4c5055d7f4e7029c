"""A server whose answers a test writes byte by byte, and the names that lead to it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from ipaddress import ip_address
from typing import Any

from data_layer.concurrency import cancel_and_wait
from data_layer.services.fetching import Fetcher, IPAddress

Answer = bytes | Callable[[asyncio.StreamWriter], Awaitable[None]]

OUTSIDE = "127.0.0.1"
"""What the tests take for a public address."""

INSIDE = "127.0.0.2"
"""What they take for one of our own network."""


def answer(body: bytes = b"", *headers: str, status: str = "200 OK") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def redirect(to: str, status: str = "302 Found") -> bytes:
    return answer(b"", f"Location: {to}", status=status)


class Site:
    """Answers by path, and remembers what it was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.requests: list[str] = []
        self.port = 0
        self._serving: set[asyncio.Task[Any]] = set()

    @asynccontextmanager
    async def serving(
        self, tls: ssl.SSLContext | None = None, *, host: str = OUTSIDE, port: int = 0
    ) -> AsyncIterator[None]:
        server = await asyncio.start_server(self._serve, host, port, ssl=tls)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield
        finally:
            server.close()
            await cancel_and_wait(*self._serving)
            await server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if task := asyncio.current_task():
            self._serving.add(task)
            task.add_done_callback(self._serving.discard)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.requests.append(head)
            found = self.answers[head.split(" ")[1]]
            if isinstance(found, bytes):
                writer.write(found)
                await writer.drain()
            else:
                await found(writer)
        except (OSError, EOFError):
            pass
        finally:
            writer.close()


class Names:
    """A resolver: each name gives its answers one after the other, the last one for ever."""

    def __init__(self, **answers: Sequence[Sequence[str]]) -> None:
        self._answers = {name.replace("_", "."): list(each) for name, each in answers.items()}
        self.asked: list[str] = []

    async def __call__(self, name: str) -> Sequence[str]:
        self.asked.append(name)
        answers = self._answers.get(name)
        if answers is None:
            raise OSError(f"{name} is unknown")
        return answers.pop(0) if len(answers) > 1 else answers[0]


def only_outside(address: IPAddress) -> bool:
    return address == ip_address(OUTSIDE)


def make_fetcher(*sites: Site, **options: Any) -> Fetcher:
    """A fetcher to which the sites' address is public, and nothing else is."""
    names = Names(images_test=[[OUTSIDE]])
    ports = {site.port for site in sites}
    given: dict[str, Any] = {"max_size": 100_000, "ports": ports, "is_allowed": only_outside, "resolve": names}
    return Fetcher(**given | options)


async def fetched(fetcher: Fetcher, url: str) -> bytes:
    return b"".join([piece async for piece in fetcher.fetch(url)])
