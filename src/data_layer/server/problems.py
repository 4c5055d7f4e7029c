"""What the server itself answers when a request does not reach the application: problem details (RFC 9457)."""

from __future__ import annotations

from http import HTTPStatus
from uuid import uuid4

import orjson

MEDIA_TYPE = b"application/problem+json"


def problem(status: HTTPStatus, code: str, detail: str) -> bytes:
    """The body of a refusal: ``code`` is for programs and stays; ``detail`` is for people and may change."""
    content: dict[str, object] = {
        "type": "about:blank",
        "title": status.phrase,
        "status": status.value,
        "detail": detail,
        "code": code,
        "request_id": uuid4().hex,
        "fields": [],
    }
    return orjson.dumps(content)
