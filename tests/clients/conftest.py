from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from data_layer import DataLayer
from data_layer.client import Client
from data_layer.server.faces import whole_application
from data_layer.server.http_server import HttpServer
from data_layer.web.streams import ENDS, StreamEnds
from tests.service.support import NO_AUTHORITIES
from tests.services.accounts.support import PASSWORD, make_account

EMAIL = "ada@example.com"


class BrokenConnectionError(Exception):
    """The server has nothing left but to cut the connection."""


@dataclass
class Fault:
    """What goes wrong with a request, once.

    Attributes:
        method: of the request.
        ending: of its path.
        status: what is answered; 0: an answer that has begun breaks off.
        is_done: whether the service has carried it out.
        headers: of the answer.
        after: so many pieces of the answer still arrive before it breaks off.
    """

    method: str
    ending: str
    status: int = 503
    is_done: bool = False
    headers: dict[str, str] = field(default_factory=dict)
    after: int = 0


@dataclass
class Line:
    """Between the service and its clients: it sees what is sent, and spoils what a test wants."""

    app: ASGIApp
    url: str = ""
    faults: list[Fault] = field(default_factory=list)
    seen: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    ends: StreamEnds = field(default_factory=StreamEnds)

    def send_elsewhere(self) -> None:
        """Have clients of streams connect again, as a process does that ends."""
        self.ends.end()
        self.ends = StreamEnds()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        scope[ENDS] = self.ends
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.seen.append((scope["method"], scope["path"], headers))
        fault = next((each for each in self.faults if self._fits(each, scope)), None)
        if fault is None:
            await self.app(scope, receive, send)
            return
        self.faults.remove(fault)
        if fault.status == 0:
            await self.app(scope, receive, _breaking(send, fault.after))
            return
        if fault.is_done:
            await self.app(scope, receive, _nowhere)
        sent = [(name.encode(), value.encode()) for name, value in fault.headers.items()]
        await send({"type": "http.response.start", "status": fault.status, "headers": sent})
        await send({"type": "http.response.body", "body": b"<html>a proxy speaks</html>"})

    def _fits(self, fault: Fault, scope: Scope) -> bool:
        return bool(fault.method == scope["method"] and scope["path"].endswith(fault.ending))

    def count(self, method: str, ending: str) -> int:
        return sum(1 for sent, path, _ in self.seen if sent == method and path.endswith(ending))


async def _nowhere(message: Message) -> None:
    del message


def _breaking(send: Send, after: int) -> Send:
    left = after

    async def send_some(message: Message) -> None:
        nonlocal left
        if message["type"] == "http.response.body":
            left -= 1
            if left < 0:
                raise BrokenConnectionError
        await send(message)

    return send_some


@pytest.fixture
async def line(data: DataLayer) -> AsyncIterator[Line]:
    """A served application, with somebody's account."""
    listener = socket.create_server(("127.0.0.1", 0))
    line = Line(whole_application(data), f"http://127.0.0.1:{listener.getsockname()[1]}")
    server = HttpServer(line, listener, finish_seconds=1)
    server.start()
    await make_account(data, EMAIL)
    yield line
    await server.close()


def new_client(line: Line, **options: object) -> Client:
    return Client(line.url, verify=NO_AUTHORITIES, **options)  # type: ignore[arg-type]


@pytest.fixture
async def client(line: Line) -> AsyncIterator[Client]:
    """Somebody who is logged in."""
    async with new_client(line) as client:
        await client.log_in(EMAIL, PASSWORD)
        yield client
