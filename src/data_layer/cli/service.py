"""``data-layer dev`` and ``data-layer start``."""

from __future__ import annotations

import asyncio
import signal
import socket
from typing import TYPE_CHECKING

import typer

from data_layer.cli.output import console, error_console, fail, read_settings
from data_layer.errors import ConfigurationError, DataLayerError

if TYPE_CHECKING:
    from data_layer.config import Settings
    from data_layer.layer import DataLayer

# Together with the servers' own limit this keeps the whole end below ten seconds.
_FINISH_REQUESTS_SECONDS = 2


def dev() -> None:
    """Run the service for development: make and migrate the database, add example data, serve.

    Without DB_HOST and REDIS_HOST it brings its own PostgreSQL and Valkey, in the folder .data-layer.
    """
    settings = read_settings(as_json=False, service=True)
    if settings.is_production:
        fail(
            ConfigurationError("dev changes the database, and ENVIRONMENT is production; use: data-layer start"),
            as_json=False,
        )
    _serve(settings, development=True)


def start() -> None:
    """Run the service. The database must be migrated: data-layer db migrate."""
    _serve(read_settings(as_json=False, service=True), development=False)


def _serve(settings: Settings, *, development: bool) -> None:
    listener = _listen(settings)
    try:
        asyncio.run(_Service(settings, listener, development=development).run())
    except DataLayerError as error:
        fail(error, as_json=False)
    except asyncio.CancelledError:
        error_console.print("Stopped before it was ready.")
        raise typer.Exit(128 + signal.SIGINT) from None
    finally:
        listener.close()


def _listen(settings: Settings) -> socket.socket:
    """Take the port first: a taken one is found before anything is started."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=2048)
    except OSError as error:
        reason = error.strerror or str(error)
        fail(
            ConfigurationError(
                f"cannot listen on {settings.host}:{settings.port} ({reason}); "
                "stop what uses it, or set HOST and PORT to others"
            ),
            as_json=False,
        )


class _Service:
    """Opens the data layer, serves until a signal comes, and closes it."""

    def __init__(self, settings: Settings, listener: socket.socket, *, development: bool) -> None:
        self._settings = settings
        self._listener = listener
        self._development = development
        self._may_cancel = True

    async def run(self) -> None:
        from data_layer.layer import DataLayer

        self._handle_signals()
        if self._development:
            console.print("Starting …")
        async with DataLayer(self._settings, exclusive=True, prepare=self._development) as data:
            if self._development:
                await data.seed.plant_once(lambda name: console.print(f"  example project: {name}", markup=False))
            await self._serve(data)
            if self._development:
                console.print("Stopping …")

    async def _serve(self, data: DataLayer) -> None:
        import uvicorn

        from data_layer.api.app import create_app

        config = uvicorn.Config(
            create_app(data),
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=_FINISH_REQUESTS_SECONDS,
        )
        _print_places(self._settings, data)
        # From here uvicorn handles the signals; it raises them once more at its end, which means nothing any more.
        self._may_cancel = False
        await uvicorn.Server(config).serve(sockets=[self._listener])

    def _handle_signals(self) -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()

        def stop() -> None:
            if self._may_cancel and task is not None:
                self._may_cancel = False
                task.cancel()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop)


def _print_places(settings: Settings, data: DataLayer) -> None:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    service = f"http://{host}:{settings.port}"
    places = {
        "Service": service,
        "API docs": f"{service}/docs",
        "Health": f"{service}/health",
        "Database": str(data.database.address),
        "Cache": data.cache.address,
        "Uploads": str(settings.local_storage_path.absolute()),
    }
    for name, place in places.items():
        console.print(f"[bold]{name:>9}[/]  ", end="")
        console.print(place, markup=False, soft_wrap=True)
    console.print("Press Ctrl-C to stop. In another terminal: data-layer projects list")
