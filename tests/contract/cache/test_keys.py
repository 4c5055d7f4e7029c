from __future__ import annotations

import asyncio
import math
from contextlib import ExitStack
from typing import Any

import pytest

from data_layer.cache import Cache
from data_layer.errors import (
    InvalidCacheKeyError,
    InvalidCacheValueError,
)

from .helpers import Backend, all_keys, listening

STRANGE_KEYS = [" ", "a b", "a\nb\r\n", "\x00", "é", "😀", "*", "?", "[a-z]", "\\", "{tag}", "a:b", ":", "k" * 512]


BAD_KEYS: list[Any] = ["", "k" * 513, "é" * 257, "\ud800", None, 1, b"key"]
PATTERNS: dict[str, set[str]] = {
    "*": {"user:1", "user:2", "user:10", "page"},
    "user:*": {"user:1", "user:2", "user:10"},
    "user:?": {"user:1", "user:2"},
    "user:[2-9]": {"user:2"},
    "page": {"page"},
    r"user:\*": set(),
    "app:*": set(),
    "[": set(),
}


class TestKeys:
    async def test_strange_keys_are_literal(self, cache: Cache) -> None:
        for number, key in enumerate(STRANGE_KEYS):
            await cache.set(key, number, 60)
        assert await cache.get_many(STRANGE_KEYS) == {key: number for number, key in enumerate(STRANGE_KEYS)}
        assert await all_keys(cache) == sorted(STRANGE_KEYS)
        assert await cache.delete("*")
        assert len(await all_keys(cache)) == len(STRANGE_KEYS) - 1

    async def test_bad_keys_are_refused(self, cache: Cache) -> None:
        for key in BAD_KEYS:
            attempts = [
                cache.get(key),
                cache.set(key, 1, 60),
                cache.add(key, 1, 60),
                cache.delete(key),
                cache.exists(key),
                cache.expire(key, 60),
                cache.ttl(key),
                cache.increment(key, ttl=60),
                cache.get_many([key]),
                cache.set_many({key: 1}, 60),
                cache.delete_many([key]),
                cache.get_session(key),
                anext(cache.keys(key)),
            ]
            for attempt in attempts:
                with pytest.raises(InvalidCacheKeyError):
                    await attempt

    async def test_patterns(self, cache: Cache) -> None:
        await cache.set_many(dict.fromkeys(["user:1", "user:2", "user:10", "page"], 1), 60)
        for pattern, expected in PATTERNS.items():
            assert set(await all_keys(cache, pattern)) == expected

    async def test_all_of_many_keys_are_found(self, cache: Cache) -> None:
        await cache.set_many({f"key-{number}": number for number in range(2500)}, 60)
        assert len(await all_keys(cache)) == 2500

    async def test_another_programs_key_that_is_no_text_is_left_out(self, cache: Cache, backend: Backend) -> None:
        await cache.client.set(f"{backend.prefix}:".encode() + b"\xff", "1")
        assert await all_keys(cache) == []


class TestApplicationsThatShareAServer:
    async def test_none_sees_or_flushes_the_keys_of_another(self, cache: Cache, backend: Backend) -> None:
        prefix = backend.prefix
        foreign = [prefix, f"{prefix}2", f"{prefix[0]}:{prefix[1:]}:1", f"x{prefix}:1", f"other:{prefix}:1"]
        for key in foreign:
            await cache.client.set(key, "1")
        neighbours = [
            prefix[:-1],
            f"{prefix}l",
            f"{prefix}2",
            prefix.upper(),
            f"{prefix}.",
            f".{prefix}",
            f"{prefix}-b",
        ]
        caches = {neighbour: backend.cache(neighbour) for neighbour in neighbours}
        for neighbour, other in caches.items():
            async with other:
                await other.set("key", neighbour, 60)
                await other.set_session("token", neighbour, 60)
        await cache.set("key", prefix, 60)
        assert await all_keys(cache) == ["key"]
        assert await cache.get("key") == prefix
        assert await cache.get_session("token") is None
        assert await cache.flush() == 1
        for key in foreign:
            assert await cache.client.delete(key) == 1
        for neighbour, other in caches.items():
            async with other:
                assert await other.get("key") == neighbour
                assert await other.get_session("token") == neighbour

    async def test_flush_removes_all_that_is_ours(self, cache: Cache) -> None:
        await cache.set_many({f"key-{number}": number for number in range(1500)}, 60)
        await cache.set_session("token", 1, 60)
        assert await cache.flush() == 1501
        assert await cache.flush() == 0
        assert await all_keys(cache) == []


class TestSessions:
    async def test_its_life(self, cache: Cache) -> None:
        await cache.set_session("token", {"user_id": "user-123"}, 60)
        assert await cache.get_session("token") == {"user_id": "user-123"}
        assert await cache.get_session("token", dict[str, str]) == {"user_id": "user-123"}
        assert await cache.delete_session("token")
        assert not await cache.delete_session("token")
        assert await cache.get_session("token") is None

    async def test_it_ends_unless_it_is_extended(self, cache: Cache) -> None:
        await cache.set_session("kept", 1, 2)
        await cache.set_session("left", 2, 0.3)
        assert await cache.extend_session("kept", 60)
        async with asyncio.timeout(20):
            while await cache.get_session("left") is not None:
                await asyncio.sleep(0.02)
        assert await cache.get_session("kept") == 1
        assert await cache.get_session("left") is None
        assert not await cache.extend_session("left", 60)

    async def test_the_server_never_sees_the_id(self, cache: Cache, backend: Backend) -> None:
        with ExitStack() as stack:
            heard = [stack.enter_context(listening(server)) for server in backend.target.servers()]
            await cache.set_session("secret-token", {"a": 1}, 60)
            await cache.get_session("secret-token")
            await cache.extend_session("secret-token", 60)
            await cache.delete_session("secret-token")
            seen = [command for hear in heard for command in hear()]
        assert "secret-token" not in str(seen)
        assert sum(f"{backend.prefix}:session:" in command for command in seen) >= 4

    async def test_a_message_never_shows_the_id(self, cache: Cache) -> None:
        with pytest.raises(InvalidCacheKeyError) as failure:
            await cache.get_session("secret-token" * 100)
        assert "secret" not in str(failure.value)
        with pytest.raises(InvalidCacheValueError, match="a session") as refusal:
            await cache.set_session("secret-token", math.nan, 60)
        assert "secret" not in str(refusal.value)

    async def test_an_id_is_not_a_key(self, cache: Cache) -> None:
        await cache.set_session("token", 1, 60)
        assert await cache.get("token") is None
        assert await cache.get("session:token") is None
