"""Server-sent events (WHATWG HTML, 9.2) of a generation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from time import monotonic

import orjson
from fastapi import Response
from starlette.types import Receive, Scope, Send

from data_layer.api.routes import Call
from data_layer.concurrency import jittered
from data_layer.context import current_context, resume_request_context
from data_layer.errors import DataLayerError
from data_layer.schemas.generation_stream import CodePatch, CodeState, FollowedEvent, StreamedEvent, VariantEnded
from data_layer.web.authentication import reauthenticate
from data_layer.web.errors import problem_of
from data_layer.web.streams import ENDS, ON_LEAVING, Leaving, go_on, stream_ends_of

HEARTBEAT_SECONDS = 15.0
_RETRY = b"retry: 1000\n\n"
"""Milliseconds after which a client connects again that was cut off; browsers wait for three seconds otherwise."""
_RECONNECT_MILLISECONDS = 400
_NAMES = {CodeState: b"code", CodePatch: b"patch", StreamedEvent: b"event", VariantEnded: b"end"}
_HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}  # nginx would hold events back.
_NEEDED = frozenset({"type", "app", "method", "path", "headers", "request_id", "caller", ENDS, ON_LEAVING})
"""What is kept of the scope of a request; the rest of it holds half of the framework."""

Events = AsyncGenerator[FollowedEvent | None]
"""What happens, and None where nothing has happened for ``HEARTBEAT_SECONDS``."""


async def event_stream(call: Call, events: Events) -> Response:
    """Answer with events, as soon as it is known that the caller may have them.

    A failure at the beginning is an ordinary answer. Without any event the answer is 204, at which browsers do not
    connect again.

    Args:
        call: the request. Its session is validated again every fifteen seconds.
        events: closed when the stream ends, also because the client has gone.
    """
    try:
        first = await anext(events)
    except StopAsyncIteration:
        return Response(status_code=204)
    return _EventStream(call, first, events)


class _EventStream(Response):
    """Sends the head, and leaves the rest to a ``_Stream``."""

    def __init__(self, call: Call, first: FollowedEvent | None, events: Events) -> None:
        super().__init__(media_type="text/event-stream", headers=_HEADERS)
        del self.headers["content-length"]  # Nobody knows it.
        self._call = call
        self._first = first
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        stream = _Stream(self._call, receive, send, self._first, self._events)
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            if scope["method"] == "HEAD":
                await self._events.aclose()
                await send({"type": "http.response.body", "body": b""})
            else:
                await go_on(scope, stream.run)
        except BaseException:
            await self._events.aclose()
            raise


class _Stream:
    """Hands events on in the task of the request, and makes nothing else for a client that waits.

    The end of the process and the leaving of the client cancel that task while it waits for an event. While it sends,
    it is not interrupted, because that would spoil what compresses the stream: it notices afterwards.
    """

    __slots__ = ("_call", "_context", "_events", "_first", "_is_waiting", "_last", "_receive", "_send", "_task")

    def __init__(self, call: Call, receive: Receive, send: Send, first: FollowedEvent | None, events: Events) -> None:
        self._call = Call({name: value for name, value in call.scope.items() if name in _NEEDED})
        self._context = current_context()
        self._receive = receive
        self._send = send
        self._first = _encoded(first)
        self._events = events
        self._task: asyncio.Task[object] | None = None
        self._is_waiting = False
        self._last: bytes | None = None
        """What is sent last, once it is known."""

    async def run(self) -> None:
        resume_request_context(self._context)
        self._task = asyncio.current_task()
        ends = stream_ends_of(self._call.scope)
        try:
            with Leaving(self._call.scope, self._receive, self._leave):
                ends.begin(self)
                last = await self._hand_on()
                await self._send({"type": "http.response.body", "body": last})
        finally:
            ends.forget(self)
            await self._events.aclose()

    def end(self) -> None:
        """Have the client connect again soon, and not all clients at once."""
        pause = int(jittered(_RECONNECT_MILLISECONDS, low=0.1))
        self._stop(b"retry: %d\nevent: reconnect\ndata: {}\n\n" % pause)

    def _leave(self) -> None:
        self._stop(b"")

    def _stop(self, last: bytes) -> None:
        if not self._is_over:
            self._last = last
            if self._is_waiting and self._task is not None:
                self._task.cancel()

    async def _hand_on(self) -> bytes:
        """Send what happens until it ends, and return what is to be sent last."""
        try:
            await self._hand_all_on()
        except asyncio.CancelledError:
            if self._last is None or self._task is None or self._task.uncancel() > 0:
                raise
        except DataLayerError as error:
            problem = problem_of(self._call.scope, error)
            self._last = b"event: problem\ndata: " + problem.model_dump_json(exclude_none=True).encode() + b"\n\n"
        if self._last is None:
            self._last = b""
        return self._last

    @property
    def _is_over(self) -> bool:
        return self._last is not None

    async def _hand_all_on(self) -> None:
        if not self._is_over:
            await self._say(_RETRY + self._first)
        self._first = b""  # It may have the whole code.
        due = monotonic() + HEARTBEAT_SECONDS
        while not self._is_over:
            if not await self._say_next():
                return
            if monotonic() >= due and not self._is_over:
                await self._reauthenticate()
                due = monotonic() + HEARTBEAT_SECONDS

    async def _say_next(self) -> bool:
        """Wait for an event and send it; False if there are no more."""
        self._is_waiting = True
        try:
            content = _encoded(await anext(self._events))
        except StopAsyncIteration:
            return False
        finally:
            self._is_waiting = False
        await self._say(content)
        return True

    async def _reauthenticate(self) -> None:
        self._is_waiting = True
        try:
            await reauthenticate(self._call, self._call.caller)
        finally:
            self._is_waiting = False

    async def _say(self, content: bytes) -> None:
        await self._send({"type": "http.response.body", "body": content, "more_body": True})


def _encoded(event: FollowedEvent | None) -> bytes:
    """One event, of which JSON has no line breaks; or a comment that shows that the connection still works."""
    if event is None:
        return b": still here\n\n"
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (event.position.encode(), _NAMES[type(event)], orjson.dumps(event))
