"""Who is measured by ``benchmarks/cache.py``: this library and its peers, each in its own usual way."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import coredis
import glide
import orjson
import redis.asyncio
from cashews import Cache as Cashews
from coredis.patterns.cache import LRUCache
from node_loop import NodeLoop, node_loop

from data_layer.cache import Cache
from data_layer.config import Settings
from data_layer.settings.redis import RedisSettings

Operation = Callable[[], Awaitable[Any]]

KEYS = 1000
HOT_KEYS = 100
MANY = 100
VALUE = {"id": "0192f3a4-5b6c-7d8e-9fa0-b1c2d3e4f506", "name": "Project", "text": "x" * 900, "tags": ["a", "b"]}
STORED = orjson.dumps(VALUE)
LIVES_SECONDS = 600
PREFIX = "bench"


async def until_near_copy_answers(cache: Cache) -> None:
    while not cache.process_stats().near.is_answering:  # noqa: ASYNC110  (no event tells)
        await asyncio.sleep(0.01)


class Turns:
    """The next key, again and again."""

    def __init__(self, prefix: str = "", count: int = KEYS) -> None:
        self._names = itertools.cycle([f"{prefix}key-{number}" for number in range(count)])

    def next(self) -> str:
        return next(self._names)


def settings_for(port: int, **values: Any) -> RedisSettings:
    return Settings(redis_host="127.0.0.1", redis_port=port, redis_key_prefix=PREFIX, **values).redis


class Peer:
    """One candidate: a name, and rates of what it can do."""

    def __init__(self, name: str, **operations: Operation) -> None:
        self.name = name
        self.operations = operations

    async def rate(self, verb: str, workers: int, seconds: float) -> float:
        """How often per second the operation is done."""
        operation = self.operations[verb]
        loop = asyncio.get_running_loop()
        started = loop.time()
        end = started + seconds
        done = 0

        async def work() -> None:
            nonlocal done
            while loop.time() < end:
                await operation()
                done += 1

        await asyncio.gather(*(work() for _ in range(workers)))
        return done / (loop.time() - started)


class NodePeer(Peer):
    """node-redis, with JSON or moving bytes."""

    def __init__(self, loop: NodeLoop, *, with_json: bool = False) -> None:
        super().__init__("node-redis, JSON" if with_json else "node-redis, bytes")
        self._loop = loop
        self._suffix = "_json" if with_json else ""

    async def rate(self, verb: str, workers: int, seconds: float) -> float:
        return (await self._loop.measure(verb=verb + self._suffix, workers=workers, seconds=seconds)).rate


@asynccontextmanager
async def ours(port: int, *, near: bool) -> AsyncIterator[list[Peer]]:
    size = {} if near else {"redis_near_size": 0}
    async with Cache(settings_for(port, **size)) as cache:
        await cache.set_many({f"key-{number}": VALUE for number in range(KEYS)}, LIVES_SECONDS)
        turns, hot = Turns(), Turns(count=HOT_KEYS)
        many = [f"key-{number}" for number in range(MANY)]
        with_json = Peer(
            "data layer",
            get=lambda: cache.get(turns.next()),
            set=lambda: cache.set(turns.next(), VALUE, LIVES_SECONDS),
            hot=lambda: cache.get(hot.next()),
            many=lambda: cache.get_many(many),
        )
        await cache.set_many({f"bytes-key-{number}": STORED for number in range(KEYS)}, LIVES_SECONDS)
        moved = Turns("bytes-")
        with_bytes = Peer(
            "data layer, bytes",
            get=lambda: cache.get(moved.next()),
            set=lambda: cache.set(moved.next(), STORED, LIVES_SECONDS),
        )
        yield [with_json, with_bytes]


@asynccontextmanager
async def redis_py(port: int) -> AsyncIterator[Peer]:
    pool = redis.asyncio.BlockingConnectionPool(host="127.0.0.1", port=port, protocol=3, max_connections=32)
    async with redis.asyncio.Redis.from_pool(pool) as client:
        turns, hot = Turns(f"{PREFIX}:plain-"), Turns(f"{PREFIX}:plain-", HOT_KEYS)
        for _ in range(KEYS):
            await client.set(turns.next(), STORED, px=LIVES_SECONDS * 1000)
        many = [f"{PREFIX}:plain-key-{number}" for number in range(MANY)]

        async def get_many() -> dict[str, Any]:
            found = await client.mget(many)
            return {key: orjson.loads(stored) for key, stored in zip(many, found, strict=True) if stored is not None}

        yield Peer(
            "redis-py",
            get=lambda: client.get(turns.next()),
            set=lambda: client.set(turns.next(), STORED, px=LIVES_SECONDS * 1000),
            hot=lambda: client.get(hot.next()),
            many=get_many,
        )


@asynccontextmanager
async def valkey_glide(port: int) -> AsyncIterator[Peer]:
    address = glide.NodeAddress("127.0.0.1", port)
    client = await glide.GlideClient.create(glide.GlideClientConfiguration([address], request_timeout=10_000))
    turns = Turns(f"{PREFIX}:plain-")
    life = glide.ExpirySet(glide.ExpiryType.MILLSEC, LIVES_SECONDS * 1000)
    try:
        yield Peer(
            "valkey-glide",
            get=lambda: client.get(turns.next()),
            set=lambda: client.set(turns.next(), STORED, expiry=life),
        )
    finally:
        await client.close()


@asynccontextmanager
async def coredis_with_tracking(port: int) -> AsyncIterator[Peer]:
    client = coredis.Redis("127.0.0.1", port, cache=LRUCache(max_keys=100_000))
    async with client:
        hot = Turns(f"{PREFIX}:plain-", HOT_KEYS)
        yield Peer("coredis, tracking cache", hot=lambda: client.get(hot.next()))


@asynccontextmanager
async def cashews_client_side(port: int) -> AsyncIterator[list[Peer]]:
    cache = Cashews()
    cache.setup(f"redis://127.0.0.1:{port}", client_side=True)
    await cache.init()
    try:
        for number in range(HOT_KEYS):
            await cache.set(f"key-{number}", VALUE, expire=LIVES_SECONDS)

        async def value_of(number: int) -> Any:  # noqa: ARG001  (the key is made of it)
            return VALUE

        # Not written as a decorator: where cashews is not installed, mypy would find it to be one without types.
        load = cache(ttl=LIVES_SECONDS, key="decorated:{number}")(value_of)
        hot, numbers = Turns(count=HOT_KEYS), itertools.cycle(range(HOT_KEYS))
        many = [f"key-{number}" for number in range(MANY)]
        yield [
            Peer("cashews, client side", hot=lambda: cache.get(hot.next()), many=lambda: cache.get_many(*many)),
            Peer("cashews, decorator", hot=lambda: load(next(numbers))),
        ]
    finally:
        await cache.close()


@asynccontextmanager
async def node_redis(port: int, folder: Path) -> AsyncIterator[list[Peer]]:
    arguments = f"redis://127.0.0.1:{port}", str(KEYS), STORED.decode()
    async with node_loop(folder, "redis_loop.mjs", *arguments) as loop:
        yield [NodePeer(loop, with_json=True), NodePeer(loop)]


@asynccontextmanager
async def far_peers(port: int, folder: Path) -> AsyncIterator[list[Peer]]:
    """Everybody without a copy in the process."""
    async with AsyncExitStack() as stack:
        with_json, with_bytes = await stack.enter_async_context(ours(port, near=False))
        others = [await stack.enter_async_context(opener) for opener in (redis_py(port), valkey_glide(port))]
        yield [with_json, with_bytes, *others, *await stack.enter_async_context(node_redis(port, folder))]


@asynccontextmanager
async def near_peers(port: int) -> AsyncIterator[list[Peer]]:
    """Everybody with a copy in the process, and redis-py."""
    async with AsyncExitStack() as stack:
        with_json, _ = await stack.enter_async_context(ours(port, near=True))
        others = [await stack.enter_async_context(opener) for opener in (redis_py(port), coredis_with_tracking(port))]
        yield [with_json, *others, *await stack.enter_async_context(cashews_client_side(port))]
