"""``data-layer app``: Screenshot to Code, with a memory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from data_layer.cli.output import fail, read_settings, readable_errors, say
from data_layer.cli.service import require_service, run_service, stop_request
from data_layer.config import Settings
from data_layer.errors import ConfigurationError
from data_layer.observability.levels import LevelWatch

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from data_layer.layer import DataLayer
    from data_layer.recorder.application import RecorderOptions
    from data_layer.server import Observer

_LARGEST_MESSAGE = 64
_MEBIBYTE = 2**20


def app(
    application: Annotated[str, typer.Argument(help="MODULE:NAME of the application, such as main:app.")],
    *,
    frontend: Annotated[
        Path | None,
        typer.Option(help="Folder of the built page, such as ../frontend/dist."),
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on. Default: HOST, or 127.0.0.1.")] = None,
    port: Annotated[
        int | None, typer.Option(help="Port to listen on. Default: PORT, or 3000.", min=1, max=65535)
    ] = None,
    login: Annotated[
        bool, typer.Option("--login", help="Have people log in; each sees only their own projects.")
    ] = False,
    max_message: Annotated[
        int, typer.Option(help="MiB that a message of the page may have, with its images and videos.", min=1, max=1024)
    ] = _LARGEST_MESSAGE,
) -> None:
    """Run Screenshot to Code so that nothing is lost: projects, versions, prompts and images are kept.

    Run it in the folder of its back end and in its environment, with the built page as --frontend. Nothing of it is
    changed. Without DB_HOST and REDIS_HOST it brings its own PostgreSQL and Valkey, in the folder .data-layer.
    """
    require_service()
    settings = read_settings(service=True, host=host, port=port)
    if frontend is not None and not (frontend / "index.html").is_file():
        fail(ConfigurationError(f"{frontend} has no index.html; build the page first: npm run build"))

    from data_layer.recorder.application import RecorderOptions
    from data_layer.recorder.loading import load_application

    with readable_errors(as_json=False):
        theirs = load_application(application)
    options = RecorderOptions(frontend, needs_login=login)
    with LevelWatch(settings.log.log_level, settings.general.data_folder):
        run_service(_serve(settings, theirs, options, max_message * _MEBIBYTE))


async def _serve(settings: Settings, application: ASGIApp, options: RecorderOptions, largest_message: int) -> bool:
    from data_layer.server import Role, ServiceProcess, listen
    from data_layer.server.faces import around_application

    process = ServiceProcess(
        settings,
        listen(settings.service),
        stop_request(settings),
        _observer(settings, offers_code=options.needs_login),
        Role(prepares=not settings.is_production),
        served=around_application(application, options, largest_message=largest_message),
    )
    await process.run()
    return True


def _observer(settings: Settings, *, offers_code: bool) -> Observer:
    from data_layer.cli.terminal import say_code
    from data_layer.server import LogObserver, nearby_url

    class Terminal(LogObserver):
        """Shows where the page is, and how people who log in get the first account."""

        code: str | None = None

        async def opened(self, data: DataLayer, /) -> None:
            await super().opened(data)
            if offers_code:
                self.code = await data.first_administrator.offer()

        def serving(self, data: DataLayer, /) -> None:
            super().serving(data)
            address = nearby_url(settings.service)
            say(f"Screenshot to Code: {address}/")
            say(f"Your projects:      {address}/my-projects")
            say_code(address, self.code)
            say("Press Ctrl-C to stop.")

    return Terminal(settings.service)
