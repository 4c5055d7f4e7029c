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
from data_layer.web.errors import problem_of

_SECONDS = 1.0
_HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}  # nginx would hold lines back.

Work = Callable[[Callable[[int], None]], Awaitable[Value]]


def progress_of(call: Call, work: Work) -> StreamingResponse:
    """Answer with how far the work is, and its report. A client that leaves ends it.

    Args:
        call: the request.
        work: given what it calls with how many things it has seen.
    """
    return StreamingResponse(_lines(call, work), media_type="application/x-ndjson", headers=_HEADERS)


async def _lines(call: Call, work: Work) -> AsyncIterator[bytes]:
    seen = 0

    def note(number: int) -> None:
        nonlocal seen
        seen = number

    async def run() -> Value:
        return await work(note)

    task = asyncio.create_task(run(), name="administration")
    try:
        while not task.done():
            await asyncio.wait([task], timeout=_SECONDS)
            if not task.done():
                yield orjson.dumps({"seen": seen}) + b"\n"
        yield orjson.dumps({"report": task.result().model_dump(mode="json")}) + b"\n"
    except DataLayerError as error:
        yield (
            orjson.dumps({"problem": problem_of(call.scope, error).model_dump(mode="json", exclude_none=True)}) + b"\n"
        )
    finally:
        await cancel_and_wait(task)
