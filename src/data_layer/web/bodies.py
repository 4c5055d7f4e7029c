"""Bodies of requests whose size is limited while they arrive."""

from __future__ import annotations

from fastapi import HTTPException, Request


async def read_body(request: Request, most: int) -> bytearray:
    """Read a body of so many bytes at most.

    Raises:
        HTTPException: 413, as soon as that is known.
    """
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > most:
        raise _too_large(most)
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > most:
            raise _too_large(most)
    return body


def _too_large(most: int) -> HTTPException:
    return HTTPException(413, f"the body may have {most} bytes at most")
