"""Metrics for Prometheus at an address of their own: those of one process, or of all workers together."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from data_layer.observability.metrics.snapshots import AllWorkers, Snapshot, render, telling_supervisor
from data_layer.server.connections import ConnectionLimits
from data_layer.server.http_server import HttpServer

if TYPE_CHECKING:
    from data_layer.layer import DataLayer

_SCRAPERS = 16
"""Connections to METRICS_PORT: Prometheus needs one."""


@asynccontextmanager
async def metrics_of_process(
    data: DataLayer, listener: socket.socket | None, folder: Path | None
) -> AsyncIterator[None]:
    """Serve what this process counts while the block runs.

    Args:
        data: counts.
        listener: for Prometheus; None if another process serves it, or none.
        folder: the supervisor's, which collects from its workers.
    """

    async def snapshot() -> Snapshot:
        return data.metrics.snapshot()

    if listener is not None:
        async with _answering(snapshot, listener):
            yield
    elif folder is not None and data.settings.metrics.enable_metrics:
        async with telling_supervisor(data.metrics.snapshot, folder):
            yield
    else:
        yield


@asynccontextmanager
async def metrics_of_workers(folder: Path, listener: socket.socket) -> AsyncIterator[None]:
    """Serve what all workers have counted while the block runs, those that have ended included.

    Args:
        folder: in which the workers listen.
        listener: for Prometheus.
    """
    workers = AllWorkers(folder)
    async with workers.watched(), _answering(workers.snapshot, listener):
        yield


@asynccontextmanager
async def _answering(snapshot: Callable[[], Awaitable[Snapshot]], listener: socket.socket) -> AsyncIterator[None]:
    """Answer ``GET /metrics`` inside, and nothing else."""

    async def expose(request: Request) -> Response:
        # Writing it down takes longer than collecting it, and needs nothing of the event loop.
        content, media_type = await asyncio.to_thread(render, await snapshot(), request.headers.get("accept", ""))
        return Response(content, media_type=media_type)

    limits = ConnectionLimits(connections=_SCRAPERS)
    server = HttpServer(Starlette(routes=[Route("/metrics", expose)]), listener, finish_seconds=1, limits=limits)
    server.start()
    try:
        yield
    finally:
        await server.close()
