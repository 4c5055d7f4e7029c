"""From where a request comes, for everything that is recorded while it is answered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from data_layer.context import request_context

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send


class RequestContextMiddleware:
    """Sets address and user agent; the correlation id comes from its own middleware, the actor from authentication.

    The address is that of the peer, or what a trusted proxy says it is (TRUSTED_PROXIES).
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102  (ASGI)
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        client = scope.get("client")
        agent = next((value for name, value in scope["headers"] if name == b"user-agent"), b"")
        with request_context(
            ip_address=client[0] if client else None,
            user_agent=agent.decode("latin-1") or None,
            source="api",
        ):
            await self._app(scope, receive, send)
