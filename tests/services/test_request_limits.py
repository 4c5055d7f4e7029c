"""Limits of requests: shared by all processes through Redis, and kept by each of them without it."""

from __future__ import annotations

import asyncio

import pytest
from pydantic import SecretStr

from data_layer import DataLayer, Settings
from data_layer.errors import TooManyRequestsError
from data_layer.services import rate_limits
from data_layer.services.rate_limits import RequestKind, RequestLimiter

LOG_IN = RequestKind.LOG_IN
HOME, ELSEWHERE = "192.0.2.10", "203.0.113.30"
NOWHERE = SecretStr("redis://127.0.0.1:1")


async def admitted(limiters: list[RequestLimiter], ip_address: str | None, *, tries: int) -> int:
    """How many of so many requests at once, sent to the processes in turn, are let through."""
    requests = [limiters[number % len(limiters)].admit(ip_address, LOG_IN) for number in range(tries)]
    answers = await asyncio.gather(*requests, return_exceptions=True)
    assert {type(answer) for answer in answers} <= {type(None), TooManyRequestsError}
    return answers.count(None)


async def test_processes_count_together(data: DataLayer, settings: Settings) -> None:
    async with DataLayer(settings) as other:
        limiters = [RequestLimiter(each.cache, most=5, window=60) for each in (data, other)]
        assert await admitted(limiters, HOME, tries=20) == 5
        assert await admitted(limiters, ELSEWHERE, tries=3) == 3
        assert await admitted(limiters, None, tries=20) == 20


async def test_each_kind_has_a_counter_of_its_own(data: DataLayer) -> None:
    limiter = RequestLimiter(data.cache, most=2, window=60)
    for kind in RequestKind:
        await limiter.admit(HOME, kind)
        await limiter.admit(HOME, kind)
        with pytest.raises(TooManyRequestsError):
            await limiter.admit(HOME, kind)


async def test_the_window_ends(data: DataLayer) -> None:
    limiter = RequestLimiter(data.cache, most=1, window=1)
    await limiter.admit(HOME, LOG_IN)
    with pytest.raises(TooManyRequestsError) as caught:
        await limiter.admit(HOME, LOG_IN)
    assert caught.value.retry_after == 1

    await until_admitted(limiter)


async def until_admitted(limiter: RequestLimiter) -> None:
    async with asyncio.timeout(30):
        while await admitted([limiter], HOME, tries=1) == 0:
            await asyncio.sleep(0.05)


async def test_addresses_of_one_network_count_together(data: DataLayer) -> None:
    limiter = RequestLimiter(data.cache, most=2, window=60)
    await limiter.admit("2001:db8::1", LOG_IN)
    await limiter.admit("2001:db8::2", LOG_IN)
    with pytest.raises(TooManyRequestsError):
        await limiter.admit("2001:db8::3", LOG_IN)
    await limiter.admit("2001:db8:0:1::1", LOG_IN)


async def test_no_limit(data: DataLayer) -> None:
    assert await admitted([RequestLimiter(data.cache, most=0, window=60)], HOME, tries=50) == 50


async def test_without_redis_each_process_counts_alone(
    settings: Settings, data: DataLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    del data
    monkeypatch.setattr(rate_limits, "_MOST_NETWORKS", 2)
    now = [0.0]
    async with DataLayer(settings.replaced(redis_url=NOWHERE)) as alone:
        limiter = RequestLimiter(alone.cache, most=2, window=60, clock=lambda: now[0])
        assert await admitted([limiter], HOME, tries=5) == 2
        now[0] = 61
        assert await admitted([limiter], HOME, tries=5) == 2
        for address in (HOME, ELSEWHERE, "198.51.100.1", "198.51.100.2"):
            await admitted([limiter], address, tries=1)
        assert len(limiter._own) == 2
