"""Files that are made while they are sent, such as exports."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from fastapi.responses import StreamingResponse


async def download(pieces: AsyncIterator[bytes], *, name: str, media_type: str) -> StreamingResponse:
    """Send what a generator makes as a file; a client that leaves ends the generator.

    The first piece is awaited here, so that a refusal is an answer of its own and not a broken file.

    Args:
        pieces: the file; an asynchronous generator of a service.
        name: what browsers save it as.
        media_type: what it is.
    """
    first = await anext(pieces, b"")
    headers = {"content-disposition": f'attachment; filename="{name}"', "x-content-type-options": "nosniff"}
    return StreamingResponse(continued(first, pieces), headers=headers, media_type=media_type)


async def only_head(response: StreamingResponse) -> None:
    """Leave nothing but the head of an answer (HEAD): what would make its body is ended with the first piece."""
    body: Any = response.body_iterator
    async with aclosing(body):
        await anext(body, None)
    response.body_iterator = _nothing()


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield


async def continued(first: bytes, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Go on with a generator whose first piece was taken already, and end it when this is ended."""
    async with aclosing(pieces):  # type: ignore[type-var]  # A generator, as far as the service says an iterator.
        yield first
        async for piece in pieces:
            yield piece
