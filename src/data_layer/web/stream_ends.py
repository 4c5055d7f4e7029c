"""How answers without an end learn that their process ends, so that their clients go elsewhere at once.

The process puts one ``StreamEnds`` into the scope of each request. A stream that is over says so to its client in its
own protocol; the client connects again, reaches a process that stays, and continues where it was.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from starlette.types import Scope

SCOPE_KEY = "data_layer.stream_ends"


class StreamEnds:
    """The streams of a process, and whether they are to end."""

    def __init__(self) -> None:
        self._is_over = False
        self._streams: set[asyncio.Future[None]] = set()

    def __len__(self) -> int:
        return len(self._streams)

    def end(self) -> None:
        """Have all streams end, and those that begin later."""
        self._is_over = True
        for stream in self._streams:
            if not stream.done():
                stream.set_result(None)

    def begin(self) -> asyncio.Future[None]:
        """Count a stream; the future is done when it is to end."""
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._is_over:
            over.set_result(None)
        self._streams.add(over)
        return over

    def forget(self, over: asyncio.Future[None]) -> None:
        """Take note that a stream has ended."""
        self._streams.discard(over)


def stream_ends_of(scope: Scope) -> StreamEnds:
    """What ends the streams of the process that a request has reached; nothing, where nobody said so."""
    ends: Any = scope.get(SCOPE_KEY)
    return ends if isinstance(ends, StreamEnds) else StreamEnds()
