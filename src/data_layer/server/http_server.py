"""uvicorn on a socket of ours, with limits for its connections, and without its handling of signals."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import uvicorn

from data_layer.server.connections import ConnectionLimits, LimitedConnection

if TYPE_CHECKING:
    from starlette.types import ASGIApp

# Longer than load balancers keep an idle connection (60 s is common): it is the side that sends requests which must
# close it, or a request meets a connection that is just being closed.
_KEEP_ALIVE_SECONDS = 75
_CANCELLED_SECONDS = 2.0
_CHECK_SECONDS = 0.5
_STARTING_SECONDS = 0.01


class HttpServer:
    """Serves an application on a listening socket until it is closed.

    Args:
        application: what answers.
        listener: belongs to this object from now on; None for one that answers only what ``take`` is given.
        finish_seconds: how long requests under way may take at the end.
        limits: what clients may do.
        largest_message: bytes of a WebSocket message; without it, upgrades to WebSocket are not offered.
    """

    def __init__(
        self,
        application: ASGIApp,
        listener: socket.socket | None,
        *,
        finish_seconds: float,
        limits: ConnectionLimits | None = None,
        largest_message: int | None = None,
    ) -> None:
        protocol: Any = partial(LimitedConnection, limits=limits or ConnectionLimits())
        config = uvicorn.Config(
            application,
            http=protocol,
            ws="none" if largest_message is None else _websocket_protocol(),
            ws_max_size=largest_message or 0,
            # Which proxies are trusted is a setting of ours (TRUSTED_PROXIES), and the same behind every server.
            proxy_headers=False,
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="off",
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=max(1, round(finish_seconds)),
        )
        self._listeners = [] if listener is None else [listener]
        self._protocol = protocol
        self._server = _Uvicorn(config)
        self._task: asyncio.Task[None] | None = None
        self._checks: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Take requests. Harmless when it does."""
        if self._task is None:
            self._task = asyncio.create_task(self._server.serve(sockets=self._listeners), name="http-server")
            self._checks = asyncio.create_task(self._check_connections(), name="http-connections")

    async def take(self, connection: socket.socket) -> None:
        """Answer a connection that was accepted elsewhere, once this server has started."""
        server = self._server
        while not (server.started or server.should_exit):  # noqa: ASYNC110  (uvicorn has no event for it)
            await asyncio.sleep(_STARTING_SECONDS)
        if server.should_exit:
            connection.close()
            return

        def protocol() -> asyncio.Protocol:
            made: asyncio.Protocol = self._protocol(
                config=server.config, server_state=server.server_state, app_state=server.lifespan.state
            )
            return made

        try:
            await asyncio.get_running_loop().connect_accepted_socket(protocol, connection)
        except OSError:
            connection.close()  # The client has gone.

    async def wait(self) -> None:
        """Return when it has ended, or raise what ended it."""
        if self._task is not None:
            await asyncio.shield(self._task)

    async def close(self, forced: asyncio.Event | None = None) -> None:
        """Stop taking requests, and finish those under way; without them once ``forced`` is set. Harmless twice."""
        self._server.should_exit = True
        if self._task is not None:
            force = asyncio.create_task((forced or asyncio.Event()).wait())
            await asyncio.wait([self._task, force], return_when=asyncio.FIRST_COMPLETED)
            force.cancel()
            self._server.force_exit = True
            await asyncio.wait([self._task])
            await self._cancel_the_rest()
        if self._checks is not None:
            self._checks.cancel()
        for listener in self._listeners:
            listener.close()

    async def _check_connections(self) -> None:
        while True:
            await asyncio.sleep(_CHECK_SECONDS)
            now = asyncio.get_running_loop().time()
            connections: set[Any] = self._server.server_state.connections
            for connection in list(connections):
                if isinstance(connection, LimitedConnection):  # And not one that became a WebSocket.
                    connection.check(now)

    async def _cancel_the_rest(self) -> None:
        """Requests that were not finished must not meet a data layer that is being closed."""
        unfinished = set(self._server.server_state.tasks)
        for task in unfinished:
            task.cancel()
        if unfinished:
            await asyncio.wait(unfinished, timeout=_CANCELLED_SECONDS)
        for connection in list(self._server.server_state.connections):
            connection.transport.close()


def _websocket_protocol() -> type[asyncio.Protocol]:
    """Uvicorn's WebSocket, which logs no message at any level: they hold the keys of people."""
    from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

    class QuietWebSocket(WebSocketsSansIOProtocol):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            self.conn.debug = False

    return QuietWebSocket


class _Uvicorn(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are handled by the process, which has more to do at its end than uvicorn."""
        yield
