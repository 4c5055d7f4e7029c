"""One process that serves: it opens the data layer, takes requests until it is to stop, and closes everything."""

from __future__ import annotations

import asyncio
import ctypes
import socket
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from data_layer.garbage import end_importing
from data_layer.observability.log import get_log
from data_layer.server.connections import ConnectionLimits
from data_layer.server.http_server import HttpServer
from data_layer.server.lifecycle import LifecycleMiddleware
from data_layer.server.listening import authority, listen_for_metrics
from data_layer.server.served import Served
from data_layer.server.starting import taking_over
from data_layer.server.stopping import StopRequest
from data_layer.server.supervisor_link import SupervisorLink
from data_layer.web.deadlines import HELD_SECONDS

if TYPE_CHECKING:
    from data_layer.config import Settings
    from data_layer.layer import DataLayer
    from data_layer.settings.service import ServiceSettings

log = get_log(__name__)

_CLOSE_SECONDS = 8.0
"""Seconds of SHUTDOWN_TIMEOUT that are kept for closing: what was collected is written in less, or given up."""

_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8  # malloc.h of glibc
_LARGE_BLOCK = 256 * 1024
_MOST_ARENAS = 2


@dataclass(frozen=True, slots=True)
class Role:
    """What the process does apart from serving.

    Attributes:
        prepares: create and migrate a database that is not embedded.
        maintains: run maintenance every MAINTENANCE_INTERVAL.
        folder: private folder of the service, in which each worker may listen on Unix sockets; None without workers.
        number: of the worker, from 0; a worker that replaces another one has the same.
    """

    prepares: bool = False
    maintains: bool = True
    folder: Path | None = None
    number: int = 0

    @property
    def is_alone(self) -> bool:
        """Whether it runs without a supervisor, so that it answers while it starts, and owns the data folder."""
        return self.folder is None


class Observer(Protocol):
    """Receives how far the process is."""

    async def opened(self, data: DataLayer, /) -> None:
        """The data layer is open, and nothing is served yet; what is done here is cancelled by a wish to stop."""

    async def may_serve(self) -> None:
        """Return when requests may be taken from the listening socket; cancelled by a wish to stop."""

    def serving(self, data: DataLayer, /) -> None:
        """Requests are served from now on."""

    def stopping(self) -> None:
        """It was asked to stop."""


class LogObserver(Observer):
    """Reports to the log."""

    def __init__(self, settings: ServiceSettings) -> None:
        self._address = f"http://{authority(settings)}"

    async def opened(self, _data: DataLayer, /) -> None:
        """It is worth no line of its own."""

    async def may_serve(self) -> None:
        """At once: nobody else answers."""

    def serving(self, _data: DataLayer, /) -> None:
        """Say where."""
        log.info("service_started", address=self._address)

    def stopping(self) -> None:
        """Say that it will take a moment."""
        log.info("service_stopping")


class WorkerObserver(Observer):
    """Reports to the supervisor."""

    def __init__(self, link: SupervisorLink) -> None:
        self._link = link

    async def opened(self, _data: DataLayer, /) -> None:
        """The supervisor waits for more."""

    async def may_serve(self) -> None:
        """When the supervisor, which answers while no worker is ready, has stopped doing so."""
        await self._link.may_serve()

    def serving(self, _data: DataLayer, /) -> None:
        """The supervisor may start the others, or forward signals."""
        self._link.report_ready()

    def stopping(self) -> None:
        """The supervisor knows."""


class ServiceProcess:
    """Opens the data layer, serves until it is to stop, and closes it.

    What runs in each serving process while it serves, such as its metrics (on METRICS_PORT if ``role.is_alone``, and
    else on a Unix socket in ``role.folder`` for the supervisor), is entered in ``_serve``. METRICS_PORT is taken at
    once.

    Args:
        settings: with this process's share of the connections.
        listener: belongs to this object from now on.
        stop: ends it.
        observer: receives how far it is.
        role: what else it does.
        served: what answers, by default the service.
        channel: brings connections that the supervisor has accepted; belongs to this object from now on.

    Raises:
        ConfigurationError: METRICS_PORT cannot be had.
    """

    def __init__(
        self,
        settings: Settings,
        listener: socket.socket,
        stop: StopRequest,
        observer: Observer,
        role: Role,
        *,
        served: Served | None = None,
        channel: socket.socket | None = None,
    ) -> None:
        self._settings = settings
        self._stop = stop
        self._observer = observer
        self._role = role
        self._metrics_listener = listen_for_metrics(settings.metrics) if role.is_alone else None
        self._lifecycle = LifecycleMiddleware(HELD_SECONDS if settings.hosted.is_enabled else None)
        limit = settings.service.shutdown_timeout
        self._http = HttpServer(
            self._lifecycle,
            listener,
            finish_seconds=max(limit - _CLOSE_SECONDS, limit / 2),
            limits=ConnectionLimits.of(settings.service, settings.database.db_max_connections),
            largest_message=None if served is None else served.largest_message,
        )
        self._served = served
        self._channel = channel

    async def run(self) -> None:
        """Serve until the end.

        Raises:
            StoppedBeforeReady: it was asked to stop while it was still starting.
            DataLayerError: when it cannot start.
        """
        _return_freed_memory()
        with self._stop.by_signals(), self._metrics_listener or nullcontext(), self._channel or nullcontext():
            if self._role.is_alone:
                self._http.start()
            try:
                await self._open_and_serve()
            finally:
                self._lifecycle.start_draining()  # What waits for a start that has failed is refused.
                await self._http.close(self._stop.forced)

    async def _open_and_serve(self) -> None:
        from data_layer.layer import DataLayer

        data = DataLayer(self._settings, exclusive=self._role.is_alone, prepare=self._role.prepares)
        try:
            await self._stop.unless(self._open(data))
            await self._serve(data)
        finally:
            await data.close()

    async def _open(self, data: DataLayer) -> None:
        from data_layer.services.sessions.service import load_patterns

        await data.open()
        await asyncio.to_thread(load_patterns)  # Or the first login would hold up all other requests.
        await self._observer.opened(data)

    async def _serve(self, data: DataLayer) -> None:
        from data_layer.server.faces import service_application
        from data_layer.server.metrics import metrics_of_process
        from data_layer.services.schedule import scheduled

        interval = self._settings.audit.maintenance_interval if self._role.maintains else 0
        metrics = metrics_of_process(data, self._metrics_listener, self._role.folder)
        application = service_application if self._served is None else self._served.application
        running = scheduled(data.maintenance, data.cache, interval)
        recording, exporting = data.figure_history.recording(), data.exports.working()
        async with running, recording, data.mails.delivering(), exporting, metrics, application(data) as served:
            self._lifecycle.open(served)
            await self._stop.unless(self._observer.may_serve())
            end_importing()
            self._http.start()
            with taking_over(self._channel, self._http):
                self._observer.serving(data)
                await self._until_asked()
                self._observer.stopping()
                self._lifecycle.start_draining()
                await self._stop.pause(self._settings.seconds_until_closed)
            self._lifecycle.end_streams()
            await self._http.close(self._stop.forced)

    async def _until_asked(self) -> None:
        """Return when the process is to stop, or raise what ended the HTTP server."""
        waits = [asyncio.create_task(wait) for wait in (self._stop.asked.wait(), self._http.wait())]
        try:
            ended, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for each in ended:
                each.result()
        finally:
            for each in waits:
                each.cancel()


def _return_freed_memory() -> None:
    """Have the C library return large blocks to the system when they are freed, and use the others again.

    By default glibc learns to keep blocks of up to 32 MiB, and has an arena for each thread, up to eight for each core:
    images that were decoded one after the other in several threads then take as much memory as if they were decoded at
    once, and what is free in one arena is not used by another. With two arenas a service that has answered 90,000
    requests holds 10 MiB less (``make bench-soak``).
    """
    with suppress(AttributeError, OSError, TypeError):  # Other C libraries have no such settings, and no such habits.
        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_THRESHOLD, _LARGE_BLOCK)
        library.mallopt(_M_ARENA_MAX, _MOST_ARENAS)
