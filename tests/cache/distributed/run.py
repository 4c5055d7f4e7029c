"""Starts the processes, stops and kills some at random, and checks what the others have seen."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import signal
import tempfile
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from time import monotonic
from typing import Any
from uuid import UUID

from redis.exceptions import RedisError

from data_layer import DataLayer, Settings
from tests.cache.distributed.failover import Pair
from tests.cache.distributed.history import Verdict, check, read_events
from tests.cache.distributed.worker import Orders, key_of, load, work
from tests.support import make_project, make_user

_PAUSE_BETWEEN_FAULTS = 0.6
_PAUSE_BETWEEN_SWAPS = 1.0
_LONGEST_STOP = 2.5
_TIME_TO_START = 60
_TIME_TO_FINISH = 30

# Forks of a process that has imported everything: real processes, and quick to start.
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.cache.distributed.worker"])


@dataclass(frozen=True)
class Plan:
    """What to run. ``settings`` hold the addresses of PostgreSQL and Redis."""

    settings: dict[str, Any]
    seconds: float
    processes: int = 8
    rows: int = 24
    sabotage: str | None = None
    pair: Pair | None = None
    """Two servers behind the address of Redis, which swap roles."""


@dataclass(frozen=True)
class Outcome:
    """What was seen, and what was done to the processes."""

    verdict: Verdict
    killed: int
    stopped: int
    disconnected: int
    failed: int
    """Processes that ended with an error of their own."""


class Run:
    def __init__(self, plan: Plan, data: DataLayer, projects: list[UUID], folder: Path) -> None:
        self._plan = plan
        self._data = data
        self._projects = projects
        self._histories = folder / "histories"
        self._stop = folder / "stop"
        self._workers: list[ForkServerProcess] = []
        self._chance = random.Random()
        self._resumptions: set[asyncio.Task[None]] = set()
        self._swapping: asyncio.Task[None] | None = None
        self._stop_swapping = asyncio.Event()
        self._failed = 0
        self.killed = self.stopped = self.disconnected = 0

    async def run(self) -> Outcome:
        self._histories.mkdir()
        try:
            self._workers = [self._start() for _ in range(self._plan.processes)]
            await self._until_all_work()
            if self._plan.pair is not None:
                self._swapping = asyncio.create_task(self._swap_again_and_again(self._plan.pair))
            end = monotonic() + self._plan.seconds
            while monotonic() < end - _LONGEST_STOP:
                await asyncio.sleep(self._chance.random() * 2 * _PAUSE_BETWEEN_FAULTS)
                await self._break_something()
            await asyncio.sleep(end - monotonic())
            await asyncio.gather(*self._resumptions)
            if self._swapping is not None:
                self._stop_swapping.set()
                await self._swapping
            await self._finish()
        finally:
            for worker in self._workers:
                worker.kill()
                worker.join()
        verdict = check(read_events(self._histories))
        survivors = await self._what_survives()
        verdict = replace(verdict, violations=[*verdict.violations, *survivors])
        return Outcome(verdict, self.killed, self.stopped, self.disconnected, self._failed)

    async def _swap_again_and_again(self, pair: Pair) -> None:
        while not self._stop_swapping.is_set():
            await pair.swap()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop_swapping.wait(), self._chance.random() * _PAUSE_BETWEEN_SWAPS)

    def _start(self) -> ForkServerProcess:
        orders = Orders(self._plan.settings, self._projects, self._histories, self._stop, self._plan.sabotage)
        worker = _context.Process(target=work, args=(orders,))
        worker.start()
        return worker

    async def _until_all_work(self) -> None:
        async with asyncio.timeout(_TIME_TO_START):
            while len([file for file in self._histories.iterdir() if file.stat().st_size]) < self._plan.processes:
                await asyncio.sleep(0.05)
                self._replace_the_dead()

    async def _break_something(self) -> None:
        number = self._chance.randrange(len(self._workers))
        worker, dice = self._workers[number], self._chance.random()
        if dice < 0.4:
            worker.kill()
            worker.join()
        elif dice < 0.8:
            self._signal(worker, signal.SIGSTOP)
            self.stopped += 1
            task = asyncio.create_task(self._resume_later(worker))
            self._resumptions.add(task)
            task.add_done_callback(self._resumptions.discard)
        else:
            with suppress(RedisError):  # Which may have been demoted just now.
                await self._data.cache.client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            self.disconnected += 1

        self._replace_the_dead()

    def _replace_the_dead(self) -> None:
        for number, worker in enumerate(self._workers):
            if not worker.is_alive():
                self._failed += worker.exitcode != -signal.SIGKILL
                self.killed += 1
                self._workers[number] = self._start()

    async def _resume_later(self, worker: ForkServerProcess) -> None:
        await asyncio.sleep(self._chance.random() * _LONGEST_STOP)
        self._signal(worker, signal.SIGCONT)

    def _signal(self, worker: ForkServerProcess, number: signal.Signals) -> None:
        if worker.is_alive() and worker.pid is not None:
            os.kill(worker.pid, number)

    async def _finish(self) -> None:
        self._stop.touch()
        async with asyncio.timeout(_TIME_TO_FINISH):
            while any(worker.is_alive() for worker in self._workers):
                await asyncio.sleep(0.05)
        self._failed += sum(worker.exitcode not in {0, -signal.SIGKILL} for worker in self._workers)

    async def _what_survives(self) -> list[str]:
        """After all writers have gone, the cache may hold nothing that is not in the database."""
        wrong = []
        for row, project in enumerate(self._projects):
            stored = await load(self._data, project)
            cached = await self._data.cache.get(key_of(project))
            if cached is not None and cached != stored:
                wrong.append(f"row {row}: the cache still has version {cached} at the end, the database {stored}")
            found = await self._data.cache.get_or_load(key_of(project), lambda: load(self._data, project), 60)  # noqa: B023
            if found != stored:
                wrong.append(f"row {row}: version {found} was read at the end, the database has {stored}")
        return wrong


async def run(plan: Plan) -> Outcome:
    """Runs it on an empty, migrated database."""
    async with DataLayer(Settings(**plan.settings)) as data:
        user = make_user()
        projects = [make_project(user) for _ in range(plan.rows)]
        async with data.transaction() as tx:
            for entity in (user, *projects):
                tx.add(entity)
        with tempfile.TemporaryDirectory(prefix="history-") as folder:
            return await Run(plan, data, [project.id for project in projects], Path(folder)).run()
