"""Commands that are sent together, with a result for each."""

from __future__ import annotations

from data_layer.errors import InvalidCacheKeyError, InvalidCacheValueError, InvalidTimeToLiveError
from data_layer.testing.redis_server import RedisServer
from tests.cache.conftest import CacheAt


async def test_results_come_in_order_and_failures_in_their_place(shared_server: RedisServer, cache_at: CacheAt) -> None:
    async with cache_at(shared_server.url) as cache:
        batch = cache.pipeline()
        batch.set("a", "text", 60).get("a").increment("a", ttl=60).get("a", int).add("a", 1, 60).add("b", 1, 60)
        batch.increment("b", 5, ttl=60).delete("a").get("a").exists("a").exists("b").ttl("a").expire("b", 30)
        batch.touch("b", 1).set("c", object(), 60).get("").set("c", 1, 0).set_many({"d": 1, "e": 2}, 60)
        batch.get_many(["d", "e", "f"]).delete_many(["d", "e", "f"]).get("d")
        assert len(batch) == 21
        results = await batch.execute()
        failures = {number: type(result) for number, result in enumerate(results) if isinstance(result, Exception)}
        assert failures == {
            2: InvalidCacheValueError,
            14: InvalidCacheValueError,
            15: InvalidCacheKeyError,
            16: InvalidTimeToLiveError,
        }
        assert [result for number, result in enumerate(results) if number not in failures] == [
            *(None, "text", None, False, True, 6, True, None, False, True, None, True, True, None),
            *({"d": 1, "e": 2}, 2, None),
        ]
        left = await cache.ttl("b")
        assert left is not None
        assert 25 < left <= 30
        assert await batch.execute() == []


async def test_a_batch_that_is_never_executed_does_nothing(shared_server: RedisServer, cache_at: CacheAt) -> None:
    async with cache_at(shared_server.url) as cache:
        cache.pipeline().set("unsent", 1, 60)
        assert await cache.get("unsent") is None
