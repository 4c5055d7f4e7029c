"""Which pages of other origins may call the service from a browser (CORS), as CORS_ALLOWED_ORIGINS says.

By default none. Answers to others are sent all the same, as to any client, but browsers keep them from their scripts.
"""

from __future__ import annotations

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from data_layer.settings.service import ServiceSettings

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_REQUEST_HEADERS = (
    "authorization",
    "content-encoding",
    "content-type",
    "idempotency-key",
    "if-match",
    "if-none-match",
    "if-modified-since",
    "if-range",
    "last-event-id",
    "range",
    "traceparent",
    "tracestate",
    "writer-token",
    "x-request-id",
)
_SHOWN_HEADERS = (
    "accept-ranges",
    "allow",
    "content-disposition",
    "content-range",
    "deprecation",
    "etag",
    "idempotent-replayed",
    "link",
    "location",
    "ratelimit",
    "ratelimit-policy",
    "retry-after",
    "sunset",
    "traceresponse",
    "x-request-id",
)
_PREFLIGHT_SECONDS = 7200
"""How long a browser remembers an answer; none does for longer."""


def allow_origins(app: FastAPI, settings: ServiceSettings) -> None:
    """Answer preflights, before anything else looks at them, and let pages of the allowed origins read answers."""
    if not settings.cors_allowed_origins:
        return
    app.add_middleware(
        CORSMiddleware,
        allow_origins=settings.cors_allowed_origins,
        allow_methods=_METHODS,
        allow_headers=_REQUEST_HEADERS,
        allow_credentials=settings.cors_allow_credentials,
        expose_headers=_SHOWN_HEADERS,
        max_age=_PREFLIGHT_SECONDS,
    )


def origins_with_cookies(settings: ServiceSettings) -> frozenset[str]:
    """The origins whose pages may act as the person logged in here."""
    return frozenset(settings.cors_allowed_origins if settings.cors_allow_credentials else ())
