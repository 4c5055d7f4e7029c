"""The figures of the last half hour: recorded by one process, seen by all, bounded, also while servers are away."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from data_layer import DataLayer, Settings
from data_layer.errors import DatabaseUnavailableError, PermissionDeniedError
from data_layer.schemas.actors import SYSTEM, Actor
from data_layer.schemas.statistics import FigureSample
from data_layer.services import figure_history, statistics
from data_layer.services.statistics import Statistics, StatisticsService
from tests.support import stored_actor

SAMPLES, RECORDER = "data-layer:figure-samples", "data-layer:figure-recorder"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sample every 20 ms, however long one takes."""
    monkeypatch.setattr(figure_history, "SECONDS", 0.02)
    monkeypatch.setattr(figure_history, "_LONGEST_SECONDS", 0.02)


async def wait_for(data: DataLayer, is_enough: Callable[[tuple[FigureSample, ...]], bool]) -> tuple[FigureSample, ...]:
    async with asyncio.timeout(30):
        while not is_enough(samples := await data.figure_history.recent(SYSTEM)):
            await asyncio.sleep(0.01)
    return samples


def at_least(count: int) -> Callable[[tuple[FigureSample, ...]], bool]:
    return lambda samples: len(samples) >= count


def by_second(samples: tuple[FigureSample, ...]) -> int:
    """How many of them the process on the second host has recorded."""
    return sum(each.process.startswith("second:") for each in samples)


async def test_the_samples_are_the_figures_of_then(data: DataLayer) -> None:
    assert await data.figure_history.recent(SYSTEM) == ()
    async with data.figure_history.recording():
        samples = await wait_for(data, at_least(3))
    moments = [each.taken_at for each in samples]
    assert moments == sorted(set(moments))
    now = await data.statistics()
    assert now.database
    assert now.database.size
    last = samples[-1]
    assert last.database_size == pytest.approx(now.database.size, rel=0.2)
    assert last.connections
    assert last.cache_size
    assert last.keys is not None
    assert last.file_count == 0
    assert [each.commits for each in samples] == sorted(each.commits or 0 for each in samples)
    count = len(await data.figure_history.recent(SYSTEM))
    await asyncio.sleep(0.2)
    assert len(await data.figure_history.recent(SYSTEM)) == count, "it has ended"


async def test_one_process_records_and_another_one_takes_over(
    data: DataLayer, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figure_history, "_PATIENCE", 500)  # A recorder that is busy for long is not taken for dead.
    with pytest.MonkeyPatch.context() as on_second_host:
        on_second_host.setattr(socket, "gethostname", lambda: "second")
        second = await DataLayer(settings).open()
    try:
        async with data.figure_history.recording():
            await wait_for(data, at_least(1))
            async with second.figure_history.recording():
                assert by_second(await wait_for(second, at_least(5))) == 0
        async with second.figure_history.recording():  # The first one has ended in order: it need not be waited for.
            samples = await wait_for(data, lambda samples: by_second(samples) > 0)
        assert by_second(samples) < len(samples), "what was recorded before is still there"
        await data.cache.set(RECORDER, "a process that has died", ttl=0.3)
        async with data.figure_history.recording():
            await wait_for(second, lambda found: len(found) - by_second(found) > len(samples) - by_second(samples))
    finally:
        await second.close()


async def test_it_is_bounded_by_time_and_number(data: DataLayer) -> None:
    now = datetime.now(UTC)
    stored = [FigureSample(taken_at=now - timedelta(seconds=each * 5), process="p") for each in range(400)]
    await data.cache.set(SAMPLES, stored, ttl=60)
    found = await data.figure_history.recent(SYSTEM)
    assert len(found) == 180
    assert found[-1].taken_at == now
    old = [FigureSample(taken_at=now - timedelta(minutes=31), process="p"), stored[0]]
    async with data.figure_history.recording():
        await data.cache.set(SAMPLES, old, ttl=60)
        await wait_for(data, at_least(2))
    assert len(await data.figure_history.recent(SYSTEM)) <= 180
    assert now - timedelta(minutes=31) not in {each.taken_at for each in await data.figure_history.recent(SYSTEM)}


async def test_without_redis_each_process_keeps_its_own(settings: Settings, data: DataLayer) -> None:
    assert data
    async with DataLayer(settings.replaced(redis_url="redis://127.0.0.1:1")) as alone, alone.figure_history.recording():
        samples = await wait_for(alone, at_least(2))
    assert samples[-1].cache_size is None
    assert samples[-1].database_size


async def test_a_moment_without_the_database_is_a_gap(data: DataLayer, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object) -> None:
        raise DatabaseUnavailableError("as if it were gone")

    async with data.figure_history.recording():
        await wait_for(data, at_least(1))
        monkeypatch.setattr(statistics, "read_server", fail)

        samples = await wait_for(data, lambda samples: samples[-1].connections is None)
    assert samples[0].connections
    assert samples[-1].cache_size


async def test_what_takes_long_is_recorded_less_often(data: DataLayer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figure_history, "_LONGEST_SECONDS", 60.0)
    gather, calls = StatisticsService.gather, list[None]()

    async def slow(self: StatisticsService, actor: Actor = SYSTEM) -> Statistics:
        calls.append(None)
        await asyncio.sleep(0.05)
        return await gather(self, actor)

    monkeypatch.setattr(StatisticsService, "gather", slow)
    async with data.figure_history.recording():
        await wait_for(data, at_least(1))
        await asyncio.sleep(1)
    assert len(calls) == 1, "two and a half seconds after the first one at the earliest"


async def test_whatever_fails_is_tried_again(data: DataLayer, monkeypatch: pytest.MonkeyPatch) -> None:
    gather, failures = StatisticsService.gather, iter([RuntimeError("once"), RuntimeError("twice")])

    async def fail_twice(self: StatisticsService, actor: Actor = SYSTEM) -> Statistics:
        if error := next(failures, None):
            raise error
        return await gather(self, actor)

    monkeypatch.setattr(StatisticsService, "gather", fail_twice)
    async with data.figure_history.recording():
        await wait_for(data, at_least(1))


async def test_only_administrators_see_them(data: DataLayer) -> None:
    with pytest.raises(PermissionDeniedError):
        await data.figure_history.recent(await stored_actor(data))
