"""What answers without an end have from the process that serves them: it ends them, and keeps little for them.

A process has thousands of them at once. Whatever a server puts into the scope of a request is optional: without
``ENDS`` streams do not end with the process, without ``REST`` everything around them waits with them, and without
``ON_LEAVING`` a task waits for the client to leave.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from starlette.types import Receive, Scope

ENDS = "data_layer.stream_ends"
"""A ``StreamEnds``, one for the process."""
REST = "data_layer.rest_of_answer"
"""A list, empty at first. What is put into it is called when the application has returned, and completes the answer."""
ON_LEAVING = "data_layer.on_leaving"
"""Takes what is called once, when the client leaves."""


class Stream(Protocol):
    """An answer without an end."""

    def end(self) -> None:
        """Say to the client that it has to go elsewhere, in the protocol of the stream, and end."""


class StreamEnds:
    """The streams of a process, and whether they are to end.

    The client of a stream that is ended connects again, reaches a process that stays, and continues where it was.
    """

    def __init__(self) -> None:
        self._is_over = False
        self._streams: set[Stream] = set()

    def __len__(self) -> int:
        return len(self._streams)

    def end(self) -> None:
        """Have all streams end, and those that begin later."""
        self._is_over = True
        for stream in list(self._streams):
            stream.end()

    def begin(self, stream: Stream) -> None:
        """Count a stream, which ends at once if it comes too late."""
        self._streams.add(stream)
        if self._is_over:
            stream.end()

    def forget(self, stream: Stream) -> None:
        """Take note that a stream has ended."""
        self._streams.discard(stream)


def stream_ends_of(scope: Scope) -> StreamEnds:
    """What ends the streams of the process that a request has reached; nothing, where nobody said so."""
    ends: Any = scope.get(ENDS)
    return ends if isinstance(ends, StreamEnds) else StreamEnds()


async def go_on(scope: Scope, rest: Callable[[], Awaitable[None]]) -> None:
    """Complete an answer when the application has returned, so that nothing of it waits in memory meanwhile.

    Middleware has written its line and counted the request by then. Context variables have the values from before.
    """
    place: list[Callable[[], Awaitable[None]]] | None = scope.get(REST)
    if place is None:
        await rest()
    else:
        place.append(rest)


class Leaving:
    """Calls something once when the client leaves, inside a ``with`` block.

    Args:
        scope: of the request, the body of which has been read.
        receive: its messages.
        call: what is called.
    """

    __slots__ = ("_task",)

    def __init__(self, scope: Scope, receive: Receive, call: Callable[[], None]) -> None:
        register: Callable[[Callable[[], None]], None] | None = scope.get(ON_LEAVING)
        self._task = None
        if register is not None:
            register(call)
        else:
            self._task = asyncio.create_task(_until_left(receive, call), name="client-leaving")

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()


async def _until_left(receive: Receive, call: Callable[[], None]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    call()
