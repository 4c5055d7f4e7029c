"""The HTTP application, made around an open data layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asgi_correlation_id import CorrelationIdMiddleware
from fastapi import FastAPI
from fastapi.responses import HTMLResponse, RedirectResponse

from data_layer import __version__
from data_layer.api import accounts, files, health, sessions, tokens
from data_layer.api.authentication import People
from data_layer.api.documentation import documentation_page
from data_layer.api.errors import add_error_handlers
from data_layer.api.mails import Mailing, SendMail
from data_layer.api.middleware import (
    ProxyMiddleware,
    RequestContextMiddleware,
    RequestLogMiddleware,
    RequestMetricsMiddleware,
    TracingMiddleware,
    TrustedProxies,
)
from data_layer.services.request_limits import RequestLimiter

if TYPE_CHECKING:
    from data_layer.layer import DataLayer

MAXIMUM_CORRELATION_ID = 128
_PEOPLE = (accounts, sessions, tokens)


def create_app(data: DataLayer, *, send_mail: SendMail | None = None) -> FastAPI:
    """An application that serves this data layer. Whoever opened it closes it.

    Args:
        data: what it serves.
        send_mail: sends the mails about accounts, after the answer. Without it nobody gets the tokens to verify an
            address or to choose a new password, and the log says so.
    """
    parts = (
        health.make_router(data),
        files.make_router(data),
        files.make_public_router(data),
        *(part.make_router() for part in _PEOPLE),
    )
    app = FastAPI(
        title="Data layer for Screenshot to Code",
        version=__version__,
        description="Accounts, projects, versions of generated code, images, files and their history.",
        # FastAPI's pages load scripts from a CDN; ours is in ``documentation``.
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json" if data.settings.service.enable_docs else None,
        # Such a redirect would name whatever host the client sent.
        redirect_slashes=False,
        # Not by include_router, which makes each of them a second time.
        routes=[route for part in parts for route in part.routes],
    )
    settings = data.settings
    limiter = RequestLimiter(
        data.cache, most=settings.security.rate_limit_max, window=settings.security.rate_limit_window / 1000
    )
    app.state.people = People(data, limiter, Mailing(send_mail))

    if data.settings.service.enable_docs:

        @app.get("/", include_in_schema=False)
        async def go_to_documentation() -> RedirectResponse:
            return RedirectResponse("/docs")

        @app.get("/docs", include_in_schema=False)
        async def show_documentation() -> HTMLResponse:
            return documentation_page(app)

    add_error_handlers(app)
    app.add_middleware(RequestContextMiddleware)
    app.add_middleware(RequestLogMiddleware)
    if data.tracing is not None:
        app.add_middleware(TracingMiddleware, tracing=data.tracing)
    app.add_middleware(CorrelationIdMiddleware, validator=is_correlation_id, transformer=str)
    if data.settings.metrics.enable_metrics:
        app.add_middleware(RequestMetricsMiddleware, counters=data.metrics.http, routes=app.routes)
    # Last, so that it is the outermost: all others go by the address that it finds.
    proxies = TrustedProxies(data.settings.service.trusted_proxies, data.settings.service.trusted_proxy_header)
    app.add_middleware(ProxyMiddleware, proxies=proxies)
    return app


def is_correlation_id(value: str) -> bool:
    """Whether a caller's X-Request-ID may stand in logs and columns: short, and without control characters."""
    return 0 < len(value) <= MAXIMUM_CORRELATION_ID and value.isascii() and value.isprintable()
