"""Walking through the files of an object store in the order of their keys."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import obstore

from data_layer.storage.keys import is_key
from data_layer.storage.object_store.failures import translated_for_operators
from data_layer.storage.port import ListedFile, StorageStatistics

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from obstore.store import ObjectStore

STAGING = ".storage"
"""Begins what is our own in a bucket: no key can begin with a dot."""

_LISTED_AT_ONCE = 500


async def walk(store: ObjectStore, folders: Sequence[str] = (), beginning: str = "") -> AsyncGenerator[ListedFile]:
    """The files below some folders whose next segment has this beginning. What no key can name is left out."""
    folder = "/".join(folders)
    prefix = f"{folder}/{beginning}" if folders else beginning
    with translated_for_operators(f"list {prefix!r}"):
        pages = obstore.list(store, folder or None, offset=_just_before(prefix, beginning), chunk_size=_LISTED_AT_ONCE)
        async for page in pages:
            for found in page:
                key = found["path"]
                if key.startswith(prefix) and is_key(key):
                    # Whole seconds, as `stat` tells them: some servers keep more for listings.
                    stored = found["last_modified"].astimezone(UTC).replace(microsecond=0)
                    yield ListedFile(key, found["size"], stored)
            if page and _is_past(page[-1]["path"], prefix):
                return


async def measure(store: ObjectStore) -> StorageStatistics:
    """Count the files and their bytes."""
    count = size = 0
    async for file in walk(store):
        count += 1
        size += file.size
    return StorageStatistics(count, size, None)


async def remove_staging(store: ObjectStore, older_than: timedelta) -> int:
    """Remove what is our own and was left behind; returns how many."""
    limit = datetime.now(UTC) - older_than
    removed = 0
    with translated_for_operators("remove what was left behind"):
        async for page in obstore.list(store, STAGING, chunk_size=_LISTED_AT_ONCE):
            for found in page:
                if found["last_modified"] <= limit:
                    await obstore.delete_async(store, found["path"])
                    removed += 1
    return removed


def _just_before(prefix: str, beginning: str) -> str | None:
    """A text that sorts before all keys with this prefix, and after most others.

    Servers list by whole folders, and can begin in the middle of one.
    """
    return prefix[:-1] or None if beginning else None


def _is_past(key: str, prefix: str) -> bool:
    return not key.startswith(prefix) and key.encode() > prefix.encode()
