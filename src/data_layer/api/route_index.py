"""Finding the route of a request without asking each of two hundred."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
        self._parts: dict[str | None, ASGIApp] = {
            begin: _part(whole.routes, begin) for begin in _beginnings(whole.routes)
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102  (ASGI)
        # Below a root path the routers strip it first.
        is_plain = scope["type"] == "http" and not scope.get("root_path")
        part = self._parts.get(_beginning(scope["path"])) if is_plain else None
        await (self._whole if part is None else part)(scope, receive, send)


def _beginning(path: str) -> str | None:
    """The first segments of a path, with a slash behind them; None where there are fewer."""
    segments = path.split("/", _INDEXED + 1)
    return f"{'/'.join(segments[: _INDEXED + 1])}/" if len(segments) > _INDEXED else None


def _literal(route: BaseRoute) -> str:
    """What each path of a route begins with; of an unknown kind of route nothing."""
    path: str = getattr(route, "path", "")
    return path.partition("{")[0]


def _beginnings(routes: Iterable[BaseRoute]) -> set[str]:
    found = (_beginning(_literal(route)) for route in routes)
    return {begin for begin in found if begin is not None}


def _part(routes: Sequence[BaseRoute], begin: str) -> ASGIApp:
    """A router of those that may take paths with this beginning."""
    alike = [route for route in routes if f"{_literal(route)}/".startswith(begin) or begin.startswith(_literal(route))]
    return APIRouter(routes=alike, redirect_slashes=False).middleware_stack
