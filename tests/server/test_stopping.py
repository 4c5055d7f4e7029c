"""A start that is asked to stop is given up; one that is not goes on to its end."""

from __future__ import annotations

import asyncio

import pytest

from data_layer.server.stopping import StoppedBeforeReady, StopRequest

LONG = 1000


async def test_work_goes_on_to_its_end_unless_the_process_is_asked_to_stop() -> None:
    stop = StopRequest(LONG)
    begun, may_end = asyncio.Event(), asyncio.Event()

    async def work() -> str:
        begun.set()
        await may_end.wait()
        return "done"

    working = asyncio.create_task(stop.unless(work()))
    await begun.wait()
    may_end.set()
    assert await working == "done"


async def test_work_is_cancelled_and_has_ended_when_the_process_is_asked_to_stop() -> None:
    stop = StopRequest(LONG)
    stop.watch = lambda: None  # type: ignore[method-assign]  # The watchdog would count on for the process of the tests.
    begun, ended = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    working = asyncio.create_task(stop.unless(work()))
    await begun.wait()
    stop.ask()
    with pytest.raises(StoppedBeforeReady):
        await working
    assert ended.is_set()


async def test_an_error_of_the_work_is_passed_on() -> None:
    async def work() -> None:
        raise ValueError("of the work")

    with pytest.raises(ValueError, match="of the work"):
        await StopRequest(LONG).unless(work())
