"""The checker itself: it has to be able to find fault."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cache.distributed.history import Event, Recorder, check, read_events


def write(version: int, ended: float, *, process: str = "w", row: int = 1) -> Event:
    return Event(process, "write", row, version, ended - 0.01, ended)


def read(version: int, began: float, *, process: str = "r", row: int = 1, kind: str = "read") -> Event:
    return Event(process, kind, row, version, began, began + 0.01)


@pytest.mark.parametrize(
    "events",
    [
        [],
        [write(1, 10), read(1, 10.1), read(0, 10.9), read(1, 12)],
        [write(1, 10), write(2, 10.5), read(1, 11.4), read(2, 12)],
        [write(2, 10, row=2), read(0, 20, row=1)],
        [write(1, 10), read(2, 9)],  # Committed, but not yet acknowledged.
        [read(2, 10), read(1, 10.5)],
        [Event("r", "read", 1, 0, 9.0, 19.0), write(1, 10)],  # A process that was stopped while it read.
    ],
)
def test_good_histories(events: list[Event]) -> None:
    assert check(events).violations == []


@pytest.mark.parametrize(
    "events",
    [
        [write(1, 10), read(0, 11.1)],
        [write(1, 10), write(2, 10.5), read(1, 11.6)],
        [write(1, 10, process="r"), read(0, 10.1)],  # Its own write.
        [write(1, 10), read(0, 10.1, kind="fresh")],
        [read(2, 10, kind="database"), read(1, 12)],  # Of a writer that died before it was acknowledged.
        [write(2, 10), write(1, 10.5), read(1, 11.2)],
    ],
)
def test_bad_histories(events: list[Event]) -> None:
    verdict = check(events)
    assert len(verdict.violations) == 1
    assert verdict.stalest > 0


def test_the_staleness_is_measured(tmp_path: Path) -> None:
    verdict = check([write(1, 10), write(2, 10.2), read(0, 10.3), read(1, 10.7), read(2, 10.8)])
    assert verdict.stale_reads == 2
    assert verdict.stalest == pytest.approx(0.5)
    recorder = Recorder(tmp_path)
    recorder.note("read", 3, 4, 1.25, 2.5)
    (event,) = read_events(tmp_path)
    assert (event.kind, event.row, event.version, event.began, event.ended) == ("read", 3, 4, 1.25, 2.5)
