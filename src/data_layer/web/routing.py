"""How a request finds its handler: directly where that only reads, and among few routes everywhere else.

FastAPI reads every request as if its handler had everything that one can have: it opens three exit stacks, solves a
tree of dependencies, wraps ``send`` to see whether the answer has begun, and validates what the handler has validated.
That costs more than a read that the cache answers. A handler that takes no more than the request, the response, and
parameters of path and query needs none of it.

| | FastAPI's way | the direct way |
| --- | --- | --- |
| parameters | read and validated by FastAPI's functions | validated by the same, the query also read by them |
| one that does not fit | 422 | not taken: FastAPI answers |
| the value | validated again, then written by its model | written by its model |
| headers, cookies, status set on the response | added to the answer | the same object is the answer |
| an answer of the handler's own | passed on | passed on |

So there is one way to declare a route, and which way a request takes is not seen in its answer. ``DirectRoutes`` stands
before the application, finds the route by the segments of the path, and hands on whatever it does not answer.
``RouteIndex`` stands in the router's place for all that, and saves it asking each of two hundred routes.
"""

from __future__ import annotations

import inspect
import re
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Hashable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple, Protocol, Self, runtime_checkable

from fastapi import APIRouter, Request, Response
from fastapi.datastructures import DefaultPlaceholder, QueryParams
from fastapi.dependencies.utils import request_params_to_args
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from data_layer.errors import DataLayerError
from data_layer.schemas.base import Value
from data_layer.web.errors import failure, http_failure

Write = Callable[[Value], bytes]
Arguments = dict[str, Any]
Handle = Callable[[Request], Coroutine[Any, Any, Response]]

_READ = frozenset({"GET", "HEAD"})
_JSON = (b"content-type", b"application/json")
_PARAMETER = re.compile(r"\{(\w+)\}")
_INDEXED = 2
"""Segments of a path by which ``RouteIndex`` finds a part of the routes."""

_CAPACITY = 4 * 2**20
_OVERHEAD = 4 * 1024
"""Bytes that an entry counts for beside its JSON: its value lives as long."""
_LARGEST_SHARE = 8


class _Written(NamedTuple):
    value: Value
    body: bytes


class WrittenAnswers:
    """What was written lately.

    Nobody can change a value, and the cache hands the same objects to all its readers (``schemas.base``). So a value
    whose fields are the very objects of one before has the same JSON. An entry holds its value, so that no other object
    gets the id of one in it; the entries that were used longest ago are dropped first.

    Args:
        capacity: bytes of JSON.
    """

    def __init__(self, capacity: int = _CAPACITY) -> None:
        self._capacity = capacity
        self._size = 0
        self._entries: OrderedDict[Hashable, _Written] = OrderedDict()

    def json(self, value: Value, write: Write) -> bytes:
        """Return the JSON of a value.

        Args:
            value: what is answered.
            write: makes the JSON; always the same for values of one type.
        """
        key = (type(value), *map(id, vars(value).values()))
        found = self._entries.get(key)
        if found is not None:
            self._entries.move_to_end(key)
            return found.body
        body = write(value)
        if len(body) <= self._capacity // _LARGEST_SHARE:
            self._keep(key, _Written(value, body))
        return body

    def _keep(self, key: Hashable, written: _Written) -> None:
        self._entries[key] = written
        self._size += len(written.body) + _OVERHEAD
        while self._size > self._capacity:
            _, dropped = self._entries.popitem(last=False)
            self._size -= len(dropped.body) + _OVERHEAD


class DirectHandler:
    """Calls the handler of one route.

    Args:
        route: one that ``fits``.
    """

    def __init__(self, route: APIRoute) -> None:
        found = route.dependant
        self.handler: Callable[..., Coroutine[Any, Any, Any]] = route.endpoint
        self._path, self._query = found.path_params, found.query_params
        self._request, self._response = found.request_param_name, found.response_param_name
        self._status = route.status_code or 200
        self._write: Write = partial(route.response_model.__pydantic_serializer__.to_json, by_alias=True)
        # What most requests ask for; the values are immutable, so all requests share them.
        without_query, problems = request_params_to_args(self._query, QueryParams())
        self._without_query = None if problems else without_query

    @classmethod
    def of(cls, route: APIRoute) -> Self | None:
        """What calls the handler of a route; None where FastAPI has to."""
        return cls(route) if fits(route) else None

    def arguments(self, path: Mapping[str, str], query_string: bytes) -> Arguments | None:
        """The parameters of a request; None where they do not fit, so that FastAPI says why."""
        query = self._without_query
        if query_string:
            query, problems = request_params_to_args(self._query, QueryParams(query_string))
            if problems:
                return None
        if query is None:
            return None
        arguments = dict(query)
        for field in self._path:
            arguments[field.name], problems = field.validate(path.get(field.alias), {}, loc=("path", field.alias))
            if problems:
                return None
        return arguments

    async def answer(self, arguments: Arguments, written: WrittenAnswers, request: Request) -> Response:
        """Call the handler.

        Args:
            arguments: what ``arguments`` has found.
            written: has the JSON of what was answered lately.
            request: handed to it.
        """
        response = _Answer(self._status)
        if self._request is not None:
            arguments[self._request] = request
        if self._response is not None:
            arguments[self._response] = response
        value = await self.handler(**arguments)
        if isinstance(value, Response):
            return value
        response.body = written.json(value, self._write)
        response.raw_headers[:0] = ((b"content-length", b"%d" % len(response.body)), _JSON)
        return response


class _Answer(Response):
    """What a handler sets headers, cookies and the status of, before there is a body."""

    def __init__(self, status: int) -> None:
        # Starlette's would encode no body, and set its length.
        self.status_code = status
        self.background = None
        self.raw_headers = []


def fits(route: APIRoute) -> bool:
    """Whether the handler of a route takes no more than parameters of path and query, and returns a model as JSON."""
    return set(route.methods or ()) <= _READ and _takes_parameters_only(route) and _returns_plain_json(route)


def _takes_parameters_only(route: APIRoute) -> bool:
    found = route.dependant
    return inspect.iscoroutinefunction(route.endpoint) and not (
        found.dependencies
        or found.header_params
        or found.cookie_params
        or found.body_params
        or found.background_tasks_param_name
        or found.security_scopes_param_name
        or found.http_connection_param_name
    )


def _returns_plain_json(route: APIRoute) -> bool:
    model = route.response_model
    return (
        isinstance(model, type)
        and issubclass(model, Value)
        and isinstance(route.response_class, DefaultPlaceholder)
        and route.response_model_by_alias
        and not (
            route.response_model_include
            or route.response_model_exclude
            or route.response_model_exclude_unset
            or route.response_model_exclude_defaults
            or route.response_model_exclude_none
        )
    )


@runtime_checkable
class DirectRoute(Protocol):
    """A route that may answer directly.

    Attributes:
        direct: calls its handler; None where FastAPI has to.
    """

    direct: DirectHandler | None

    def answer(self, handle: Handle, request: Request) -> Coroutine[Any, Any, Response]:
        """Let a request in and have it handled."""


class _End(NamedTuple):
    """What answers the requests that end at a node with one method."""

    route: DirectRoute
    direct: DirectHandler
    names: tuple[str, ...]


class _Node:
    """What follows a segment of a path: segments that are spelled out, a parameter, and the routes that end here."""

    __slots__ = ("ends", "following", "is_known", "parameter")

    def __init__(self) -> None:
        self.following: dict[str, _Node] = {}
        self.parameter: _Node | None = None
        self.is_known = True
        self.ends: dict[str, _End | None] = {}


class DirectRoutes:
    """A middleware that answers what can be answered directly, and hands on everything else.

    Args:
        app: answers everything else, and whatever is not surely right here.
        routes: all routes of the application, as one that answers otherwise may take the same path.
    """

    def __init__(self, app: ASGIApp, routes: Iterable[BaseRoute]) -> None:
        self._app = app
        self._written = WrittenAnswers()
        self._root = _Node()
        for route in routes:
            self._add(route)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102  (ASGI)
        path: dict[str, str] = {}
        end = self._find(scope, path)
        arguments = None if end is None else end.direct.arguments(path, scope["query_string"])
        if end is None or arguments is None:
            await self._app(scope, receive, send)
            return
        scope["route"], scope["endpoint"], scope["path_params"] = end.route, end.direct.handler, path
        try:
            handle = partial(end.direct.answer, arguments, self._written)
            response = await end.route.answer(handle, Request(scope, receive))
        except DataLayerError as error:
            response = failure(scope, error)
            error.__traceback__ = None  # One that several requests share would grow with each.
        except HTTPException as error:
            response = http_failure(scope, error)
        await response(scope, receive, send)

    def _add(self, route: BaseRoute) -> None:
        path: str = getattr(route, "path", "")
        node, names = self._root, []
        for segment in path.split("/"):
            if "{" not in segment:
                node = node.following.setdefault(segment, _Node())
            elif parameter := _PARAMETER.fullmatch(segment):
                names.append(parameter[1])
                node.parameter = node = node.parameter or _Node()
            else:
                node.is_known = False
                return
        end = None
        if isinstance(route, DirectRoute) and route.direct is not None:
            end = _End(route, route.direct, tuple(names))
        for method in getattr(route, "methods", None) or ():
            node.ends.setdefault(method, end)

    def _find(self, scope: Scope, path: dict[str, str]) -> _End | None:
        """What answers a request, if it may answer directly; ``path`` gets the parameters."""
        if scope["type"] != "http" or scope.get("root_path"):
            return None
        node = self._root
        values: list[str] = []
        for segment in scope["path"].split("/"):
            following = node.following.get(segment)
            if following is None:
                if node.parameter is None or not segment or not node.is_known:
                    return None
                following = node.parameter
                values.append(segment)
            node = following
        end = node.ends.get(scope["method"])
        if end is not None:
            path.update(zip(end.names, values, strict=True))
        return end


class RouteIndex:
    """Hands a request to a router that has only the routes whose paths begin like its own.

    A router asks its routes one after the other. Here those that begin with the same two segments, such as
    ``/v1/projects``, have a router of their own, which holds whatever could take such a path, in the same order. So it
    answers as the whole router would, also with 404 and 405. Every other request goes to the whole router.

    Args:
        whole: has every route; those that are added later are found only under other beginnings.
    """

    def __init__(self, whole: APIRouter) -> None:
        self._whole: ASGIApp = whole.middleware_stack
        literals = [(_literal(route), route) for route in whole.routes]
        begins = {_beginning(literal) for literal, _ in literals}
        self._parts = {begin: _part(literals, begin) for begin in begins if begin is not None}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102  (ASGI)
        # Below a root path the routers strip it first.
        is_plain = scope["type"] == "http" and not scope.get("root_path")
        begin = _beginning(scope["path"]) if is_plain else None
        part = None if begin is None else self._parts.get(begin)
        await (self._whole if part is None else part)(scope, receive, send)


def _beginning(path: str) -> str | None:
    """The first segments of a path, with a slash behind them; None where there are fewer."""
    segments = path.split("/", _INDEXED + 1)
    return f"{'/'.join(segments[: _INDEXED + 1])}/" if len(segments) > _INDEXED else None


def _literal(route: BaseRoute) -> str:
    """What each path of a route begins with; of an unknown kind of route nothing."""
    path: str = getattr(route, "path", "")
    return path.partition("{")[0]


def _part(literals: Iterable[tuple[str, BaseRoute]], begin: str) -> ASGIApp:
    """A router of those that may take paths with this beginning."""
    alike = [route for literal, route in literals if f"{literal}/".startswith(begin) or begin.startswith(literal)]
    return APIRouter(routes=alike, redirect_slashes=False).middleware_stack
