"""What stands before the HTTP application: answers while there is none yet, and says good-bye before it goes."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_CLOSE = (b"connection", b"close")


class Gate:
    """An ASGI application that passes requests on to the real one once that is there.

    Before, ``/livez`` says that the process lives and everything else is refused with 503 and ``starting``. After
    ``say_goodbye`` ``/readyz`` refuses with ``stopping``, all else is still answered, and every answer asks the client
    to close its connection: none should be reused at the moment at which this process closes it.
    """

    def __init__(self) -> None:
        self._application: ASGIApp | None = None
        self._is_stopping = False

    def open(self, application: ASGIApp) -> None:
        """Pass requests on from now on."""
        self._application = application

    def say_goodbye(self) -> None:
        """Be no longer ready."""
        self._is_stopping = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102  (ASGI)
        if scope["type"] != "http":
            return
        reason = "stopping" if self._is_stopping else "starting"
        if self._application is not None and not self._is_stopping:
            await self._application(scope, receive, send)
        elif scope["path"] == "/readyz":
            await _answer(send, HTTPStatus.SERVICE_UNAVAILABLE, {"ready": False, "reason": reason})
        elif self._application is not None:
            await self._application(scope, receive, _closing(send))
        elif scope["path"] == "/livez":
            await _answer(send, HTTPStatus.OK, {"status": "alive"})
        else:
            error = {"code": reason, "message": f"the service is {reason}; try again in a moment"}
            await _answer(send, HTTPStatus.SERVICE_UNAVAILABLE, {"error": error})


def _closing(send: Send) -> Send:
    async def send_and_close(message: Message) -> None:
        if message["type"] == "http.response.start":
            others = [header for header in message.get("headers", ()) if header[0].lower() != b"connection"]
            message = {**message, "headers": [*others, _CLOSE]}
        await send(message)

    return send_and_close


async def _answer(send: Send, status: HTTPStatus, content: Any) -> None:
    body = orjson.dumps(content)
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)), _CLOSE]
    if status is HTTPStatus.SERVICE_UNAVAILABLE:
        headers.append((b"retry-after", b"1"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
