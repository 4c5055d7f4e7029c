from __future__ import annotations

import asyncio

import pytest

from data_layer import DataLayer
from data_layer.errors import CacheUnavailableError
from data_layer.services.health import HealthService


async def works() -> None:
    await asyncio.sleep(0)


async def fails() -> None:
    raise CacheUnavailableError("no answer from cache.internal")


async def test_a_probe_is_not_waited_for_while_it_tidies_up(data: DataLayer) -> None:
    may_end, has_ended = asyncio.Event(), asyncio.Event()

    async def hangs() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await may_end.wait()
            has_ended.set()
            raise CacheUnavailableError("nobody hears this any more")

    health = await HealthService(data.transaction, hangs, works).check(time_limit=0.2)
    assert not has_ended.is_set()
    assert (health.database, health.cache, health.storage, health.overall) == (True, False, True, False)
    assert health.status == "degraded"
    assert health.parts["cache"].error_code == "timeout"
    may_end.set()
    await has_ended.wait()


async def test_all_parts_are_probed_at_the_same_time(data: DataLayer) -> None:
    here = asyncio.Barrier(2)

    async def meets_the_other() -> None:
        await here.wait()

    health = await HealthService(data.transaction, meets_the_other, meets_the_other).check(time_limit=30)
    assert health.overall is True
    assert health.status == "healthy"


async def test_an_error_is_told_with_its_code(data: DataLayer) -> None:
    health = await HealthService(data.transaction, fails, works).check()
    assert health.parts["cache"].error_code == "cache_unavailable"
    assert health.parts["cache"].error == "no answer from cache.internal"
    assert health.overall is False
    assert health.status == "degraded"


async def test_what_the_cache_cannot_replace_makes_it_unhealthy(data: DataLayer) -> None:
    assert (await HealthService(data.transaction, works, fails).check()).status == "unhealthy"
    assert (await HealthService(data.transaction, fails, fails).check()).status == "unhealthy"


async def test_cancelling_the_check_cancels_its_probes(data: DataLayer) -> None:
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def hangs() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    check = asyncio.create_task(HealthService(data.transaction, hangs, works).check(time_limit=60))
    await started.wait()
    check.cancel()
    with pytest.raises(asyncio.CancelledError):
        await check
    await cancelled.wait()
    # The database's probe gives its connection back afterwards; it must not still do so when the event loop ends.
    async with asyncio.timeout(30):
        while data.database.pool_figures()["in_use"]:
            await asyncio.sleep(0.005)
