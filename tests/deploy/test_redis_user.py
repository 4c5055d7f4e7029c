"""The user for Redis in deploy/README.md: enough for the whole cache, and nothing beyond its keys."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import redis
from pydantic import SecretStr

from data_layer import Settings
from data_layer.cache import Cache

from .support import DEPLOY


@pytest.fixture
def server(migrated: Settings) -> Iterator[redis.Redis]:
    address: SecretStr | None = migrated.redis.redis_url
    assert address
    with redis.Redis.from_url(address.get_secret_value(), protocol=3) as client:
        yield client
        client.acl_deluser("data-layer")


async def test_the_cache_works_with_the_rights_of_the_readme(server: redis.Redis, migrated: Settings) -> None:
    [line] = re.findall(r"^ACL SETUSER .*$", (DEPLOY / "README.md").read_text(), re.MULTILINE)
    server.execute_command(*line.replace("stc", "test-user").split())  # type: ignore[no-untyped-call]  # redis-py has no types here.
    settings = migrated.replaced(redis_username="data-layer", redis_password="PASSWORD", redis_key_prefix="test-user")
    path = server.connection_pool.connection_kwargs["path"]
    async with Cache(settings.redis, f"unix://data-layer:PASSWORD@{path}") as cache:
        await cache.check()

        async def load() -> str:
            return "loaded"

        assert await cache.get_or_load("loaded", load, ttl=60) == "loaded"
        await cache.set("key", {"name": "Ada"}, ttl=60)
        assert await cache.get("key") == {"name": "Ada"}
        await cache.set_session("a" * 64, {"user": 1}, ttl=60)
        assert await cache.get_session("a" * 64) == {"user": 1}
        async with cache.lock("work"):
            pass
        assert (await cache.stats()).keys >= 2
        assert await cache.flush() >= 2
        assert await cache.get("key") is None
    with redis.Redis(unix_socket_path=path, username="data-layer", password="PASSWORD", protocol=3) as stranger:
        for forbidden in (
            ["SET", "other:key", "1"],
            ["FLUSHALL"],
            ["CONFIG", "GET", "*"],
            ["SHUTDOWN"],
            ["ACL", "LIST"],
        ):
            with pytest.raises(redis.exceptions.NoPermissionError):
                stranger.execute_command(*forbidden)
