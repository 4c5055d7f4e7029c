"""Lists that come in pages."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Generic, TypeVar

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
