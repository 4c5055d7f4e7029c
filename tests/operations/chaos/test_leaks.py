"""What counts as a leak."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest

from tests.operations.chaos.journal import Event
from tests.operations.chaos.leaks import _own_leaks
from tests.operations.chaos.resources import held_after, held_now, more_than


def report(**facts: Any) -> Event:
    usual = {
        "before": {"task x": 1},
        "after": {"task x": 1},
        "in_use": 0,
        "pending": 0,
        "audit": {"lost": 0, "rejected": 0},
    }
    return Event("a", "idle", 1, 1, facts=usual | facts)


def test_a_replica_that_rests_keeps_nothing() -> None:
    assert _own_leaks(report(after={"task x": 1, "file socket": 9, "threads": 9})) == []


@pytest.mark.parametrize(
    "facts",
    [
        {"after": {"task x": 2}},
        {"after": {"file /tmp/x": 1}},
        {"in_use": 1},
        {"pending": 1},
        {"pending": -1},
        {"audit": {"lost": 1, "rejected": 0}},
    ],
)
def test_what_it_keeps_is_found(facts: dict[str, Any]) -> None:
    assert _own_leaks(report(**facts))


@pytest.mark.slow
async def test_handles_and_tasks_are_counted_by_kind() -> None:
    before = held_now()
    reader, writer = os.pipe()
    sleeper = asyncio.create_task(asyncio.sleep(60))
    assert len(more_than(before, held_now())) == 2, "two more pipes, and one more task"
    os.close(reader)
    os.close(writer)
    sleeper.cancel()
    assert more_than(before, await held_after(before, 10)) == []
