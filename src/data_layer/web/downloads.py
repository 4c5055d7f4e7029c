"""Answers that are made while they are sent, such as files and exports."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing

from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send


class GeneratedResponse(StreamingResponse):
    """Send what a generator makes, and close the generator at the end, also where the client has gone by then.

    Starlette leaves that to the garbage collector, and so whatever the generator holds: a file, a task, a connection.

    Args:
        pieces: the body.
        first: goes before them.
        status_code: of the answer.
        headers: of the answer.
        media_type: what it is.
    """

    def __init__(
        self,
        pieces: AsyncGenerator[bytes],
        *,
        first: bytes = b"",
        status_code: int = 200,
        headers: Mapping[str, str] | None = None,
        media_type: str | None = None,
    ) -> None:
        super().__init__(_following(first, pieces) if first else pieces, status_code, headers, media_type)
        self._pieces = pieces

    async def leave_out_body(self) -> None:
        """Send the head only, as HEAD wants it."""
        await self._pieces.aclose()
        self.body_iterator = _nothing()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102  (ASGI)
        async with aclosing(self._pieces):
            await super().__call__(scope, receive, send)


async def download(pieces: AsyncGenerator[bytes], *, name: str, media_type: str) -> GeneratedResponse:
    """Send what a generator makes as a file; a client that leaves ends the generator.

    The first piece is awaited here, so that a refusal is an answer of its own and not a broken file.

    Args:
        pieces: the file.
        name: what browsers save it as.
        media_type: what it is.
    """
    first = await anext(pieces, b"")
    headers = {"content-disposition": f'attachment; filename="{name}"', "x-content-type-options": "nosniff"}
    return GeneratedResponse(pieces, first=first, headers=headers, media_type=media_type)


async def _following(first: bytes, pieces: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    yield first
    async for piece in pieces:
        yield piece


async def _nothing() -> AsyncGenerator[bytes]:
    return
    yield
