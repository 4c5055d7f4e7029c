"""Screenshot to Code, ours and theirs, on one port.

| path | answered by |
| --- | --- |
| the WebSocket ``/generate-code`` | their application, and recorded |
| what the service has, such as ``/v1``, ``/livez``, ``/s`` | the service |
| ``/my-projects`` | here: the saved projects, and what brings one back into the page |
| ``/api/design-systems`` | here, for each person |
| ``/local-assets`` | their application; what it has no more comes from the storage |
| with ``--frontend``: files of the build, ``/``, and paths that their application does not know | the built page |
| everything else | their application |
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cached_property
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from data_layer.context import request_context
from data_layer.errors import AuthenticationError, ConfigurationError, DataLayerError, PermissionDeniedError
from data_layer.layer import DataLayer
from data_layer.observability.log import get_log
from data_layer.recorder import page
from data_layer.recorder.connection import RecordedConnection
from data_layer.recorder.loading import lifespan_of
from data_layer.recorder.people import LocalPerson, LoggedInPeople, People, is_loopback
from data_layer.recorder.projects import PROJECTS_PATH, answer_projects
from data_layer.recorder.protocol import APPLICATION_ERROR, ASSETS_PATH, GENERATE_PATH, error_message
from data_layer.recorder.recorder import Recorder
from data_layer.recorder.usage import printed_usage_is_heard
from data_layer.schemas.actors import Actor
from data_layer.web.cross_origin import origins_with_cookies
from data_layer.web.deadlines import TRY_AGAIN, Deadline, seconds_for
from data_layer.web.design_systems import DESIGNS_PATH, answer_designs
from data_layer.web.middleware import TrustedProxies

log = get_log(__name__)

LOGIN_PATH = "/console/login"
"""The log-in page of the console, which serves beside the application; it knows second factors and issuers."""

_INDEX = "index.html"
_NO_PAGE = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.UNPROCESSABLE_ENTITY})
"""What theirs answers where a person goes to a path of the page that is also one of its calls, such as ``/evals``."""
_NOT_LOGGED_IN = "Log in first: reload this page."
_READING = frozenset({"GET", "HEAD"})
KNOWN_SECONDS = 8.0
"""Within which the sender of a request is identified, or the request is refused."""
_PROBES = frozenset({"/livez", "/readyz"})
"""They need no caller: they are answered whatever the database does."""


@dataclass(frozen=True, slots=True)
class RecorderOptions:
    """How ``data-layer app`` was started.

    Attributes:
        frontend: the folder of its built page; None where another server has it.
        needs_login: whether people have to log in.
    """

    frontend: Path | None = None
    needs_login: bool = False


@asynccontextmanager
async def recorded(
    data: DataLayer, service: FastAPI, application: ASGIApp, options: RecorderOptions
) -> AsyncIterator[ASGIApp]:
    """Start the application, and yield everything together; it is stopped at the end of the block.

    Args:
        data: records.
        service: the application of the service.
        application: theirs.
        options: the rest.

    Raises:
        ConfigurationError: it cannot be started, or everybody in the network could use it.
    """
    people = await _people(data, options)
    recorder = Recorder(data, data.settings.general.data_folder.absolute() / "recorder", application)
    async with lifespan_of(application) as state:
        recorder.start()
        try:
            with printed_usage_is_heard():
                yield RecordedApplication(
                    data, service, application, recorder=recorder, people=people, frontend=options.frontend, state=state
                )
        finally:
            await recorder.close()


async def _people(data: DataLayer, options: RecorderOptions) -> People:
    if options.needs_login:
        return LoggedInPeople(data, origins_with_cookies(data.settings.service))
    host = data.settings.service.host
    if not is_loopback(host):
        raise ConfigurationError(
            f"everybody who reaches {host} would be the same person; add --login, or leave HOST out"
        )
    return await LocalPerson.open(data)


class RecordedApplication:
    """Everything on one port; see the table of this module."""

    def __init__(
        self,
        data: DataLayer,
        service: FastAPI,
        application: ASGIApp,
        *,
        recorder: Recorder,
        people: People,
        frontend: Path | None,
        state: dict[str, Any],
    ) -> None:
        self._data = data
        self._service = service
        self._application = application
        self._recorder = recorder
        self._people = people
        self._frontend = None if frontend is None else frontend.resolve()
        self._state = state
        service_settings = data.settings.service
        self._proxies = TrustedProxies(service_settings.trusted_proxies, service_settings.trusted_proxy_header)
        self._shown: tuple[int, str] | None = None
        """When the built page was changed, and that page with our script."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102  (ASGI)
        if scope["type"] == "http" and self._is_for_service(scope["path"]):
            await self._serve(scope, receive, send)
            return
        self._proxies.put_origin(scope)  # The service does it for itself.
        if scope["type"] == "websocket":
            await self._connect(scope, receive, send)
        else:
            await self._answer(scope, receive, send)

    def _is_for_service(self, path: str) -> bool:
        return _first_segment(path) in self._service_segments and self._file_of(path) is None

    @cached_property
    def _service_segments(self) -> frozenset[str]:
        """What the paths of the service begin with; its redirect from ``/`` gives way."""
        paths = [getattr(route, "path", "/") for route in self._service.routes]
        return frozenset(map(_first_segment, paths)) - {"", "api"}

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] not in _PROBES:
            try:
                async with Deadline(KNOWN_SECONDS, TRY_AGAIN):
                    scope = await self._people.with_session(scope)
            except DataLayerError as error:
                await _unavailable(error)(scope, receive, send)
                return
        await self._service(scope, receive, send)

    async def _connect(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with Deadline(KNOWN_SECONDS, TRY_AGAIN):
                actor = await self._people.actor_of(scope)
        except PermissionDeniedError:
            await receive()
            await send({"type": "websocket.close", "code": 1008})
            return
        except DataLayerError as error:
            await receive()
            await send({"type": "websocket.accept"})
            is_unknown = isinstance(error, AuthenticationError)
            text = _NOT_LOGGED_IN if is_unknown else "The server cannot be reached; try again in a moment."
            await send({"type": "websocket.send", "text": error_message(text)})
            await send({"type": "websocket.close", "code": APPLICATION_ERROR})
            return
        scope = self._with_state(scope)
        if scope["path"] != GENERATE_PATH:
            await self._application(scope, receive, send)
            return
        with _context_of(scope, actor):
            await RecordedConnection(self._recorder, self._application, scope, receive, send).run(actor)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        if path == page.SCRIPT_PATH:
            response: Response | None = Response(
                page.script(), media_type="text/javascript", headers={"cache-control": "no-cache"}
            )
        elif scope["method"] == "OPTIONS" and not path.startswith(PROJECTS_PATH):
            response = None
        elif _is_below(path, PROJECTS_PATH) or _is_below(path, DESIGNS_PATH):
            response = await self._for_person(scope, receive, self._answer_person)
        elif path.startswith(ASSETS_PATH):
            response = None
        else:
            response = await self._for_person(scope, receive, self._page_file)
        if response is not None:
            await response(scope, receive, send)
        else:
            await self._pass_on(scope, receive, send)

    async def _for_person(
        self, scope: Scope, receive: Receive, answer: Callable[[Actor, Request], Awaitable[Response | None]]
    ) -> Response | None:
        """The answer for a person; without a session, the way to the log-in page."""
        deadline = Deadline(seconds_for(self._data.settings.service, takes_long=False), TRY_AGAIN)
        request = Request(scope, deadline.without(receive))
        try:
            async with deadline:
                # Theirs allows pages of any origin; ours must not, because nobody logs in on a laptop.
                actor = await self._people.actor_of(scope)
                with _context_of(scope, actor):
                    return await answer(actor, request)
        except AuthenticationError:
            if scope["method"] in _READING and "text/html" in request.headers.get("accept", ""):
                return RedirectResponse(f"{LOGIN_PATH}?next={quote(scope['path'])}", 303)
            return JSONResponse({"detail": "log in first"}, 401)
        except PermissionDeniedError as error:
            if answer == self._page_file and not self._people.needs_login:
                return None  # As it is without us.
            return JSONResponse({"detail": str(error)}, 403)
        except DataLayerError as error:
            return _unavailable(error)

    async def _answer_person(self, actor: Actor, request: Request) -> Response:
        if _is_below(request.url.path, DESIGNS_PATH):
            response = await answer_designs(self._data, actor, request)
            # As theirs: the page may come from another port, such as Vite's. Pages of other hosts do not get here.
            response.headers["access-control-allow-origin"] = "*"
            return response
        return await answer_projects(self._data, actor, request)

    async def _page_file(self, _actor: Actor, request: Request) -> Response | None:
        """A file of the built page, if the path names one."""
        if self._frontend is None or request.method not in _READING:
            return None
        if request.url.path in {"/", f"/{_INDEX}"}:
            return await self._index()
        found = self._file_of(request.scope["path"])
        if found is None:
            return None
        # Vite names what lies there after its content.
        is_named_after_content = request.url.path.startswith("/assets/")
        kept = "public, max-age=31536000, immutable" if is_named_after_content else "no-cache"
        return FileResponse(found, headers={"cache-control": kept})

    def _file_of(self, path: str) -> Path | None:
        """The file of the built page at a path, which is decoded already."""
        if self._frontend is None or "\0" in path:
            return None
        found = (self._frontend / path.lstrip("/")).resolve()
        return found if found.is_relative_to(self._frontend) and found.is_file() else None

    async def _index(self) -> Response:
        """The page with our script; read again when a new build has taken its place."""
        if self._frontend is None:
            raise AssertionError("there is no built page")
        file = self._frontend / _INDEX
        changed_at = (await asyncio.to_thread(file.stat)).st_mtime_ns
        if self._shown is None or self._shown[0] != changed_at:
            html = await asyncio.to_thread(file.read_text, encoding="utf-8")
            self._shown = changed_at, page.with_script(html)
        return HTMLResponse(self._shown[1], headers={"cache-control": "no-cache"})

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let their application answer; what it does not know may be kept here, or a path inside of the page."""
        scope = self._with_state(scope)
        path: str = scope["path"]
        accepts = next((value for name, value in scope["headers"] if name == b"accept"), b"")
        may_be_page = self._frontend is not None and b"text/html" in accepts
        is_asset = path.startswith(ASSETS_PATH)
        if scope["method"] not in _READING or not (may_be_page or is_asset):
            await self._application(scope, receive, send)
            return
        missing = frozenset({HTTPStatus.NOT_FOUND}) if is_asset else _NO_PAGE
        is_missing = False

        async def answer(message: Message) -> None:
            nonlocal is_missing
            if message["type"] == "http.response.start":
                is_missing = message["status"] in missing
            if not is_missing:
                await send(message)

        await self._application(scope, receive, answer)
        if is_missing:
            response = await self._kept_asset(path) if is_asset else await self._index()
            await response(scope, receive, send)

    async def _kept_asset(self, path: str) -> Response:
        try:
            async with Deadline(seconds_for(self._data.settings.service, takes_long=False), TRY_AGAIN):
                kept = await self._recorder.assets.answer(path)
        except DataLayerError as error:
            return _unavailable(error)
        return kept or JSONResponse({"detail": "Not Found"}, 404)

    def _with_state(self, scope: Scope) -> Scope:
        return {**scope, "state": dict(self._state)}


def _unavailable(error: DataLayerError) -> Response:
    log.warning("request_failed", code=error.code)
    return JSONResponse({"detail": str(error), "code": error.code}, 503)


def _first_segment(path: str) -> str:
    return path.removeprefix("/").partition("/")[0]


def _is_below(path: str, parent: str) -> bool:
    return path == parent or path.startswith(f"{parent}/")


def _context_of(scope: Scope, actor: Actor) -> Any:
    client = scope["client"][0] if scope.get("client") else None
    agent = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"user-agent"), None)
    return request_context(
        ip_address=client, user_agent=agent, source="recorder", actor_id=actor.user_id, actor_role=actor.role
    )
