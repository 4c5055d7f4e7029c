"""What the tests of the contract share: values, models, and a way to a cache."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, Field

from data_layer.cache import Cache
from data_layer.config import Settings
from data_layer.testing.redis_server import RedisServer


@dataclass(frozen=True)
class Target:
    """Servers that run: how they are reached, by settings alone or by an address handed over, and who holds data."""

    settings: dict[str, Any]
    servers: Callable[[], Sequence[RedisServer]]
    url: str | None = None


@dataclass(frozen=True)
class Backend:
    """Servers, and a prefix that no other test has."""

    target: Target
    prefix: str

    def cache(self, prefix: str | None = None, **options: Any) -> Cache:
        # Long, because what is tested here is not speed, and the machine may be busy.
        limits: dict[str, Any] = {"redis_command_timeout": 10_000, "redis_connect_timeout": 20_000}
        settings = Settings(redis_key_prefix=prefix or self.prefix, **limits, **self.target.settings)
        return Cache(settings.redis, self.target.url, **options)


@contextmanager
def listening(server: RedisServer) -> Iterator[Callable[[], list[str]]]:
    """A function that gives what the server was told since the beginning of the block."""
    with server._client(10) as client, client.monitor() as monitor:

        def hear() -> list[str]:
            server.execute("ECHO", "enough")
            commands = iter(lambda: str(monitor.next_command()["command"]), "ECHO enough")
            return list(commands)

        yield hear


async def all_keys(cache: Cache, pattern: str = "*") -> list[str]:
    """Sorted, and each once: SCAN may find one twice."""
    return sorted({key async for key in cache.keys(pattern)})


async def gone(cache: Cache, key: str) -> None:
    """Wait until a key has ended, for the near copy and for the server."""
    async with asyncio.timeout(20):
        while await cache.get(key) is not None or await cache.exists(key):
            await asyncio.sleep(0.02)


class Owner(BaseModel):
    name: str = Field(alias="ownerName")
    joined: datetime


class Project(BaseModel):
    id: uuid.UUID
    owner: Owner
    tags: set[str] = set()


def a_project() -> Project:
    owner = Owner(ownerName="Zoë", joined=datetime(2026, 11, 22, 12, tzinfo=UTC))
    return Project(id=uuid.uuid4(), owner=owner, tags={"a", "b"})


VALUES = [
    {"name": "John", "nested": [{"a": None}, [True, False], "é\u0000\n😀"], "": 1.5},
    [],
    {},
    "",
    "12",
    "text",
    b"",
    b"\x00\xff\xc1",
    b"12",
    0,
    -7,
    2**63 - 1,
    -(2**63),
    2**64 - 1,
    1e300,
    -0.5,
    True,
    False,
    "x" * 100_000,
    b"x" * 100_000,
    random.Random(7).randbytes(100_000),
]
