"""A span around each request that is answered, below the one that the caller names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opentelemetry.trace import Span

from data_layer.observability.tracing.current import current_traceparent
from data_layer.observability.tracing.spans import parent_in, set_error
from data_layer.observability.tracing.tracing import Tracing

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Asked every few seconds by machines, and never a part of anybody's request.
_PROBES = frozenset({"/livez", "/readyz", "/health", "/metrics"})
# Only these may name a span (semantic conventions, http.request.method): everything else is a client's invention.
_METHODS = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"})
_OTHER_METHOD = "_OTHER"
_FIRST_SERVER_ERROR = 500


class TracingMiddleware:
    """Opens the span, and names it by its route: paths and queries hold keys and signatures.

    The response tells which trace it belongs to in ``traceresponse`` (W3C Trace Context, level 2).
    """

    def __init__(self, app: ASGIApp, tracing: Tracing) -> None:
        self._app = app
        self._spans = tracing.spans

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102  (ASGI)
        if scope["type"] != "http" or scope["path"] in _PROBES:
            await self._app(scope, receive, send)
            return
        method = scope["method"] if scope["method"] in _METHODS else _OTHER_METHOD
        with self._spans.request(method, parent_in(scope["headers"])) as span:

            async def tell(message: Message) -> None:
                if message["type"] == "http.response.start":
                    _tell(span, message)
                await send(message)

            span.set_attribute("url.scheme", scope.get("scheme", "http"))
            try:
                await self._app(scope, receive, tell)
            finally:
                _name(span, method, scope)


def _tell(span: Span, message: Message) -> None:
    span.set_attribute("http.response.status_code", message["status"])
    if message["status"] >= _FIRST_SERVER_ERROR:
        set_error(span, str(message["status"]))
    if (traceparent := current_traceparent()) is not None:
        message["headers"] = [*message.get("headers", ()), (b"traceresponse", traceparent.encode())]


def _name(span: Span, method: str, scope: Scope) -> None:
    # Known once the application has found it.
    route: Any = getattr(scope.get("route"), "path", None)
    if route:
        span.set_attribute("http.route", route)
        span.update_name(f"{'HTTP' if method == _OTHER_METHOD else method} {route}")
