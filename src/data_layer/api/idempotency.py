"""Idempotency-Key (draft-ietf-httpapi-idempotency-key-header) on what creates: a repeated request changes nothing.

A request is the same if method, path, query and body are; of a form the boundary does not matter, which clients choose
at random. The body is hashed while it is read, so that a file need not be in memory.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

from fastapi import Response
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope

from data_layer.errors import AnswerNotKeptError, InvalidValueError
from data_layer.services.idempotency import IdempotentRequests, KeptAnswer

HEADER = "idempotency-key"
DESCRIPTION: dict[str, Any] = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "Of the client's choice, such as a UUID. The same request with the same key is carried out once and "
    "answered the same way for a day.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
}
_KEY = re.compile(rb'"?([!#-\x5b\x5d-~]{1,255})"?')
_BOUNDARY = re.compile(rb'boundary="?([^";,]{1,70})"?', re.IGNORECASE)
_FIRST_OTHER = 300
_REPLAYED = ("idempotent-replayed", "true")


def key_of(scope: Scope) -> str | None:
    """The key that a client has sent, as a structured field (RFC 9651) or bare.

    Raises:
        InvalidValueError: it is none.
    """
    found = [value for name, value in scope["headers"] if name == HEADER.encode()]
    if not found:
        return None
    match = _KEY.fullmatch(found[0])
    if len(found) > 1 or match is None:
        raise InvalidValueError(
            "Idempotency-Key must be one text of 1 to 255 visible characters, such as a UUID", field="Idempotency-Key"
        )
    return match[1].decode("ascii")


class Fingerprint:
    """The hash of a request, complete when its body was read.

    Args:
        scope: the request.
        receive: its messages.
    """

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self._receive = receive
        self._hash = hashlib.sha256(f"{scope['method']} {scope['path']}?".encode())
        self._hash.update(scope.get("query_string", b"") + b"\n")
        self._boundary = _boundary_of(scope)
        self._rest = b""
        self._is_complete = False

    async def receive(self) -> Message:
        """The next message."""
        message = await self._receive()
        if message["type"] == "http.request":
            self._is_complete = not message.get("more_body", False)
            self._add(message.get("body", b""))
        else:
            self._is_complete = True  # The client is gone; whatever is hashed is worth nothing any more.
        return message

    async def finish(self) -> bytes:
        """Read what is left of the body, and return the hash."""
        while not self._is_complete:
            await self.receive()
        self._hash.update(self._rest)
        self._rest = b""
        return self._hash.digest()

    def _add(self, piece: bytes) -> None:
        if self._boundary is not None:
            piece = (self._rest + piece).replace(self._boundary, b"-")
            # A boundary may be cut in two.
            end = max(0, len(piece) - len(self._boundary) + 1)
            piece, self._rest = piece[:end], piece[end:]
        self._hash.update(piece)


async def read_first(receive: Receive) -> Receive:
    """Read a body, and return what hands it out once more, all of it in one message."""
    pieces, has_more = [], True
    while has_more:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientDisconnect
        pieces.append(message.get("body", b""))
        has_more = message.get("more_body", False)
    whole: list[Message] = [{"type": "http.request", "body": b"".join(pieces), "more_body": False}]

    async def receive_again() -> Message:
        return whole.pop() if whole else await receive()

    return receive_again


def _boundary_of(scope: Scope) -> bytes | None:
    for name, value in scope["headers"]:
        if name == b"content-type" and value.lower().startswith(b"multipart/"):
            match = _BOUNDARY.search(value)
            # A short one could stand anywhere in a file.
            return match[1] if match is not None and len(match[1]) > 1 else None
    return None


async def answer_once(
    requests: IdempotentRequests,
    scope: UUID,
    key: str,
    fingerprint: Fingerprint,
    work: Callable[[], Awaitable[Response]],
) -> Response:
    """Carry a request out, or answer it as it was answered before.

    Raises:
        AnswerNotKeptError: the answer was too large to keep.
        StillRunningError, IdempotencyKeyReusedError: see `IdempotentRequests`.
    """
    async with requests.once(scope, key) as execution:
        if execution is not None:
            response = await work()
            body = getattr(response, "body", None)
            if response.status_code < _FIRST_OTHER and isinstance(body, bytes):
                execution.fingerprint = await fingerprint.finish()
                execution.answer = KeptAnswer(response.status_code, tuple(response.headers.items()), body)
            return response
    kept = await requests.answer(scope, key, await fingerprint.finish())
    if kept.body is None:
        where = dict(kept.headers).get("location")
        raise AnswerNotKeptError(
            "the request was carried out, and its answer was too large to keep"
            + (f"; read what it has created at {where}" if where else "")
        )
    return Response(kept.body, kept.status, dict((*kept.headers, _REPLAYED)))
