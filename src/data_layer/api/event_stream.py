"""Server-sent events (WHATWG HTML, 9.2) of a generation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress

import orjson
from fastapi import Response
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from data_layer.api.routes import Call
from data_layer.concurrency import cancel_and_wait, jittered
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
    return _EventStream(call, first, events)


class _EventStream(StreamingResponse):
    """One task hands events on; that of the request watches the client, its session and the end of the process.

    Nothing is made for a single event: a process has thousands of followers.
    """

    def __init__(self, call: Call, first: asyncio.Future[FollowedEvent], events: AsyncGenerator[FollowedEvent]) -> None:
        super().__init__((), media_type="text/event-stream", headers=_HEADERS)
        self._call = call
        self._first = first
        self._events = events
        self._sending = asyncio.Lock()
        """Held while something is sent: what compresses it takes one thing after the other."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        ends = stream_ends_of(scope)
        over = ends.begin()
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        left = asyncio.create_task(_until_left(receive), name="client-leaving")
        handing_on = asyncio.create_task(self._hand_on(send), name="events")
        try:
            last = await self._watch(send, handing_on, left, over)
            if last is not None:
                async with self._sending:
                    await cancel_and_wait(handing_on)
                    await send({"type": "http.response.body", "body": last})
        finally:
            ends.forget(over)
            await cancel_and_wait(handing_on, left)
            await _abandon(self._first, self._events)

    async def _watch(
        self, send: Send, handing_on: asyncio.Task[None], left: asyncio.Task[None], over: asyncio.Future[None]
    ) -> bytes | None:
        """Wait for the end, and return what is sent last; None if nobody is there to read it."""
        try:
            while not await _any_done(handing_on, left, over):
                await reauthenticate(self._call, self._call.caller)
                if not self._sending.locked():  # Else the client shows by reading that it is there, or does not.
                    await self._send(send, _HEARTBEAT)
            if left.done():
                return None
            if not handing_on.done():
                return _reconnect()
            handing_on.result()
        except DataLayerError as error:
            problem = problem_of(self._call.scope, error)
            return b"event: problem\ndata: " + problem.model_dump_json(exclude_none=True).encode() + b"\n\n"
        return b""

    async def _hand_on(self, send: Send) -> None:
        await self._send(send, _RETRY)
        try:
            event = await self._first
        except StopAsyncIteration:
            return
        await self._send(send, _encode(event))
        async for event in self._events:
            await self._send(send, _encode(event))

    async def _send(self, send: Send, content: bytes) -> None:
        async with self._sending:
            await send({"type": "http.response.body", "body": content, "more_body": True})


async def _until_left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _any_done(*waited_for: asyncio.Future[None]) -> bool:
    """Wait for one of them, or until it is time for a heartbeat."""
    done, _ = await asyncio.wait(waited_for, timeout=HEARTBEAT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
    return bool(done)


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
