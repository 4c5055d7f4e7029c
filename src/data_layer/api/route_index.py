"""Finding the route of a request without asking each of two hundred."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from fastapi import APIRouter
from starlette.routing import BaseRoute

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

_INDEXED = 2


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
