"""Server-sent events (WHATWG HTML, 9.2) of a generation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from time import monotonic

import orjson
from fastapi import Response
from fastapi.responses import StreamingResponse

from data_layer.api.routes import Call
from data_layer.concurrency import jittered
from data_layer.errors import DataLayerError
from data_layer.schemas.generation_stream import CodePatch, CodeState, FollowedEvent, StreamedEvent, VariantEnded
from data_layer.web.authentication import reauthenticate
from data_layer.web.errors import problem_of
from data_layer.web.stream_ends import stream_ends_of

HEARTBEAT_SECONDS = 15.0
_FIRST_SECONDS = 2.0
_HEARTBEAT = b": still here\n\n"
_RETRY = b"retry: 1000\n\n"
"""Milliseconds after which a client connects again that was cut off; browsers wait for three seconds otherwise."""
_RECONNECT_MILLISECONDS = 400
_NAMES = {CodeState: b"code", CodePatch: b"patch", StreamedEvent: b"event", VariantEnded: b"end"}
_HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}  # nginx would hold events back.


async def event_stream(call: Call, events: AsyncGenerator[FollowedEvent]) -> Response:
    """Answer with events, as soon as it is known that the caller may have them.

    A failure at the beginning is an ordinary answer: the first event is awaited, for two seconds at most. Without any
    event the answer is 204, at which browsers do not connect again.

    Args:
        call: the request. Its session is validated again every fifteen seconds.
        events: closed when the stream ends, also because the client has gone.
    """
    first = asyncio.ensure_future(anext(events))
    try:
        await asyncio.wait([first], timeout=_FIRST_SECONDS)
        if first.done() and first.exception() is not None:
            await events.aclose()
            if isinstance(first.exception(), StopAsyncIteration):
                return Response(status_code=204)
            first.result()
    except asyncio.CancelledError:
        await _abandon(first, events)
        raise
    return StreamingResponse(_lines(call, first, events), media_type="text/event-stream", headers=_HEADERS)


async def _lines(
    call: Call, following: asyncio.Future[FollowedEvent], events: AsyncGenerator[FollowedEvent]
) -> AsyncIterator[bytes]:
    check_at = monotonic() + HEARTBEAT_SECONDS
    ends = stream_ends_of(call.scope)
    over = ends.begin()
    try:
        yield _RETRY
        while True:
            await asyncio.wait(
                (following, over), timeout=max(0.0, check_at - monotonic()), return_when=asyncio.FIRST_COMPLETED
            )
            if over.done():
                yield _reconnect()
                return
            if monotonic() >= check_at:
                await reauthenticate(call, call.caller)
                check_at = monotonic() + HEARTBEAT_SECONDS
                yield _HEARTBEAT
            if not following.done():
                continue
            try:
                event = following.result()
            except StopAsyncIteration:
                return
            yield _encode(event)
            following = asyncio.ensure_future(anext(events))
    except DataLayerError as error:
        problem = problem_of(call.scope, error)
        yield b"event: problem\ndata: " + problem.model_dump_json(exclude_none=True).encode() + b"\n\n"
    finally:
        ends.forget(over)
        await _abandon(following, events)


def _reconnect() -> bytes:
    """Have the client connect again soon, and not all clients at once."""
    return b"retry: %d\nevent: reconnect\ndata: {}\n\n" % int(jittered(_RECONNECT_MILLISECONDS, low=0.1))


async def _abandon(following: asyncio.Future[FollowedEvent], events: AsyncGenerator[FollowedEvent]) -> None:
    following.cancel()
    with suppress(asyncio.CancelledError, StopAsyncIteration, DataLayerError):
        await following
    await events.aclose()


def _encode(event: FollowedEvent) -> bytes:
    """One event; JSON has no line breaks."""
    data = orjson.dumps(event)
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (event.position.encode(), _NAMES[type(event)], data)
