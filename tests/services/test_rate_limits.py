"""Limits of all requests: counted by each process, shared through Redis with a bounded error, kept without it."""

from __future__ import annotations

import asyncio
from unittest.mock import patch

import pytest
from pydantic import SecretStr

from data_layer import DataLayer, Settings
from data_layer.errors import TooManyRequestsError
from data_layer.services import rate_limits
from data_layer.services.rate_limits import Policy, RateLimiter

NOWHERE = SecretStr("redis://127.0.0.1:1")
ANN, BOB = "person:ann", "person:bob"


def limiter_of(data: DataLayer, most: int, now: float = 1_000_000_000.0, window: int = 60) -> RateLimiter:
    return RateLimiter(data.cache, [Policy("person", most, window), Policy("key", 2)], clock=lambda: now)


async def admitted(limiters: list[RateLimiter], identity: str, *, tries: int, at_once: bool = False) -> int:
    """How many of so many requests, sent to the processes in turn, are let through."""
    requests = [limiters[number % len(limiters)].count(identity) for number in range(tries)]
    standings = await asyncio.gather(*requests) if at_once else [await request for request in requests]
    return sum(standing is None or standing.remaining >= 0 for standing in standings)


@pytest.mark.parametrize("at_once", [False, True])
async def test_one_process_is_exact(data: DataLayer, *, at_once: bool) -> None:
    limiter = limiter_of(data, 100)
    assert await admitted([limiter], ANN, tries=150, at_once=at_once) == 100
    assert await admitted([limiter], BOB, tries=3) == 3


@pytest.mark.parametrize("at_once", [False, True])
async def test_the_error_of_several_processes_is_bounded(
    data: DataLayer, settings: Settings, monkeypatch: pytest.MonkeyPatch, *, at_once: bool
) -> None:
    # On a busy machine Redis would be too late, and each process would count alone, which is another test.
    monkeypatch.setattr(rate_limits, "_PATIENCE_SECONDS", 30)
    async with DataLayer(settings) as second, DataLayer(settings) as third:
        limiters = [limiter_of(each, 320) for each in (data, second, third)]
        count = await admitted(limiters, ANN, tries=1200, at_once=at_once)
        assert 320 <= count <= 320 + 2 * 320 / 16
        few = [limiter_of(each, 5) for each in (data, second, third)]
        assert await admitted(few, BOB, tries=30, at_once=at_once) == 5


async def test_most_requests_need_no_round_trip(data: DataLayer) -> None:
    limiter = limiter_of(data, 1600)
    with patch.object(data.cache, "increment", wraps=data.cache.increment) as shared:
        assert await admitted([limiter], ANN, tries=800) == 800
        assert 1 < shared.call_count < 15
        assert await admitted([limiter], ANN, tries=800) == 800
        before = shared.call_count
        assert await admitted([limiter], ANN, tries=1000) == 0
        assert shared.call_count == before, "what is refused costs nothing"


async def test_a_process_that_begins_later_knows_what_was_sent(data: DataLayer, settings: Settings) -> None:
    await admitted([limiter_of(data, 32)], ANN, tries=32)
    async with DataLayer(settings) as other:
        assert await admitted([limiter_of(other, 32)], ANN, tries=32) <= 2


async def test_the_window_ends(data: DataLayer) -> None:
    now = [1_000_000_000.0]
    limiter = RateLimiter(data.cache, [Policy("person", 2)], clock=lambda: now[0])
    assert await admitted([limiter], ANN, tries=5) == 2
    standing = await limiter.count(ANN)
    assert standing is not None
    assert standing.remaining < 0
    assert 1 <= standing.reset <= 60
    with pytest.raises(TooManyRequestsError, match="one person may send 2 in 60 s") as caught:
        standing.require()
    assert caught.value.retry_after == standing.reset
    now[0] += standing.reset - 1
    assert await admitted([limiter], ANN, tries=1) == 0
    now[0] += 1
    assert await admitted([limiter], ANN, tries=5) == 2


async def test_windows_of_two_identities_begin_at_different_moments(data: DataLayer) -> None:
    limiter = limiter_of(data, 10)
    resets = {standing.reset for number in range(30) if (standing := await limiter.count(f"person:{number}"))}
    assert len(resets) > 10


async def test_each_kind_has_its_own_limit_and_others_have_none(data: DataLayer) -> None:
    limiter = limiter_of(data, 3)
    assert await admitted([limiter], "key:ann", tries=5) == 2
    assert await admitted([limiter], ANN, tries=5) == 3
    assert await limiter.count("planet:mars") is None
    unlimited = limiter_of(data, 0)
    assert await unlimited.count(ANN) is None


async def test_without_redis_each_process_counts_alone(
    settings: Settings, data: DataLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    del data
    monkeypatch.setattr(rate_limits, "_MOST_IDENTITIES", 3)
    async with DataLayer(settings.replaced(redis_url=NOWHERE)) as alone:
        limiter = limiter_of(alone, 40)
        assert await admitted([limiter], ANN, tries=60) == 40
        for number in range(10):
            await limiter.count(f"person:{number}")
        assert len(limiter._counters) == 3


async def test_counters_of_windows_that_have_ended_are_dropped(data: DataLayer) -> None:
    now = 0.0
    limiter = RateLimiter(data.cache, [Policy("address", 1000)], clock=lambda: now)
    for number in range(2_000):
        now = number / 10  # 600 addresses in each window
        await limiter.count(f"address:{number}")
    assert len(limiter._counters) < 1_300
