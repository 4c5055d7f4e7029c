"""Requests are counted by the templates of the routes that take them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from fastapi import routing

from data_layer.api.answers import AnswerStatus
from data_layer.observability.metrics.http import UNMATCHED, HttpCounters

if TYPE_CHECKING:
    from starlette.routing import BaseRoute
    from starlette.types import ASGIApp, Receive, Scope, Send

# Newer versions of FastAPI keep an included router whole; older ones copy its routes.
_each_route: Callable[[Sequence[BaseRoute]], Iterable[Any]] = getattr(routing, "iter_route_contexts", iter)


class RequestMetricsMiddleware:
    """Counts requests by the template of the route that took them."""

    def __init__(self, app: ASGIApp, counters: HttpCounters, routes: Sequence[BaseRoute]) -> None:
        self._app = app
        self._counters = counters
        self._templates = _templates(routes)
        counters.expect((path, method) for path, methods in self._templates.values() for method in methods)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102  (ASGI)
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = AnswerStatus(send)
        self._counters.in_progress += 1
        try:
            await self._app(scope, receive, status.send)
        finally:
            self._counters.in_progress -= 1
            self._counters.note(self._route(scope), status.code, time.perf_counter() - started)

    def _route(self, scope: Scope) -> tuple[str, str]:
        template = self._templates.get(scope.get("endpoint"))
        return (template[0], scope["method"]) if template else UNMATCHED


def _templates(routes: Sequence[BaseRoute]) -> dict[Any, tuple[str, frozenset[str]]]:
    """The path and the methods of each endpoint, prefixes of routers included."""
    found: dict[Any, tuple[str, frozenset[str]]] = {}
    for route in _each_route(routes):
        endpoint, path = getattr(route, "endpoint", None), getattr(route, "path_format", None)
        if endpoint is not None and path is not None:
            _, methods = found.get(endpoint, ("", frozenset()))
            found[endpoint] = (path, methods | frozenset(route.methods or ()))
    return found
