"""What the server itself answers when a request does not reach the application: problem details (RFC 9457)."""

from __future__ import annotations

from http import HTTPStatus
from uuid import uuid4

import orjson

MEDIA_TYPE = b"application/problem+json"


def new_request_id() -> str:
    """An id for a request that the server refuses, for the answer and the log."""
    return uuid4().hex


def problem(status: HTTPStatus, code: str, detail: str, request_id: str) -> bytes:
    """The body of a refusal: ``code`` is for programs and stays; ``detail`` is for people and may change."""
    content: dict[str, object] = {
        "type": "about:blank",
        "title": status.phrase,
        "status": status.value,
        "detail": detail,
        "code": code,
        "request_id": request_id,
        "fields": [],
    }
    return orjson.dumps(content)
