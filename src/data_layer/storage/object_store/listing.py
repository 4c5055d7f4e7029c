"""Walking through the files of an object store in the order of their keys."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import obstore
from obstore.store import ObjectStore

from data_layer.storage.keys import is_key
from data_layer.storage.object_store.failures import translated_for_operators
from data_layer.storage.port import ListedFile, StorageStatistics, UnusableKeyHandler, UnusableKeys

T = TypeVar("T")
STAGING = ".storage"
"""Begins what is our own in a bucket: no key can begin with a dot."""

_LISTED_AT_ONCE = 500


Page = Sequence[ListedFile]
FetchPage = Callable[[str, "T | None"], tuple[Page, "T | None"]]


async def walk(
    pages: AsyncGenerator[Page], prefix: str, on_unusable_key: UnusableKeyHandler
) -> AsyncGenerator[ListedFile]:
    """The files of a listing whose keys begin with a prefix. What no key can name goes to ``on_unusable_key``."""
    async with aclosing(pages):
        async for page in pages:
            for found in page:
                if is_key(found.key):
                    if found.key.startswith(prefix):
                        yield found
                elif not found.key.startswith(f"{STAGING}/"):
                    on_unusable_key(found)


async def fetched_pages(fetch: FetchPage[T], prefix: str) -> AsyncGenerator[Page]:
    """Page after page, each fetched in a thread with the mark at which it begins."""
    mark: T | None = None
    while True:
        page, mark = await asyncio.to_thread(fetch, prefix, mark)
        yield page
        if mark is None:
            return


async def obstore_pages(store: ObjectStore, prefix: str) -> AsyncGenerator[Page]:
    """The pages as obstore lists them: without the vendor's library, and with an identity of Azure.

    obstore fails at a key that it cannot name, such as ``a//b``, and takes ``a/`` for ``a``.
    """
    folder, separator, beginning = prefix.rpartition("/")
    with translated_for_operators(f"list {prefix!r}"):
        pages = obstore.list(
            store,
            f"{folder}{separator}" or None,
            offset=_just_before(prefix, beginning),
            chunk_size=_LISTED_AT_ONCE,
        )
        async for page in pages:
            yield [listed_file(found["path"], found["size"], found["last_modified"]) for found in page]
            if page and _is_past(page[-1]["path"], prefix):
                return


def listed_file(key: str, size: int, modified: datetime) -> ListedFile:
    """One entry. Whole seconds, as `stat` reports them: some servers keep more for listings."""
    return ListedFile(key, size, modified.astimezone(UTC).replace(microsecond=0))


async def measure(pages: AsyncGenerator[Page]) -> StorageStatistics:
    """Count the files and their bytes, and the keys that no file of ours can have."""
    count = size = 0
    unusable = UnusableKeys()
    async with aclosing(walk(pages, "", unusable.add)) as files:
        async for file in files:
            count += 1
            size += file.size
    return StorageStatistics(count, size, None, unusable.count, unusable.names)


async def remove_staging(
    pages: AsyncGenerator[Page], remove: Callable[[list[str]], Awaitable[None]], older_than: timedelta
) -> int:
    """Remove what is our own and was left behind; returns how many."""
    limit = datetime.now(UTC) - older_than
    removed = 0
    async with aclosing(pages):
        async for page in pages:
            old = [found.key for found in page if found.created_at <= limit and is_key(found.key.lstrip("."))]
            for key in old:
                await remove([key])
            removed += len(old)
    return removed


def _just_before(prefix: str, beginning: str) -> str | None:
    """A text that sorts before all keys with this prefix, and after most others.

    Servers list by whole folders, and can begin in the middle of one.
    """
    return prefix[:-1] or None if beginning else None


def _is_past(key: str, prefix: str) -> bool:
    return not key.startswith(prefix) and key.encode() > prefix.encode()
