"""What is cancelled ends as it should: waiting despite cancellation, shared calls, ended tasks, pauses."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from data_layer.concurrency import (
    Backoff,
    Room,
    SingleFlight,
    cancel_and_wait,
    is_set_within,
    jittered,
    settled,
    uninterrupted,
)


class Work:
    """A coroutine that ends when it is allowed to, and remembers how it ended."""

    def __init__(self, error: Exception | None = None) -> None:
        self.may_end = asyncio.Event()
        self.starts = 0
        self.outcome = "running"
        self.error = error

    async def run(self) -> int:
        self.starts += 1
        number = self.starts
        try:
            await self.may_end.wait()
        except asyncio.CancelledError:
            self.outcome = "cancelled"
            raise
        self.outcome = "ended"
        if self.error is not None:
            raise self.error
        return number


@pytest.fixture
async def reports() -> list[dict[str, Any]]:
    """What asyncio reports about futures whose errors nobody looked at."""
    found: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: found.append(context))
    return found


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_uninterrupted_work_ends_however_often_its_caller_is_cancelled() -> None:
    work = Work()
    caller = asyncio.create_task(uninterrupted(work.run()))
    for _ in range(3):
        await turns()
        caller.cancel()
    await turns()
    assert not caller.done()
    work.may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert work.outcome == "ended"


async def test_the_error_of_uninterrupted_work_is_raised_instead_of_the_cancellation() -> None:
    work = Work(ValueError("broken"))
    caller = asyncio.create_task(uninterrupted(work.run()))
    await turns()
    caller.cancel()
    await turns()
    work.may_end.set()
    with pytest.raises(ValueError, match="broken"):
        await caller


async def test_uninterrupted_work_gives_its_result() -> None:
    work = Work()
    work.may_end.set()
    assert await uninterrupted(work.run()) == 1


async def test_on_cancel_is_called_once_and_can_cut_the_work_short(reports: list[dict[str, Any]]) -> None:
    work, calls = Work(ValueError("nobody looks at it")), []
    future = asyncio.ensure_future(work.run())

    def cut_short() -> None:
        calls.append("cancelled")
        work.may_end.set()

    caller = asyncio.create_task(settled(future, on_cancel=cut_short))
    await turns()
    caller.cancel()
    assert isinstance(await caller, asyncio.CancelledError)
    assert (calls, work.outcome) == (["cancelled"], "ended")
    del future, caller
    gc.collect()
    assert not reports


async def test_patience_begins_with_the_cancellation_and_ends_the_work() -> None:
    work = Work()
    future = asyncio.ensure_future(work.run())
    caller = asyncio.create_task(settled(future, patience=0.05))
    await asyncio.sleep(0.1)
    assert not caller.done(), "without a cancellation it waits for as long as it takes"
    caller.cancel()
    assert isinstance(await caller, asyncio.CancelledError)
    with pytest.raises(asyncio.CancelledError):
        await future
    assert work.outcome == "cancelled"


async def test_cancel_and_wait_returns_when_everything_has_ended(reports: list[dict[str, Any]]) -> None:
    ended = []

    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            ended.append("slow")

    async def failing() -> None:
        raise ValueError

    tasks = [asyncio.create_task(slow()), asyncio.create_task(failing())]
    await turns()
    await cancel_and_wait(None, *tasks)
    assert ended == ["slow"]
    tasks.clear()
    gc.collect()
    assert not reports
    await cancel_and_wait(None)


class TestSingleFlight:
    async def test_concurrent_callers_share_one_call_per_key(self) -> None:
        flights: SingleFlight[str, int] = SingleFlight("test")
        work, other = Work(), Work()
        callers = [asyncio.create_task(flights.run("a", work.run)) for _ in range(5)]
        callers.append(asyncio.create_task(flights.run("b", other.run)))
        await turns()
        work.may_end.set()
        other.may_end.set()
        assert await asyncio.gather(*callers) == [1] * 6
        assert (work.starts, other.starts) == (1, 1)
        assert await flights.run("a", work.run) == 2, "what has ended is not joined"

    async def test_all_callers_get_the_error(self) -> None:
        flights: SingleFlight[str, int] = SingleFlight("test")
        work = Work(ValueError("broken"))
        callers = [asyncio.create_task(flights.run("a", work.run)) for _ in range(2)]
        await turns()
        work.may_end.set()
        found = await asyncio.gather(*callers, return_exceptions=True)
        assert [str(error) for error in found] == ["broken"] * 2

    @pytest.mark.parametrize(("cancel_abandoned", "outcome"), [(True, "cancelled"), (False, "ended")])
    async def test_cancelled_callers(
        self, *, cancel_abandoned: bool, outcome: str, reports: list[dict[str, Any]]
    ) -> None:
        flights: SingleFlight[str, int] = SingleFlight("test", cancel_abandoned=cancel_abandoned)
        work = Work(ValueError("nobody looks at it"))
        callers = [asyncio.create_task(flights.run("a", work.run)) for _ in range(2)]
        await turns()
        callers[0].cancel()
        await turns()
        assert work.outcome == "running", "the other caller still waits"
        callers[1].cancel()
        await turns()
        later = Work()
        later.may_end.set()
        if cancel_abandoned:
            assert await flights.run("a", later.run) == 1, "an abandoned call is not joined"
        work.may_end.set()
        await turns()
        assert work.outcome == outcome
        callers.clear()
        gc.collect()
        assert not reports

    async def test_one_that_wants_its_own_call_is_joined_by_later_callers(self) -> None:
        flights: SingleFlight[str, int] = SingleFlight("test")
        work = Work()
        first = asyncio.create_task(flights.run("a", work.run))
        await turns()
        alone = asyncio.create_task(flights.run("a", work.run, alone=True))
        await turns()
        later = asyncio.create_task(flights.run("a", work.run))
        await turns()
        work.may_end.set()
        assert [await first, await alone, await later] == [1, 2, 2]

    async def test_a_call_is_joined_for_a_limited_time(self) -> None:
        clock = [100.0]
        flights: SingleFlight[str, int] = SingleFlight("test", join_seconds=1, clock=lambda: clock[0])
        work = Work()
        callers = [asyncio.create_task(flights.run("a", work.run))]
        for clock[0] in (100.9, 101.1, 102.0):
            await turns()
            callers.append(asyncio.create_task(flights.run("a", work.run)))
        await turns()
        work.may_end.set()
        assert await asyncio.gather(*callers) == [1, 1, 2, 2]

    async def test_closing_ends_the_calls_and_their_callers_get_the_refusal(self) -> None:
        flights: SingleFlight[str, int] = SingleFlight("test")
        work = Work()
        waiting = asyncio.create_task(flights.run("a", work.run))
        await turns()
        await flights.close(RuntimeError("closed"))
        with pytest.raises(RuntimeError, match="closed"):
            await waiting
        assert work.outcome == "cancelled"

    async def test_finishing_waits_for_the_calls(self) -> None:
        flights: SingleFlight[str, int] = SingleFlight("test")
        await flights.finish()
        work = Work()
        waiting = asyncio.create_task(flights.run("a", work.run))
        await turns()
        waiting.cancel()
        finishing = asyncio.create_task(flights.finish())
        await turns()
        assert not finishing.done()
        work.may_end.set()
        await finishing
        assert work.outcome == "ended"


def test_pauses_grow_up_to_the_longest_and_start_again() -> None:
    pauses = Backoff(1, 5, factor=2)
    assert [pauses.next() for _ in range(5)] == [1, 2, 4, 5, 5]
    pauses.reset()
    assert pauses.next() == 1


def test_jitter_only_shortens_pauses() -> None:
    found = {Backoff(8, 8, jitter=0.5).next() for _ in range(200)}
    assert len(found) > 100
    assert all(4 <= pause <= 8 for pause in found)
    assert all(0.9 <= jittered(1, 0.9, 1.1) <= 1.1 for _ in range(200))


async def test_an_event_is_waited_for_within_a_time() -> None:
    event = asyncio.Event()
    assert not await is_set_within(event, 0.01)
    asyncio.get_running_loop().call_soon(event.set)
    assert await is_set_within(event, 60)


class TestRoom:
    async def test_calls_wait_in_order_and_a_large_one_is_not_overtaken(self) -> None:
        room, order = Room(10), list[str]()

        async def call(name: str, size: int) -> int:
            taken = await room.take(size)
            order.append(name)
            return taken

        assert await call("first", 8) == 8
        waiting = [asyncio.create_task(call(name, size)) for name, size in (("large", 99), ("small", 1), ("tiny", 1))]
        await turns()
        assert order == ["first"]
        room.give(8)
        await turns()
        assert order == ["first", "large"], "all there is, and no more"
        assert await waiting[0] == 10
        room.give(10)
        await turns()
        assert order == ["first", "large", "small", "tiny"]

    async def test_who_is_cancelled_takes_nothing_and_holds_nobody_up(self) -> None:
        room = Room(10)
        await room.take(9)
        large, small = asyncio.create_task(room.take(5)), asyncio.create_task(room.take(1))
        await turns()
        large.cancel()
        await turns()
        assert small.done()
        room.give(10)
        # In the same turn in which it gets its place.
        await room.take(10)
        late = asyncio.create_task(room.take(10))
        await turns()
        room.give(10)
        late.cancel()
        await turns()
        assert late.cancelled()
        assert await room.take(10) == 10
