"""What credentials may do with a bucket or container, and what strangers may; tried with a tiny file."""

from __future__ import annotations

import time
from collections.abc import Awaitable
from contextlib import suppress
from dataclasses import dataclass, field
from secrets import token_hex

import obstore
from obstore.exceptions import BaseError
from obstore.store import ObjectStore

from data_layer.errors import StorageError
from data_layer.storage.object_store.adapter import ObjectStorage
from data_layer.storage.object_store.failures import translated_for_operators
from data_layer.storage.object_store.listing import STAGING


@dataclass(slots=True)
class Trial:
    """What came of it.

    Attributes:
        refusals: For each of write, read, list and delete that failed, why.
        strangers_may: What worked without credentials: read, list, or nothing.
        clock_difference: Seconds that the server's clock is ahead of this machine's, if it is known.
        clock_uncertainty: How far that may be off.
        left_behind: The key of the tiny file, if it could not be removed.
    """

    refusals: dict[str, StorageError] = field(default_factory=dict)
    strangers_may: list[str] = field(default_factory=list)
    clock_difference: float | None = None
    clock_uncertainty: float = 0.0
    left_behind: str | None = None


async def find_place(storage: ObjectStorage) -> None:
    """List a file, which shows that the bucket or container exists and that the credentials are known.

    Raises:
        StorageUnavailableError: or the subclass that says why not.
    """
    with translated_for_operators("list its files"):
        await _list(storage.connect())


async def try_rights(storage: ObjectStorage) -> Trial:
    """Write, read, list and delete a tiny file among those that `remove_abandoned_uploads` removes, should it stay."""
    store, trial = storage.connect(), Trial()
    key = f"{STAGING}/doctor-{token_hex(8)}"
    before = time.time()
    if not await _try(trial, "write", obstore.put_async(store, key, key.encode())):
        return trial
    try:
        # Its time is in whole seconds, and cut off.
        after = time.time()
        with suppress(BaseError, FileNotFoundError):
            stored = (await obstore.head_async(store, key))["last_modified"].timestamp() + 0.5
            trial.clock_difference = stored - (before + after) / 2
            trial.clock_uncertainty = 0.5 + (after - before) / 2
        await _try(trial, "read", obstore.get_async(store, key))
        await _try(trial, "list", _list(store))
        trial.strangers_may = await _try_as_stranger(storage.connect(anonymously=True), key)
    finally:
        if not await _try(trial, "delete", storage.remove_objects([key], store)):
            trial.left_behind = key
    return trial


async def _try_as_stranger(store: ObjectStore, key: str) -> list[str]:
    found = []
    for name, attempt in (("read", obstore.get_async(store, key)), ("list", _list(store))):
        with suppress(BaseError, OSError):
            await attempt
            found.append(name)
    return found


async def _try(trial: Trial, name: str, attempt: Awaitable[object]) -> bool:
    try:
        with translated_for_operators(f"{name} a file"):
            await attempt
    except StorageError as error:
        trial.refusals[name] = error
        return False
    return True


async def _list(store: ObjectStore) -> None:
    async for _ in obstore.list(store, STAGING, chunk_size=1):
        break
