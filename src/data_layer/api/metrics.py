"""Metrics over HTTP: requests are counted, and Prometheus is answered at an address of its own."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

from fastapi.routing import iter_route_contexts
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from data_layer.observability.metrics.http import UNMATCHED
from data_layer.observability.metrics.snapshots import render

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence

    from starlette.requests import Request
    from starlette.routing import BaseRoute
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from data_layer.observability.metrics.http import HttpCounters
    from data_layer.observability.metrics.snapshots import Snapshot


class RequestMetricsMiddleware:
    """Counts requests by the template of the route that took them."""

    def __init__(self, app: ASGIApp, counters: HttpCounters, routes: Sequence[BaseRoute]) -> None:
        self._app = app
        self._counters = counters
        self._templates = _templates(routes)
        counters.expect((path, method) for path, methods in self._templates.values() for method in methods)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102  (ASGI)
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 500

        async def remember_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self._counters.in_progress += 1
        try:
            await self._app(scope, receive, remember_status)
        finally:
            self._counters.in_progress -= 1
            self._counters.note(self._route(scope), status, time.perf_counter() - started)

    def _route(self, scope: Scope) -> tuple[str, str]:
        template = self._templates.get(scope.get("endpoint"))
        return (template[0], scope["method"]) if template else UNMATCHED


def _templates(routes: Sequence[BaseRoute]) -> dict[Any, tuple[str, frozenset[str]]]:
    """The path and the methods of each endpoint, prefixes of routers included."""
    found: dict[Any, tuple[str, frozenset[str]]] = {}
    for route in iter_route_contexts(routes):
        if route.endpoint is not None and route.path_format is not None:
            _, methods = found.get(route.endpoint, ("", frozenset()))
            found[route.endpoint] = (route.path_format, methods | frozenset(route.methods or ()))
    return found


@asynccontextmanager
async def serving_metrics(snapshot: Callable[[], Awaitable[Snapshot]], listener: socket.socket) -> AsyncIterator[None]:
    """Answer ``GET /metrics`` inside, and nothing else.

    Args:
        snapshot: what to tell.
        listener: takes connections already.
    """
    import uvicorn  # noqa: PLC0415  (only the service needs it)

    class Server(uvicorn.Server):
        """Leaves signals to the service, of which it is a part."""

        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

    config = uvicorn.Config(
        _metrics_app(snapshot),
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="off",
        timeout_graceful_shutdown=1,
    )
    server = Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]), name="metrics-endpoint")
    try:
        yield
    finally:
        server.should_exit = True
        await task


def _metrics_app(snapshot: Callable[[], Awaitable[Snapshot]]) -> Starlette:
    async def tell(request: Request) -> Response:
        # Writing it down takes longer than collecting it, and needs nothing of the event loop.
        content, media_type = await asyncio.to_thread(render, await snapshot(), request.headers.get("accept", ""))
        return Response(content, media_type=media_type)

    return Starlette(routes=[Route("/metrics", tell)])
