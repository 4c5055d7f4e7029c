"""Short forms for what the tests of the contract do all the time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from data_layer.storage import StorageBackend

CHANCE = random.Random(1)
MEBIBYTE = 1024 * 1024
Opened = Callable[..., AbstractAsyncContextManager[StorageBackend]]


async def stream(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        await asyncio.sleep(0)
        yield chunk


async def keys(storage: StorageBackend, prefix: str = "") -> list[str]:
    return [file.key async for file in storage.list(prefix)]


async def read(storage: StorageBackend, key: str, **limits: Any) -> bytes:
    async with storage.open(key, **limits) as file:
        return b"".join([chunk async for chunk in file.chunks])
