"""While no worker is ready the supervisor looks at the first line of each request, and leaves it for who answers."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator

import pytest

from data_layer.server.starting import _path_asked_for

LONG = 1000


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The client's end of a connection, and the server's."""
    client, server = socket.socketpair()
    with client, server:
        server.setblocking(False)
        yield client, server


@pytest.mark.parametrize(
    ("sent", "path"),
    [
        (b"GET /a/b HTTP/1.1\r\nHost: x\r\n\r\n", "/a/b"),
        (b"POST /a?b=/c HTTP/1.1\r\n", "/a"),
        (b"GET /\xfc HTTP/1.1\n", "/ü"),
        (b"\r\n", ""),
        (b"nonsense\r\n", ""),
        (b"GET /a\r\n", ""),
        (b"GET /a b HTTP/1.1\r\n", ""),
        (b"x" * 100_000, ""),
    ],
)
async def test_the_path_is_found_and_stays_unread(
    ends: tuple[socket.socket, socket.socket], sent: bytes, path: str
) -> None:
    client, server = ends
    client.sendall(sent)
    assert await _path_asked_for(server, LONG) == path
    assert server.recv(len(sent)) == sent


async def test_a_line_may_come_in_pieces(ends: tuple[socket.socket, socket.socket]) -> None:
    client, server = ends
    asking = asyncio.create_task(_path_asked_for(server, LONG))
    for piece in (b"GE", b"T /a", b"/b HTTP/1.1", b"\r\n"):
        client.sendall(piece)
        await asyncio.sleep(0)
    assert await asking == "/a/b"


async def test_half_a_line_asks_for_nothing_when_its_time_is_over(ends: tuple[socket.socket, socket.socket]) -> None:
    client, server = ends
    client.sendall(b"GET /a")
    assert not await _path_asked_for(server, 0.05)


@pytest.mark.parametrize("leave", [socket.socket.close, lambda client: client.shutdown(socket.SHUT_WR)])
@pytest.mark.parametrize("waits", [False, True])
async def test_a_client_that_leaves_within_a_line_asks_for_nothing_at_once(
    ends: tuple[socket.socket, socket.socket],
    leave: Callable[[socket.socket], None],
    waits: bool,  # noqa: FBT001
) -> None:
    client, server = ends
    client.sendall(b"GET /a")
    asking = asyncio.create_task(_path_asked_for(server, LONG))
    if waits:
        await asyncio.sleep(0)
    leave(client)
    assert not await asyncio.wait_for(asking, LONG / 20)


async def test_a_line_is_found_also_when_its_client_has_left(ends: tuple[socket.socket, socket.socket]) -> None:
    client, server = ends
    client.sendall(b"POST /a HTTP/1.1\r\n")
    client.close()
    assert await _path_asked_for(server, LONG) == "/a"


async def test_a_client_that_has_gone_or_says_nothing_asks_for_nothing(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    client, server = ends
    assert not await _path_asked_for(server, 0)
    client.close()
    assert not await _path_asked_for(server, LONG)
