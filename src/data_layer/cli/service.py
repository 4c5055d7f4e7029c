"""``data-layer dev`` and ``data-layer start``."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from data_layer.cli.output import FAILED, fail, notice, read_settings, readable_errors
from data_layer.config import Settings
from data_layer.errors import ConfigurationError, DataLayerError
from data_layer.extras import require_extra
from data_layer.observability.levels import LevelWatch

if TYPE_CHECKING:
    from data_layer.server import Assignment, StopRequest, SupervisorLink

_SPARE_SECONDS = 12.0
"""What a supervisor has more than its workers: it kills those that are late, and stops embedded servers after them."""


def dev() -> None:
    """Run the service for development: make and migrate the database, add example data, serve.

    Without DB_HOST and REDIS_HOST it brings its own PostgreSQL and Valkey, in the folder .data-layer. It is one
    process, whatever WORKERS says. Ctrl-C ends it when requests under way are answered, a second Ctrl-C at once.
    """
    settings = _read_settings()
    if settings.is_production:
        fail(ConfigurationError("dev changes the database, and ENVIRONMENT is production; use: data-layer start"))
    with LevelWatch(settings.log.log_level, settings.general.data_folder):
        run_service(_serve(settings, development=True))


def start(
    *,
    workers: Annotated[
        int | None,
        typer.Option(help="Processes that share the port and DB_MAX_CONNECTIONS. Default: WORKERS, or 1.", min=1),
    ] = None,
) -> None:
    """Run the service. The database must be migrated: data-layer db migrate.

    SIGTERM or Ctrl-C ends it in order: /readyz refuses at once, for SHUTDOWN_DELAY seconds requests are still taken,
    and within SHUTDOWN_TIMEOUT more those under way are answered, what was collected is written, and everything is
    closed. A second signal stops without waiting for requests under way.

    Exit codes: 0 after such an end; 1 when it could not start, or did not end in time; 128 and the number of the signal
    when it was stopped before it was ready.
    """
    settings = _read_settings(workers)
    with LevelWatch(settings.log.log_level, settings.general.data_folder):
        run_service(_serve(settings, development=False) if settings.service.workers == 1 else _supervise(settings))


def work(assignment: str) -> None:
    """One of several workers of `data-layer start`, which alone starts it."""
    from data_layer.server import Assignment

    given = Assignment.from_text(assignment)
    link = given.open_link()
    settings = read_settings(service=True, workers=given.workers)
    try:
        with LevelWatch(settings.log.log_level, settings.general.data_folder):
            _run_in_loop(_serve_as_worker(settings.of_worker(given.number, given.workers), given, link))
    except DataLayerError as error:
        link.report_failure(error)
        raise typer.Exit(FAILED) from None


def _read_settings(workers: int | None = None) -> Settings:
    """Read the settings, after what serves HTTP was found to be installed."""
    require_service()
    return read_settings(service=True, workers=workers)


def require_service() -> None:
    """End the command where what serves HTTP is not installed."""
    with readable_errors(as_json=False):
        require_extra("service", "serving HTTP", "uvicorn", "fastapi", "asgi_correlation_id")


def run_service(service: Coroutine[Any, Any, bool]) -> None:
    """Run a service to its end; the exit code says how it ended."""
    from data_layer.server import StoppedBeforeReady

    try:
        with readable_errors(as_json=False):
            is_well = _run_in_loop(service)
    except StoppedBeforeReady as stopped:
        notice("Stopped before it was ready.")
        raise typer.Exit(128 + stopped.signal) from None
    if not is_well:
        raise typer.Exit(FAILED)


def _run_in_loop(service: Coroutine[Any, Any, bool]) -> bool:
    """Run it in the quicker event loop that comes with uvicorn, except where that does not exist (Windows)."""
    try:
        import uvloop
    except ImportError:
        new_event_loop = asyncio.new_event_loop
    else:
        new_event_loop = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(service)


async def _serve(settings: Settings, *, development: bool) -> bool:
    from data_layer.cli.terminal import Terminal
    from data_layer.server import LogObserver, Role, ServiceProcess, listen

    listener = listen(settings.service)
    observer = Terminal(settings) if development else LogObserver(settings.service)
    await ServiceProcess(settings, listener, stop_request(settings), observer, Role(prepares=development)).run()
    return True


async def _supervise(settings: Settings) -> bool:
    from data_layer.server import Supervisor, listen

    # Without -P a file of the working directory could take the place of a module.
    command = [sys.executable, "-P", "-m", "data_layer.cli", "work"]
    stop = stop_request(settings, _SPARE_SECONDS)
    return await Supervisor(settings, listen(settings.service), stop, command=command).run()


async def _serve_as_worker(settings: Settings, given: Assignment, link: SupervisorLink) -> bool:
    from data_layer.server import Role, ServiceProcess, StoppedBeforeReady, WorkerObserver

    stop = stop_request(settings)
    link.obey(stop, asyncio.get_running_loop())
    role = Role(maintains=given.number == 0, number=given.number, folder=Path(given.folder))
    with suppress(StoppedBeforeReady):  # The supervisor, which wants this, says so itself.
        listener, channel = given.open_listener(), given.open_channel()
        await ServiceProcess(settings, listener, stop, WorkerObserver(link), role, channel=channel).run()
    return True


def stop_request(settings: Settings, spare: float = 0.0) -> StopRequest:
    """What ends a process of this service."""
    from data_layer.server import StopRequest

    return StopRequest(settings.seconds_until_closed + settings.service.shutdown_timeout + spare)
