"""Performance timers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import pytest

from data_layer import timed
from tests.observability.support import events, log_to_memory, only_event


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Moves the time that timers see, in milliseconds."""
    now = 100.0

    def move(milliseconds: float) -> None:
        nonlocal now
        now += milliseconds / 1000

    monkeypatch.setattr("data_layer.observability.timing.time.perf_counter", lambda: now)
    return move


def test_one_event_tells_the_whole_and_each_step(clock: Callable[[float], None]) -> None:
    stream = log_to_memory()
    with timed("project_imported", project_id=7) as timer:
        clock(12.5)
        timer.checkpoint("parsed")
        for _ in range(2):
            clock(100)
            timer.checkpoint("stored")
        timer.add(files=2)
        clock(3)
    event = only_event(stream)
    assert event["event"] == "project_imported"
    assert event["level"] == "info"
    assert event["logger"] == __name__
    assert (event["project_id"], event["files"]) == (7, 2)
    assert event["duration_ms"] == 215.5
    assert event["checkpoints_ms"] == {"parsed": 12.5, "stored": 200.0}
    assert "failed" not in event


def test_a_failed_block_says_so_and_how_far_it_came(clock: Callable[[float], None]) -> None:
    stream = log_to_memory()
    with pytest.raises(LookupError), timed("page_fetched") as timer:
        clock(1)
        timer.checkpoint("asked")
        raise LookupError("password=hunter2")
    event = only_event(stream)
    assert (event["failed"], event["checkpoints_ms"], event["duration_ms"]) == ("LookupError", {"asked": 1.0}, 1.0)
    assert "hunter2" not in stream.getvalue()


def test_nothing_below_the_level_in_force() -> None:
    stream = log_to_memory()
    with timed("detail_measured", level=logging.DEBUG) as timer:
        timer.checkpoint("step")
    assert events(stream) == []


async def test_timers_of_concurrent_tasks_do_not_mix() -> None:
    stream = log_to_memory()

    async def work(number: int) -> None:
        with timed("work_done", number=number) as timer:
            await asyncio.sleep(0)
            timer.checkpoint(f"step-{number}")

    await asyncio.gather(*map(work, range(5)))
    assert {event["number"]: list(event["checkpoints_ms"]) for event in events(stream)} == {
        number: [f"step-{number}"] for number in range(5)
    }


def test_secrets_in_its_fields_are_masked() -> None:
    stream = log_to_memory()
    with timed("login_tried", password="hunter2-hunter2") as timer:
        timer.add(address="redis://:hunter2@cache")
    assert "hunter2" not in stream.getvalue()
