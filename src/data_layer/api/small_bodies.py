"""Requests whose body is a small JSON object."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from fastapi import HTTPException, Request, Response
from fastapi.routing import APIRoute

if TYPE_CHECKING:
    from starlette.types import Message, Receive

MAXIMUM_BODY = 64 * 1024
"""Bytes of a body."""


class SmallBodyRoute(APIRoute):
    """A route that refuses a larger body before it is in memory: FastAPI reads the whole of it first."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:  # noqa: D102  (FastAPI)
        handle = super().get_route_handler()

        async def handle_small(request: Request) -> Response:
            return await handle(Request(request.scope, _limited(request.receive)))

        return handle_small


def _limited(receive: Receive) -> Receive:
    size = 0

    async def receive_limited() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > MAXIMUM_BODY:
            raise HTTPException(413, f"the body may have {MAXIMUM_BODY} bytes at most")
        return message

    return receive_limited
