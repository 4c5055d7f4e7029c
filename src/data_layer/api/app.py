"""The HTTP application, made around an open data layer."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from fastapi import APIRouter, FastAPI

from data_layer import __version__
from data_layer.api import (
    account_pages,
    accounts,
    administration,
    api_keys,
    assets,
    designs,
    documentation,
    exports,
    files,
    generations,
    health,
    identities,
    images,
    openid,
    previews,
    projects,
    second_factors,
    sessions,
    shares,
    tokens,
    usage,
    variants,
)
from data_layer.concurrency import SingleFlight
from data_layer.layer import DataLayer
from data_layer.services.rate_limits import RequestLimiter
from data_layer.web.authentication import People
from data_layer.web.compression import CompressionMiddleware
from data_layer.web.cross_origin import allow_origins, origins_with_cookies
from data_layer.web.errors import add_error_handlers
from data_layer.web.middleware import Application, RequestMiddleware, TracingMiddleware, TrustedProxies
from data_layer.web.rate_limits import rate_limiter
from data_layer.web.routing import DirectRoutes, RouteIndex

_RESOURCES = (
    projects.routes,
    generations.routes,
    variants.routes,
    previews.routes,
    images.routes,
    assets.routes,
    designs.routes,
    exports.routes,
    shares.routes,
    usage.routes,
    usage.budgets,
    accounts.routes,
    api_keys.routes,
    second_factors.routes,
    identities.routes,
    sessions.routes,
    openid.routes,
    tokens.routes,
    administration.routes,
)


def create_app(data: DataLayer, faces: Iterable[APIRouter] = ()) -> FastAPI:
    """An application that serves this data layer. Its opener closes it, and sends mails with ``data.mails``.

    Args:
        data: open, and stays open for as long as the application serves.
        faces: what is served beside the API, such as the console; ``data_layer.server.faces`` lists them.
    """
    parts = [health.router, files.router, *faces]
    if data.settings.service.enable_docs:
        parts.append(documentation.router)
    parts.append(account_pages.router)
    routes = [route for resource in _RESOURCES for route in resource.routes]
    spelled_out = {route.path for route in routes if "{" not in route.path}
    for route in routes:
        route.give_way(spelled_out)
    app = Application(
        title="Data layer for Screenshot to Code",
        version=__version__,
        description="Accounts, projects, versions of generated code, images, files and their history.",
        # FastAPI's pages load scripts from a CDN; ours is in ``documentation``.
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        # Such a redirect would name whatever host the client sent.
        redirect_slashes=False,
        # Not by include_router, which makes each of them a second time.
        routes=[
            *routes,
            *(route for part in parts for route in part.routes),
        ],
    )
    settings = data.settings
    limiter = RequestLimiter(
        data.cache, most=settings.security.rate_limit_max, window=settings.security.rate_limit_window / 1000
    )
    rates = rate_limiter(data)
    app.people = People(data, limiter, rates, origins_with_cookies(settings.service))
    app.state.data = data
    app.state.probe = health.SharedProbe(data.health)
    app.state.description = SingleFlight("describe")
    app.openapi = partial(documentation.describe, app)  # type: ignore[method-assign]

    app.router.middleware_stack = RouteIndex(app.router)
    add_error_handlers(app)
    app.add_middleware(DirectRoutes, routes=app.routes)
    if settings.service.preview_origin is not None:
        app.add_middleware(previews.PreviewHostMiddleware, origin=settings.service.preview_origin)
    app.add_middleware(CompressionMiddleware)
    app.add_middleware(
        RequestMiddleware,
        proxies=TrustedProxies(settings.service.trusted_proxies, settings.service.trusted_proxy_header),
        counters=data.metrics.http if settings.metrics.enable_metrics else None,
        routes=app.routes,
        rates=rates,
    )
    if data.tracing is not None:
        # Around the other one, whose line in the log names the span.
        app.add_middleware(TracingMiddleware, tracing=data.tracing)
    # Around everything, so that also an answer that nobody expected can be read.
    allow_origins(app, settings.service)
    return app
