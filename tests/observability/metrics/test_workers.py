"""Real processes on real sockets: together they tell what they have counted, whatever becomes of them."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from data_layer.observability.metrics import snapshots
from data_layer.observability.metrics.snapshots import AllWorkers, Snapshot
from tests.support import until

PROJECT = Path(__file__).parents[3]


class Worker:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def count_one(self) -> None:
        assert self.process.stdin
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        self.read("counted")

    def read(self, word: str) -> None:
        assert self.process.stdout
        assert self.process.stdout.readline().strip() == word

    def end(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        assert self.process.wait(30) == 0

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(30)


@contextmanager
def worker(folder: Path, tasks: int, *, hangs: float = 0) -> Iterator[Worker]:
    command = [sys.executable, "-m", "tests.observability.metrics.worker_process", str(folder), str(tasks), str(hangs)]
    with subprocess.Popen(
        command, cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as process:
        started = Worker(process)
        try:
            started.read("ready")
            yield started
        finally:
            process.kill()


def tasks(snapshot: Snapshot) -> float:
    return sum(snapshot["tasks"].samples.values())


def open_tasks(snapshot: Snapshot) -> float:
    return sum(snapshot["open_tasks"].samples.values()) if "open_tasks" in snapshot else 0


def files(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def test_workers_are_added_up(short_folder: Path) -> None:
    everybody = AllWorkers(short_folder)
    with worker(short_folder, 3) as one, worker(short_folder, 5):
        assert tasks(await everybody.snapshot()) == 8
        one.count_one()
        found = await everybody.snapshot()
        assert (tasks(found), open_tasks(found)) == (9, 2)


async def test_nothing_falls_when_workers_end_and_are_replaced(short_folder: Path) -> None:
    everybody = AllWorkers(short_folder)
    with worker(short_folder, 3) as one, worker(short_folder, 5) as other:
        assert tasks(await everybody.snapshot()) == 8
        one.count_one()
        one.end()
        found = await everybody.snapshot()
        assert (tasks(found), open_tasks(found)) == (9, 1), "what it did since it was asked last is known"
        other.kill()
        found = await everybody.snapshot()
        assert (tasks(found), open_tasks(found)) == (9, 0), "what it told last is kept"
        with worker(short_folder, 1):
            for _ in range(3):
                found = await everybody.snapshot()
                assert (tasks(found), open_tasks(found)) == (10, 1), "who has ended is counted once"
    await everybody.snapshot()
    assert files(short_folder) == [], "nothing stays of those that have ended"


async def test_a_worker_that_was_never_asked_and_ended_well_counts(short_folder: Path) -> None:
    with worker(short_folder, 4) as one:
        one.end()
    assert tasks(await AllWorkers(short_folder).snapshot()) == 4


async def test_a_worker_that_hangs_keeps_nobody_waiting(short_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "_ANSWER_SECONDS", 0.5)
    everybody = AllWorkers(short_folder)
    with worker(short_folder, 3, hangs=120) as one, worker(short_folder, 5):
        found = await everybody.snapshot()
        while tasks(found) != 8:  # On a machine that is very busy half a second may not do.
            found = await everybody.snapshot()
        one.process.send_signal(signal.SIGUSR1)
        async with asyncio.timeout(60):
            while open_tasks(found := await everybody.snapshot()) != 1:
                pass
        assert tasks(found) == 8, "its counters stay as they were, and its gauges are left out"


async def test_little_is_lost_with_a_worker_that_is_killed_unasked(
    short_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "LOOK_SECONDS", 0.05)
    everybody = AllWorkers(short_folder)
    async with everybody.watched():
        with worker(short_folder, 3) as one:
            await until(lambda: bool(everybody._answers), 60)
            one.kill()
    assert tasks(await everybody.snapshot()) == 3


async def test_without_workers_there_is_nothing(short_folder: Path) -> None:
    assert await AllWorkers(short_folder).snapshot() == {}
