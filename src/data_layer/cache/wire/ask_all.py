"""Asks several servers the same at once."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

from data_layer.errors import CacheError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Iterable
    from typing import Any

Answer = TypeVar("Answer")


@asynccontextmanager
async def ask_all(
    questions: Iterable[Coroutine[Any, Any, Answer]],
) -> AsyncIterator[AsyncIterator[Answer | CacheError]]:
    """The answers and errors as they come; questions that are still open at the end of the block are dropped."""
    tasks = [asyncio.create_task(question) for question in questions]

    async def answers() -> AsyncIterator[Answer | CacheError]:
        for task in asyncio.as_completed(tasks):
            try:
                yield await task
            except CacheError as error:
                yield error

    try:
        yield answers()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
