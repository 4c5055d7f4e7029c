"""Answers to what takes minutes: a line of JSON every second, and the report at the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import orjson
from fastapi.responses import StreamingResponse

from data_layer.api.routes import Call
from data_layer.concurrency import cancel_and_wait
from data_layer.errors import DataLayerError
from data_layer.schemas.base import Value
from data_layer.web.downloads import continued
from data_layer.web.errors import problem_of

_SECONDS = 1.0
_HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}  # nginx would hold lines back.

Work = Callable[[Callable[[int], None]], Awaitable[Value]]


async def progress_of(call: Call, work: Work) -> StreamingResponse:
    """Answer with how far the work is, and its report. A client that leaves ends it.

    What fails at once, such as work that the caller may not do, is an answer of its own.

    Args:
        call: the request.
        work: given what it calls with how many things it has seen.
    """
    lines = _lines(call, work)
    first = await anext(lines)
    return StreamingResponse(continued(first, lines), media_type="application/x-ndjson", headers=_HEADERS)


async def _lines(call: Call, work: Work) -> AsyncIterator[bytes]:
    seen = 0

    def note(number: int) -> None:
        nonlocal seen
        seen = number

    async def run() -> Value:
        return await work(note)

    task = asyncio.create_task(run(), name="administration")
    try:
        await asyncio.wait([task], timeout=_SECONDS)
        if task.done():
            yield _line(report=task.result().model_dump(mode="json"))
            return
        while not task.done():
            yield _line(seen=seen)
            await asyncio.wait([task], timeout=_SECONDS)
        try:
            report = task.result()
        except DataLayerError as error:
            yield _line(problem=problem_of(call.scope, error).model_dump(mode="json", exclude_none=True))
        else:
            yield _line(report=report.model_dump(mode="json"))
    finally:
        await cancel_and_wait(task)


def _line(**content: object) -> bytes:
    return orjson.dumps(content) + b"\n"
