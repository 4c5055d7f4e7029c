"""Between a page and the application: messages pass at once in both directions, and are heard in passing.

| it ends by | the application | its variants |
| --- | --- | --- |
| the application closes, or returns | has ended | as it said; what it said nothing of has failed |
| the person cancels (4333) | its task is cancelled | cancelled, with the code so far |
| the connection is lost | runs on, and what it sends is heard by the recorder alone | as it says |
| the process ends in order | its task is cancelled | failed, with the code so far |
| the process is killed | is gone | failed by the end of their leases, with the code of the last checkpoint |

A failed send may be seen before the close code, so only what is received decides how a connection has ended.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from data_layer.concurrency import cancel_and_wait, ignore_error
from data_layer.recorder.protocol import CANCELLED
from data_layer.recorder.recorder import Recorder
from data_layer.recorder.tape import Tape
from data_layer.schemas.actors import Actor

_MOST_UNREAD = 16
"""Messages of a page that the application has not read: it reads one."""
_POLICY_VIOLATION = 1008


class RecordedConnection:
    """One WebSocket of a page.

    Args:
        recorder: records it.
        application: what answers.
        scope: of the connection.
        receive: from the page.
        send: to the page.
    """

    def __init__(self, recorder: Recorder, application: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        self._recorder = recorder
        self._application = application
        self._scope = scope
        self._receive = receive
        self._send = send
        self._tape = Tape()
        self._incoming: asyncio.Queue[Message] = asyncio.Queue()
        self._is_open = True
        self._is_closed_by_application = False

    async def run(self, actor: Actor) -> None:
        """Return when the connection has ended; the application may run on."""
        running = self._recorder.begin(
            actor, self._tape, lambda: self._application(self._scope, self._next_message, self._pass_on)
        )
        pump = asyncio.create_task(self._pump(running), name="websocket-messages")
        try:
            await asyncio.wait([running, pump], return_when=asyncio.FIRST_COMPLETED)
        finally:
            await cancel_and_wait(pump)
        if running.done() and not running.cancelled() and self._is_open:
            running.result()  # The server closes as it would have without us.
        elif running.done() and self._is_open and not self._is_closed_by_application:
            with suppress(OSError, RuntimeError):  # Somebody cancelled it elsewhere.
                await self._send({"type": "websocket.close", "code": 1000})
        ignore_error(running)

    async def _pump(self, running: asyncio.Task[None]) -> None:
        """Receive what the page sends, also while the application does not read."""
        while True:
            message = await self._receive()
            if message["type"] == "websocket.receive":
                text = message.get("text")
                self._tape.record_request(text if text is not None else message.get("bytes") or b"")
                if self._incoming.qsize() >= _MOST_UNREAD:
                    await self._send({"type": "websocket.close", "code": _POLICY_VIOLATION})
                    continue
            self._incoming.put_nowait(message)
            if message["type"] == "websocket.disconnect":
                self._is_open = False
                if message.get("code") == CANCELLED and not self._is_closed_by_application:
                    self._tape.cancel()
                    running.cancel()
                return

    async def _next_message(self) -> Message:
        return await self._incoming.get()

    async def _pass_on(self, message: Message) -> None:
        if self._is_open:
            try:
                await self._send(message)
            except OSError:
                self._is_open = False  # Why is received in a moment.
            except RuntimeError:
                # So servers refuse what is sent after the page has closed, also before it is received that it has.
                if self._is_closed_by_application:
                    raise
                self._is_open = False
        if message["type"] == "websocket.send":
            text = message.get("text")
            self._tape.record(text if text is not None else message.get("bytes") or b"")
        elif message["type"] == "websocket.close":
            self._is_closed_by_application = True
