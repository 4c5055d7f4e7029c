from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from data_layer.cache import Cache
from data_layer.config import Settings
from data_layer.testing.redis_server import RedisServer

CacheAt = Callable[..., AbstractAsyncContextManager[Cache]]


@pytest.fixture(params=[True, False], ids=["socket", "port"])
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """A server of the test's own, to be broken."""
    with RedisServer(unix_socket=request.param) as started:
        yield started


@pytest.fixture(scope="module")
def shared_server() -> Iterator[RedisServer]:
    """A server that the tests of a module share and leave as it is."""
    with RedisServer(unix_socket=True) as started:
        yield started


@pytest.fixture
async def cache(shared_server: RedisServer, cache_at: CacheAt) -> AsyncIterator[Cache]:
    """An empty cache on the shared server."""
    async with cache_at(shared_server.url) as opened:
        await opened.client.flushall()
        yield opened


@pytest.fixture
async def other(shared_server: RedisServer, cache_at: CacheAt) -> AsyncIterator[Cache]:
    """What another process would have."""
    async with cache_at(shared_server.url) as opened:
        yield opened


@pytest.fixture
def cache_at() -> CacheAt:
    """An open cache; the time limits, in milliseconds, leave room for a busy machine."""

    @asynccontextmanager
    async def open_cache(
        url: str, *, connect: int = 2000, command: int = 2000, **settings: Any
    ) -> AsyncIterator[Cache]:
        limits: dict[str, Any] = {"redis_connect_timeout": connect, "redis_command_timeout": command}
        async with Cache(Settings(**limits, **settings).redis, url) as cache:
            yield cache

    return open_cache


class Listener:
    """Something on a port that answers every connection with the same bytes, whatever is asked."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self.received = b""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                self.received += data
                writer.write(self._answer)
                await writer.drain()
        finally:
            writer.close()
