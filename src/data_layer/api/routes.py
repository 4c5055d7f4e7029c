"""How a route is declared, and what all of them have in common.

``Routes`` collects the routes of one resource::

    routes = Routes("/v1/projects", "projects")

    @routes.get("/{project_id}", summary="Read a project", errors=[404])
    async def show(call: Call, project_id: UUID) -> ProjectFull:
        return await call.data.projects.open(call.actor, project_id)

A handler takes the ``Call``, which is the request and who sends it, and what FastAPI reads from path, query and body.
It makes one call of a service and returns a value, which becomes bytes once. Authentication happens before the body is
read and outside FastAPI's dependencies: it costs one look into a dictionary instead of a tree of dependencies.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import partial
from http import HTTPStatus
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

from fastapi import HTTPException, Request, Response
from fastapi.routing import APIRoute
from starlette.routing import Match
from starlette.types import Message, Receive, Scope

from data_layer.api.idempotency import DESCRIPTION as IDEMPOTENCY_KEY
from data_layer.api.idempotency import Fingerprint, answer_once, key_of, read_first
from data_layer.api.response_headers import ResponseHeaders
from data_layer.context import current_context, set_patience
from data_layer.entities.enums import ApiScope
from data_layer.errors import PermissionDeniedError
from data_layer.layer import DataLayer
from data_layer.schemas.actors import Actor
from data_layer.schemas.sessions import ActiveSession
from data_layer.services.rate_limits import RequestKind
from data_layer.web.authentication import Caller, People, authenticate, people_of
from data_layer.web.compression import decompressed
from data_layer.web.deadlines import Deadline, seconds_for, within
from data_layer.web.downloads import GeneratedResponse
from data_layer.web.errors import described
from data_layer.web.middleware import add_to_answer
from data_layer.web.rate_limits import admit
from data_layer.web.routing import DirectHandler, Handle

Handler = TypeVar("Handler", bound=Callable[..., Any])


class KeyScopes(NamedTuple):
    """What an API key must be good for, to read and to change what a resource holds."""

    read: ApiScope
    change: ApiScope


CONTENT = KeyScopes(ApiScope.READ, ApiScope.WRITE)
"""Of what people make; other routes refuse API keys unless they say otherwise."""

MaxBody = int | Callable[[DataLayer, Scope], int]
SMALL_BODY = 64 * 1024
"""Bytes of the body of a request that names no other limit."""
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
_NEVER_STORED = (b"cache-control", b"no-store")
_SECURITY: list[dict[str, list[str]]] = [{"Bearer": []}, {"SessionCookie": []}]

_IF_MATCH: dict[str, Any] = {
    "name": "If-Match",
    "in": "header",
    "required": True,
    "description": "The ETag of what was read, so that nobody else's change is lost.",
    "schema": {"type": "string"},
}

_IF_MATCH_OR_NEW = [
    _IF_MATCH | {"required": False, "description": "The ETag of what was read; this or `If-None-Match: *` is needed."},
    {
        "name": "If-None-Match",
        "in": "header",
        "required": False,
        "description": "`*` where there was nothing to read.",
        "schema": {"type": "string", "enum": ["*"]},
    },
]
_IF_MATCH_HEEDED = _IF_MATCH | {"required": False, "description": "The ETag of what was read; heeded where it is sent."}


class Deprecation(NamedTuple):
    """A route that will be taken away: each of its answers says so.

    Attributes:
        since: from when on it should not be used (``Deprecation``, RFC 9745).
        ends: when it is taken away (``Sunset``, RFC 8594).
        instead: the path of what stands in its place (``Link`` with ``successor-version``).
    """

    since: datetime
    ends: datetime
    instead: str | None = None

    @property
    def headers(self) -> Iterator[tuple[bytes, bytes]]:
        """What says so."""
        yield b"deprecation", f"@{self.since.timestamp():.0f}".encode()
        yield b"sunset", format_datetime(self.ends.astimezone(UTC), usegmt=True).encode()
        if self.instead is not None:
            yield b"link", f'<{self.instead}>; rel="successor-version"'.encode()


class Call(Request):
    """A request to one of the routes, and who sends it."""

    @property
    def served(self) -> People:
        """What the routes work with."""
        return people_of(self)

    @property
    def data(self) -> DataLayer:
        """The services."""
        return people_of(self).data

    @property
    def caller(self) -> Caller:
        """Who sends it; only of routes that need a login."""
        caller: Caller = self.scope["caller"]
        return caller

    @property
    def user_id(self) -> UUID:
        """Whose account the request comes from."""
        return self.caller.user_id

    @property
    def actor(self) -> Actor:
        """Who acts."""
        return self.caller.actor

    @property
    def session_id(self) -> UUID | None:
        """The session that the request comes in; None for a caller that authenticated without one."""
        session = self.caller.session
        return None if session is None else session.id

    @property
    def active_session(self) -> ActiveSession:
        """The session that the request comes in.

        Raises:
            PermissionDeniedError: the caller authenticated without one.
        """
        session = self.caller.session
        if session is None:
            raise PermissionDeniedError("this concerns the session of the request, which comes without one")
        return session


class ServiceRoute(APIRoute):
    """A route of the service.

    Args:
        path: its template.
        endpoint: the handler.
        needs_login: whether a session is needed.
        scope: what an API key in place of a session must be good for; without one no key is accepted.
        max_body: bytes of the body, or what says so of a request; a larger one is refused while it is read.
        counted: the kind of request of which a network may send so many; for routes that need no login.
        is_shed_last: whether its callers do not repeat what is refused, so that it is held for longer and refused last.
        takes_long: whether it has no deadline (REQUEST_DEADLINE).
        takes_key: whether a client may send an Idempotency-Key.
        deprecation: that it will be taken away.
        options: those of FastAPI.
    """

    def __init__(
        self,
        path: str,
        endpoint: Callable[..., Any],
        *,
        needs_login: bool,
        max_body: MaxBody,
        scope: ApiScope | None = None,
        counted: RequestKind | None = None,
        is_shed_last: bool = False,
        takes_long: bool = False,
        takes_key: bool = False,
        deprecation: Deprecation | None = None,
        **options: Any,
    ) -> None:
        self._scope = scope
        self._is_shed_last = is_shed_last
        self._takes_long = takes_long
        self._deprecation = deprecation
        self._needs_login = needs_login
        self._counted = counted
        self._max_body = max_body
        self._literal = path.partition("{")[0]
        self._gives_way_to: frozenset[str] = frozenset()
        self._takes_key = takes_key
        super().__init__(path, endpoint, deprecated=deprecation is not None or None, **options)
        self.direct = DirectHandler.of(self)

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Whether the route takes a request; of dozens of routes most are passed by without a regular expression."""
        path = scope.get("path", "")
        if scope["type"] != "http" or not path.startswith(self._literal) or path in self._gives_way_to:
            return Match.NONE, {}
        return super().matches(scope)

    def give_way(self, paths: Iterable[str]) -> None:
        """Leave paths to the routes that spell them out, whatever the method.

        Else ``PATCH /v1/projects/search`` would be about a project whose id is not one, instead of a wrong method.
        """
        if self._literal != self.path:
            alike = (path for path in paths if path.startswith(self._literal))
            self._gives_way_to = frozenset(path for path in alike if self.path_regex.match(path))

    def get_route_handler(self) -> Handle:
        """Return what answers a request: who sends it is known before anything is read of its body."""
        return partial(self.answer, super().get_route_handler())

    async def answer(self, handle: Handle, request: Request) -> Response:
        """Let a request in and have it handled, within its deadline.

        Args:
            handle: what answers the ``Call``.
            request: as it came.
        """
        if self._deprecation is not None:
            add_to_answer(request.scope, self._deprecation.headers)
        people = people_of(request)
        seconds = seconds_for(people.data.settings.service, takes_long=self._takes_long)
        response = await within(seconds, partial(self._handle, request, handle))
        # What people see of themselves stays out of every cache, unless the handler says otherwise.
        for name, _ in response.raw_headers:
            if name == b"cache-control":
                break
        else:
            response.raw_headers.append(_NEVER_STORED)
        if request.method == "HEAD" and isinstance(response, GeneratedResponse):
            await response.leave_out_body()
        return response

    async def _handle(self, request: Request, handle: Handle, deadline: Deadline) -> Response:
        if self._is_shed_last:
            set_patience(deadline.patience())
        receive = request.receive if self.direct is not None else self._limited(request, deadline)
        call = Call(request.scope, receive)
        if self._needs_login:
            call.scope["caller"] = caller = await authenticate(call, self._scope)
            await admit(call.served.rates, call.scope, caller.counted_as)
        elif self._counted is not None:
            await call.served.limiter.admit(current_context().ip_address, self._counted)
        key = key_of(call.scope) if self._takes_key else None
        if key is None:
            return await handle(call)
        requests, fingerprint = call.data.idempotency, Fingerprint(call.scope, call.receive)
        if self._needs_login:
            scope, receive = call.user_id, fingerprint.receive
        else:
            receive = await read_first(fingerprint.receive)
            scope = requests.scope_of(key, await fingerprint.finish())
        return await answer_once(requests, scope, key, fingerprint, partial(handle, Call(call.scope, receive)))

    def _limited(self, request: Request, deadline: Deadline) -> Receive:
        """The messages of a request whose body may be read: up to its limit, decompressed, and in the client's time."""
        most = self._max_body
        if callable(most):
            most = most(people_of(request).data, request.scope)
        receive = _limited(deadline.without(request.receive), most)
        if request.method in _WITH_BODY:
            encoding = request.headers.get("content-encoding", "identity")
            receive = receive if encoding == "identity" else decompressed(receive, encoding, most)
        return receive


def _conditions(errors: Container[int], *, may_be_new: bool) -> list[dict[str, Any]]:
    """The headers on which a change depends, by the ways in which it fails."""
    if 428 in errors:
        return _IF_MATCH_OR_NEW if may_be_new else [_IF_MATCH]
    return [_IF_MATCH_HEEDED] if 412 in errors else []


def _with_parameters(extra: dict[str, Any], *parameters: Mapping[str, Any]) -> dict[str, Any]:
    return extra | {"parameters": [*extra.get("parameters", ()), *parameters]} if parameters else extra


def _limited(receive: Receive, most: int) -> Receive:
    """The messages of a request up to so many bytes: FastAPI reads the whole body before it looks at it."""
    size = 0

    async def receive_limited() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > most:
            raise HTTPException(413, f"the body may have {most} bytes at most")
        return message

    return receive_limited


class Routes:
    """The routes of one resource.

    Args:
        prefix: the beginning of all paths.
        tag: the section of the documentation.
        needs_login: whether they need a session.
        keys: what API keys must be good for; without it none is accepted.
    """

    def __init__(self, prefix: str, tag: str, *, needs_login: bool = True, keys: KeyScopes | None = None) -> None:
        self._prefix = prefix
        self._tag = tag
        self._needs_login = needs_login
        self._keys = keys
        self.routes: list[ServiceRoute] = []

    def get(self, path: str, **options: Any) -> Callable[[Handler], Handler]:
        """Declare what is read; HEAD works too."""
        return self._add("GET", path, options)

    def post(self, path: str, **options: Any) -> Callable[[Handler], Handler]:
        """Declare what is created or done."""
        return self._add("POST", path, options)

    def put(self, path: str, **options: Any) -> Callable[[Handler], Handler]:
        """Declare what is set, however often it is sent."""
        return self._add("PUT", path, options)

    def patch(self, path: str, **options: Any) -> Callable[[Handler], Handler]:
        """Declare what is changed."""
        return self._add("PATCH", path, options)

    def delete(self, path: str, **options: Any) -> Callable[[Handler], Handler]:
        """Declare what is removed."""
        return self._add("DELETE", path, options)

    def _add(self, method: str, path: str, options: dict[str, Any]) -> Callable[[Handler], Handler]:
        def add(handler: Handler) -> Handler:
            self.routes.extend(self._make(method, path, handler, **options))
            return handler

        return add

    def _make(
        self,
        method: str,
        path: str,
        handler: Callable[..., Any],
        *,
        errors: Collection[int] = (),
        needs_login: bool | None = None,
        scope: ApiScope | None = None,
        counted: RequestKind | None = None,
        max_body: MaxBody = SMALL_BODY,
        is_shed_last: bool = False,
        takes_long: bool = False,
        takes_key: bool | None = None,
        may_be_new: bool = False,
        etag: Callable[[Any], str] | None = None,
        location: str | None = None,
        next_by: str | None = None,
        **options: Any,
    ) -> Iterable[ServiceRoute]:
        needs_login = self._needs_login if needs_login is None else needs_login
        if method != "GET":
            errors = {413, 422, *errors}
        if method in _WITH_BODY:
            errors = {400, 415, *errors}
        if scope is None and self._keys is not None:
            scope = self._keys.read if method == "GET" else self._keys.change
        security = _SECURITY if scope is None else [*_SECURITY, {"ApiKey": [scope.value]}]
        extra = options.pop("openapi_extra", {}) | ({"security": security} if needs_login else {})
        if takes_key is None:
            takes_key = needs_login and method == "POST" and options.get("status_code") == HTTPStatus.CREATED
        if takes_key:
            errors = {409, *errors}
        headers_taken = [*[IDEMPOTENCY_KEY] * takes_key, *_conditions(errors, may_be_new=may_be_new)]
        extra = _with_parameters(extra, *headers_taken)
        statuses = {429, 503, *errors} | (set() if takes_long else {504}) | ({401, 403} if needs_login else set())
        if options.get("status_code") == 204:
            options["response_model"] = None
        responses = described(*sorted(statuses)) | options.pop("responses", {})
        headers = ResponseHeaders(etag, location, next_by)
        if sent := headers.described():
            status = options.get("status_code", 200)
            responses[status] = responses.get(status, {}) | {"headers": sent}
        handler = headers.sent_by(handler)
        shared: dict[str, Any] = {
            "needs_login": needs_login,
            "scope": scope,
            "counted": counted,
            "is_shed_last": is_shed_last,
            "takes_long": takes_long,
            "takes_key": takes_key,
            "tags": [self._tag],
            "responses": responses,
            "max_body": max_body,
            **options,
            "openapi_extra": extra,
        }
        yield ServiceRoute(self._prefix + path, handler, methods=[method], **shared)
        if method == "GET":
            yield ServiceRoute(self._prefix + path, handler, methods=["HEAD"], **shared | {"include_in_schema": False})
