"""What stands before the HTTP application: answers while there is none yet, asks clients to leave before it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import orjson

from data_layer.concurrency import is_set_within
from data_layer.observability.log import get_log
from data_layer.web.streams import ENDS, REST, StreamEnds

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send


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


log = get_log(__name__)

_CLOSE = (b"connection", b"close")


class LifecycleMiddleware:
    """An ASGI application that passes requests on to the real one once that is there.

    Before, ``/livez`` says that the process lives and everything else is refused with 503 and ``starting``, except for
    calls that nobody sends again: they wait, unread, until they can be answered or their time is over.
    After ``start_draining`` ``/readyz`` refuses with ``stopping``, all else is still answered, and every answer asks
    the client to close its connection: none should be reused at the moment at which this process closes it. Streams go
    on until ``end_streams``, because only then do load balancers send their clients to another process.

    Args:
        held_seconds: for how many seconds a call waits that nobody sends again, by its path.
    """

    def __init__(self, held_seconds: Mapping[str, float] | None = None) -> None:
        self._application: ASGIApp | None = None
        self._is_stopping = False
        self._held_seconds = held_seconds or {}
        self._has_started = asyncio.Event()  # Or is to stop.
        self.streams = StreamEnds()
        """The streams under way."""

    def open(self, application: ASGIApp) -> None:
        """Pass requests on from now on."""
        self._application = application
        self._has_started.set()

    def start_draining(self) -> None:
        """Be no longer ready."""
        self._is_stopping = True
        self._has_started.set()

    def end_streams(self) -> None:
        """Have clients of streams connect again, to a process that stays."""
        self.streams.end()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102  (ASGI)
        if scope["type"] == "websocket":
            await self._connect(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        if not self._has_started.is_set() and scope["path"] in self._held_seconds:
            await is_set_within(self._has_started, self._held_seconds[scope["path"]])
        reason = "stopping" if self._is_stopping else "starting"
        is_ready = self._application is not None and not self._is_stopping
        if scope["path"] == "/readyz" and not is_ready:
            await _answer(send, HTTPStatus.SERVICE_UNAVAILABLE, {"ready": False, "reason": reason})
        elif self._application is not None:
            await self._pass_on(self._application, scope, receive, send)
        elif scope["path"] == "/livez":
            await _answer(send, HTTPStatus.OK, {"status": "alive"})
        else:
            request_id = new_request_id()
            log.info("request_refused", status=503, reason=reason, correlation_id=request_id)
            await refuse(send, reason, _message(reason), request_id)

    async def _connect(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a WebSocket on, or refuse it while there is nobody to talk to."""
        if self._application is None or self._is_stopping:
            await receive()
            await send({"type": "websocket.close", "code": 1013})
        else:
            await self._application(scope, receive, send)

    async def _pass_on(self, application: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        is_answered = False
        rest: list[Callable[[], Awaitable[None]]] = []
        scope[ENDS], scope[REST] = self.streams, rest

        async def answer(message: Message) -> None:
            nonlocal is_answered
            is_answered = True
            await send(with_close(message) if self._is_stopping else message)

        try:
            await application(scope, receive, answer)
        except asyncio.CancelledError:
            # Its time at the end of the process is over; the caller that waits for the answer learns it.
            if not self._is_stopping or is_answered:
                raise
            request_id = new_request_id()
            log.warning("request_abandoned", method=scope["method"], path=scope["path"], correlation_id=request_id)
            await refuse(send, "stopping", _message("stopping"), request_id)
        if rest:
            # Nothing of the application waits in memory meanwhile; the server still asks for the method.
            for name in scope.keys() - {"type", "method"}:
                del scope[name]
            await rest.pop()()


def with_close(message: Message) -> Message:
    """The same, which also asks the client to close its connection."""
    if message["type"] != "http.response.start":
        return message
    others = [header for header in message.get("headers", ()) if header[0].lower() != b"connection"]
    return {**message, "headers": [*others, _CLOSE]}


async def refuse(send: Send, code: str, message: str, request_id: str) -> None:
    """Answer that this process cannot take the request now; the caller has logged that with the same id."""
    status = HTTPStatus.SERVICE_UNAVAILABLE
    await _send(send, status, problem(status, code, message, request_id), MEDIA_TYPE)


def _message(reason: str) -> str:
    return f"the service is {reason}; try again in a moment"


async def _answer(send: Send, status: HTTPStatus, content: Any) -> None:
    await _send(send, status, orjson.dumps(content), b"application/json")


async def _send(send: Send, status: HTTPStatus, body: bytes, media_type: bytes) -> None:
    headers = [(b"content-type", media_type), (b"content-length", b"%d" % len(body)), _CLOSE]
    if status is HTTPStatus.SERVICE_UNAVAILABLE:
        headers.append((b"retry-after", b"1"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
