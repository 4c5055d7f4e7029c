"""What comes piece by piece: files, exports, and lists in pages."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Generic, Self, TypeVar
from urllib.parse import quote

import httpx

from data_layer.client.transport import Call, Transport
from data_layer.errors import ServiceUnreachableError

_NO_PART = frozenset({"", ".", ".."})


class Download:
    """Something to download: ``async with``, then read it; or `read` and `save` at once.

    Args:
        transport: asks for it when it is entered.
        call: the request.
    """

    def __init__(self, transport: Transport, call: Call) -> None:
        self._transport = transport
        self._call = call
        self._opening: AbstractAsyncContextManager[httpx.Response] | None = None
        self._response: httpx.Response | None = None

    async def __aenter__(self) -> Self:
        self._opening = self._transport.stream(self._call)
        self._response = await self._opening.__aenter__()
        return self

    async def __aexit__(self, *failure: object) -> None:
        if self._opening is not None:
            await self._opening.__aexit__(None, None, None)

    @property
    def headers(self) -> httpx.Headers:
        """What the service says of it; within ``async with``."""
        return self._opened.headers

    @property
    def _opened(self) -> httpx.Response:
        if self._response is None:
            raise RuntimeError("open the download first: async with … as download")
        return self._response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self._opened.aiter_bytes():
                yield piece
        except httpx.TransportError as error:
            reason = str(error) or type(error).__name__
            raise ServiceUnreachableError(f"{self._call.path} broke off: {reason}; download it again") from error

    async def read(self) -> bytes:
        """All of it, in memory."""
        async with self:
            return b"".join([piece async for piece in self])

    async def save(self, target: Path) -> None:
        """Write it into a file, which is there when it is complete."""
        partial = target.with_name(f".{target.name}.part")
        async with self:
            with partial.open("wb") as file:
                async for piece in self:
                    file.write(piece)
        partial.replace(target)


def path_value(value: Any) -> str:
    """A value as one part of a path.

    Raises:
        ValueError: it is empty, ``.`` or ``..``, which would lead to another route, however it is quoted.
    """
    text = str(value)
    if text in _NO_PART:
        raise ValueError(f"{text!r} cannot be part of a path; give the identifier of what is meant")
    return quote(text, safe="")


Item = TypeVar("Item")
Page = TypeVar("Page")


class Pages(Generic[Item, Page]):
    """Everything in a list, in pages that are asked for when they are needed.

    ``async for`` gives one thing after the other; `pages` gives the pages, whose ``next`` is where to go on later.

    Args:
        fetch: asks for the page that begins at a cursor, or for the first one.
        items: what is in a page.
    """

    def __init__(self, fetch: Callable[[Any], Awaitable[Page]], items: Callable[[Page], Sequence[Item]]) -> None:
        self._fetch = fetch
        self._items = items

    def __aiter__(self) -> AsyncIterator[Item]:
        return self._each()

    async def pages(self) -> AsyncIterator[Page]:
        """One page after the other."""
        cursor: Any = None
        while True:
            page = await self._fetch(cursor)
            yield page
            cursor = getattr(page, "next", None)
            if cursor is None:
                return

    async def first(self) -> Page:
        """The first page alone."""
        return await self._fetch(None)

    async def all(self) -> Sequence[Item]:
        """Everything at once."""
        return [each async for each in self]

    async def _each(self) -> AsyncIterator[Item]:
        async for page in self.pages():
            for each in self._items(page):
                yield each
