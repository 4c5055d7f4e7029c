"""Answers to what takes minutes: a line of JSON every second, and the report at the end."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

import orjson

from data_layer.api.routes import Call
from data_layer.errors import DataLayerError
from data_layer.schemas.base import Value
from data_layer.web.downloads import GeneratedResponse
from data_layer.web.errors import problem_of
from data_layer.web.progress import HEADERS, Running

Work = Callable[[Callable[[int], None]], Awaitable[Value]]


async def progress_of(call: Call, work: Work) -> GeneratedResponse:
    """Answer with how far the work is, and its report. A client that leaves ends it.

    What fails at once, such as work that the caller may not do, is an answer of its own.

    Args:
        call: the request.
        work: given what it calls with how many things it has seen.
    """
    lines = _lines(call, work)
    first = await anext(lines)
    return GeneratedResponse(lines, first=first, media_type="application/x-ndjson", headers=HEADERS)


async def _lines(call: Call, work: Work) -> AsyncGenerator[bytes]:
    seen = 0

    def note(number: int) -> None:
        nonlocal seen
        seen = number

    has_begun = False
    running = Running(lambda: work(note), "administration")
    async with aclosing(running.seconds()) as seconds:
        async for _ in seconds:
            has_begun = True
            yield _line(seen=seen)
    try:
        report = running.result()
    except DataLayerError as error:
        if not has_begun:
            raise
        yield _line(problem=problem_of(call.scope, error).model_dump(mode="json", exclude_none=True))
    else:
        yield _line(report=report.model_dump(mode="json"))


def _line(**content: object) -> bytes:
    return orjson.dumps(content) + b"\n"
