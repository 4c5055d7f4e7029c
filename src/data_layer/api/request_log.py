"""One event for each request that was answered."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from data_layer.api.answers import AnswerStatus
from data_layer.observability.log import get_log

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

log = get_log(__name__)

# Asked every few seconds by machines; their requests are worth a line only to someone who looks for them.
_PROBES = frozenset({"/livez", "/readyz", "/health"})


class RequestLogMiddleware:
    """Logs method, path, status, the client's address and duration; never the query, which may hold a secret."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102  (ASGI)
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = AnswerStatus(send)
        try:
            await self._app(scope, receive, status.send)
        finally:
            level = log.debug if scope["path"] in _PROBES else log.info
            level(
                "request_answered",
                method=scope["method"],
                path=scope["path"],
                status=status.code,
                client=scope["client"][0] if scope.get("client") else None,
                duration_ms=round((time.perf_counter() - started) * 1000, 2),
            )
