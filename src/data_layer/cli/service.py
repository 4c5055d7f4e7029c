"""``data-layer dev`` and ``data-layer start``."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from typing import TYPE_CHECKING

import typer
from rich.text import Text

from data_layer.cli.output import console, fail, plain, read_settings, say, tell
from data_layer.errors import ConfigurationError, DataLayerError
from data_layer.observability.level_watch import LevelWatch
from data_layer.observability.log import get_log

if TYPE_CHECKING:
    import uvicorn

    from data_layer.config import Settings
    from data_layer.layer import DataLayer

log = get_log(__name__)

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# Together with the servers' own limit this keeps the whole end below ten seconds.
_FINISH_REQUESTS_SECONDS = 2


def dev() -> None:
    """Run the service for development: make and migrate the database, add example data, serve.

    Without DB_HOST and REDIS_HOST it brings its own PostgreSQL and Valkey, in the folder .data-layer.
    """
    settings = read_settings(service=True)
    if settings.is_production:
        fail(ConfigurationError("dev changes the database, and ENVIRONMENT is production; use: data-layer start"))
    _serve(settings, development=True)


def start() -> None:
    """Run the service. The database must be migrated: data-layer db migrate."""
    _serve(read_settings(service=True), development=False)


def _serve(settings: Settings, *, development: bool) -> None:
    with (
        LevelWatch(settings),
        _listen(settings) as listener,
        asyncio.Runner(loop_factory=_new_event_loop) as runner,
    ):
        service = _Service(settings, listener, development=development)
        try:
            runner.run(service.run())
        except DataLayerError as error:
            fail(error)
        except asyncio.CancelledError:
            tell("Stopped before it was ready.")
            raise typer.Exit(128 + service.stopped_by) from None


def _new_event_loop() -> asyncio.AbstractEventLoop:
    """The quicker event loop that comes with uvicorn, except where it does not exist (Windows)."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def _listen(settings: Settings) -> socket.socket:
    """Take the port first: a taken one is found before anything is started."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=2048)
    except OSError as error:
        # What the socket module adds is the address, once more.
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        fail(
            ConfigurationError(
                f"cannot listen on {_authority(settings)} ({reason}); stop what uses it, or set HOST and PORT to others"
            )
        )


class _Service:
    """Opens the data layer, serves until a signal comes, and closes it."""

    def __init__(self, settings: Settings, listener: socket.socket, *, development: bool) -> None:
        self._settings = settings
        self._listener = listener
        self._development = development
        self._server: uvicorn.Server | None = None
        self._may_cancel = True
        self.stopped_by = signal.SIGINT

    async def run(self) -> None:
        self._handle_signals()
        if self._development:
            say("Starting …")
        try:
            await self._open_and_serve()
        finally:
            _ignore_signals()

    async def _open_and_serve(self) -> None:
        from data_layer.layer import DataLayer
        from data_layer.services.schedule import scheduled

        async with DataLayer(self._settings, exclusive=True, prepare=self._development) as data:
            if self._development:
                await data.seed.plant_once(lambda name: say(f"  example project: {name}"))
            async with scheduled(data.maintenance, self._settings.maintenance_interval):
                await self._serve(data)

    async def _serve(self, data: DataLayer) -> None:
        import uvicorn

        from data_layer.api.app import create_app

        config = uvicorn.Config(
            create_app(data),
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="off",
            timeout_graceful_shutdown=_FINISH_REQUESTS_SECONDS,
        )
        self._server = uvicorn.Server(config)
        if self._development:
            _print_places(self._settings, data)
        else:
            log.info("service_started", address=f"http://{_authority(self._settings)}")
        await self._server.serve(sockets=[self._listener])
        if self._development:
            say("Stopping …")
        else:
            log.info("service_stopping")

    def _handle_signals(self) -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()

        def stop(number: signal.Signals) -> None:
            if self._server is not None:
                # It handles signals itself, but not those that came before it did.
                self._server.should_exit = True
            elif self._may_cancel and task is not None:
                self._may_cancel = False
                self.stopped_by = number
                task.cancel()

        for number in _SIGNALS:
            loop.add_signal_handler(number, stop, number)


def _ignore_signals() -> None:
    """A second Ctrl-C must not disturb an end that is all but over."""
    for number in _SIGNALS:
        asyncio.get_running_loop().remove_signal_handler(number)
        signal.signal(number, signal.SIG_IGN)


def _authority(settings: Settings) -> str:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"{host}:{settings.port}"


def _print_places(settings: Settings, data: DataLayer) -> None:
    service = f"http://{_authority(settings)}"
    places = {
        "Service": service,
        "API docs": f"{service}/docs",
        "Health": f"{service}/health",
        "Database": str(data.database.address),
        "Cache": _cache_url(settings, data.cache.address),
        "Uploads": str(settings.local_storage_path.absolute()),
    }
    for name, place in places.items():
        console.print(Text(f"{name:>9}  ", style="bold").append(plain(place), style="not bold"), soft_wrap=True)
    say("Press Ctrl-C to stop. In another terminal: data-layer projects list")


def _cache_url(settings: Settings, address: str) -> str:
    if address.startswith("/"):
        return f"unix://{address}"
    given = settings.redis_url.get_secret_value() if settings.redis_url else ""
    return f"{'rediss' if settings.redis_tls or given.startswith('rediss:') else 'redis'}://{address}"
