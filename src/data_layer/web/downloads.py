"""Answers that are made while they are sent: files, exports, and work that shows every second how far it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Generic, TypeVar

from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from data_layer.concurrency import cancel_and_wait


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


Result = TypeVar("Result")
_SECONDS = 1.0

HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}
"""For an answer that is sent bit by bit: neither nginx nor our own compression may hold it back."""


class Running(Generic[Result]):
    """Work that has begun.

    Args:
        work: begins it.
        name: of its task.
    """

    def __init__(self, work: Callable[[], Awaitable[Result]], name: str) -> None:
        async def run() -> Result:
            return await work()

        self._task = asyncio.create_task(run(), name=name)

    async def seconds(self) -> AsyncGenerator[None]:
        """Yield once a second until the work has ended, however it ended. Closing this earlier ends the work."""
        try:
            while not self._task.done():
                await asyncio.wait([self._task], timeout=_SECONDS)
                if not self._task.done():
                    yield
        finally:
            await cancel_and_wait(self._task)

    def result(self) -> Result:
        """Return what came of it; raise what it raised."""
        return self._task.result()
