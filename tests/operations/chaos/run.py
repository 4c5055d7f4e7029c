"""Starts servers, service and replicas, lets everything happen, and gathers what was seen."""

from __future__ import annotations

import asyncio
import multiprocessing
import shutil
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from multiprocessing import forkserver
from multiprocessing.context import ForkServerProcess
from time import monotonic
from typing import Any

from tests.operations.chaos import verdict
from tests.operations.chaos.faults import Fault, Faults, Say
from tests.operations.chaos.journal import DONE, Event, Reader
from tests.operations.chaos.leaks import Leaks
from tests.operations.chaos.load import Rows
from tests.operations.chaos.plan import POSTGRESQL, Plan
from tests.operations.chaos.replica import Orders, work
from tests.operations.chaos.servers import Servers
from tests.operations.chaos.truth import Truth, read_truth
from tests.operations.chaos.watch import Answer, Watch
from tests.service.support import Service

_TIME_TO_START = 300.0
_TIME_TO_END = 60.0
_PAUSE = 0.1
_REPORTS = frozenset({"ready", "idle", "closed"})

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.operations.chaos.replica"])


@dataclass(frozen=True)
class Seen:
    """What was observed from outside."""

    faults: list[Fault]
    events: list[Event]
    answers: list[Answer]
    leaks: list[str]
    truth: Truth


@dataclass(frozen=True)
class Recovery:
    """How long it took after one fault: the load as a whole, and the service to say that it is ready again."""

    fault: str
    away: float
    seconds: float
    until_ready: float | None


@dataclass
class Outcome:
    """The verdict: nothing is wrong when there are no ``violations``. Times are in seconds."""

    violations: dict[str, list[str]]
    recoveries: list[Recovery]
    operations: dict[str, dict[str, Any]] = field(default_factory=dict)
    removed_by_cleanup: int = 0

    @property
    def is_good(self) -> bool:
        return not any(self.violations.values())


class Run:
    """One run, on servers of its own."""

    def __init__(self, plan: Plan, servers: Servers, say: Say) -> None:
        self._plan = plan
        self._servers = servers
        self._say = say
        self._names = [f"replica-{number}" for number in range(1, plan.replicas + 1)]
        self._replicas: list[ForkServerProcess] = []
        self._journals = servers.folder / "journals"
        self._reader = Reader(self._journals)
        self._events: list[Event] = []
        self._leaks: list[str] = []

    async def run(self) -> Seen:
        self._journals.mkdir()
        self._say("The servers run.")
        rows = await self._servers.prepare()
        self._say("The tables are there.")
        service = await asyncio.to_thread(self._servers.start_service)
        self._say("The service answers.")
        try:
            async with Watch(service.url) as watch:
                faults = await self._run_replicas(rows, service, watch)
        finally:
            for replica in self._replicas:
                replica.kill()
                replica.join()
            if self._plan.keep is not None:
                shutil.copytree(self._servers.folder, self._plan.keep, dirs_exist_ok=True)
        if await asyncio.to_thread(service.end) != 0:
            self._leaks.append(f"the service did not end well: {service.output[-500:]}")
        self._events += self._reader.more()
        self._say("The replicas have gone; looking at what is there …")
        truth = await read_truth(self._servers, rows)
        events = [event for event in self._events if event.kind not in _REPORTS]
        return Seen(faults, events, watch.answers, self._leaks, truth)

    async def _run_replicas(self, rows: Rows, service: Service, watch: Watch) -> list[Fault]:
        leaks = Leaks(self._servers, service)
        for name in self._names:
            orders = Orders(name, self._servers.settings(name), rows, self._servers.folder, self._plan.sabotage)
            self._replicas.append(_context.Process(target=work, args=(orders,)))
            self._replicas[-1].start()
        await self._until_all("ready", _TIME_TO_START)
        leaks.note_beginning()
        self._say(f"{self._plan.replicas} replicas and the service work.")
        self._tell("begin")
        faults = Faults(self._plan, self._servers, watch, self._have_recovered, self._say)
        await faults.run()
        self._tell("stop")
        await self._until_all("idle", self._plan.longest_limit + _TIME_TO_END)
        self._leaks += await leaks.at_rest(self._events)
        self._tell("leave")
        await self._until_all("closed", _TIME_TO_END)
        await self._until_gone()
        self._leaks += await leaks.after_closing(self._events)
        return faults.done

    def _have_recovered(self, fault: Fault) -> bool:
        self._events += self._reader.more()
        return all(verdict.has_recovered(self._events, fault, name) for name in self._names)

    def _tell(self, what: str) -> None:
        (self._servers.folder / what).touch()

    async def _until_all(self, report: str, patience: float) -> None:
        """Wait until all replicas have said so; the loser is named when one dies or takes too long."""
        missing = set(self._names)
        deadline = monotonic() + patience
        while missing:
            new = self._reader.more()
            self._events += new
            missing -= {event.process for event in new if event.kind == report}
            dead = [replica.exitcode for replica in self._replicas if replica.exitcode not in {None, 0}]
            if dead or (missing and monotonic() > deadline):
                raise RuntimeError(f"{sorted(missing)} did not become {report} within {patience:g} s; ended: {dead}")
            await asyncio.sleep(_PAUSE)

    async def _until_gone(self) -> None:
        deadline = monotonic() + _TIME_TO_END
        while any(replica.is_alive() for replica in self._replicas) and monotonic() < deadline:
            await asyncio.sleep(_PAUSE)
        codes = [replica.exitcode for replica in self._replicas]
        if any(codes):
            self._leaks.append(f"the replicas ended with {codes}")


async def run(plan: Plan, say: Say = lambda _: None) -> Outcome:
    """Run it and judge it."""
    started = monotonic()
    forkserver.ensure_running()  # It imports everything while the servers start.

    def say_when(line: str) -> None:
        say(f"{monotonic() - started:6.1f} s  {line}")

    say_when("Starting PostgreSQL, Valkey, the storage, the service and the replicas …")
    async with Servers(plan) as servers:
        return judge(plan, await Run(plan, servers, say_when).run())


def judge(plan: Plan, seen: Seen) -> Outcome:
    """What is wrong, by the promise that is broken, and how long everything took."""
    events, faults, truth = seen.events, seen.faults, seen.truth
    violations = {
        "saves": verdict.check_saves(events, truth),
        "reads": verdict.check_reads(events, faults),
        "sessions": verdict.check_sessions(events, truth),
        "files": verdict.check_files(events, truth),
        "audit": verdict.check_records(events, truth),
        "errors": verdict.check_errors(events, faults, plan),
        "readiness": verdict.check_readiness(seen.answers, faults, plan),
        "recovery": [],
        "leaks": seen.leaks,
    }
    recoveries = []
    for fault in faults:
        seconds, silent = verdict.recovery(events, faults, fault)
        until_ready = None
        if fault.server == POSTGRESQL:
            until_ready = verdict.readiness_recovery(seen.answers, faults, fault)
        recoveries.append(Recovery(fault.name, fault.seconds, seconds, until_ready))
        violations["recovery"] += silent
        if max(seconds, until_ready or 0.0) > plan.bound:
            violations["recovery"].append(f"over {plan.bound:g} s: {recoveries[-1]}")
    return Outcome(violations, recoveries, _count(events), truth.cleaned)


def _count(events: list[Event]) -> dict[str, dict[str, Any]]:
    """For each kind of operation: how often it ended how, and how long it took."""
    by_kind = defaultdict(list)
    for event in events:
        by_kind[event.kind].append(event)
    return {
        kind: {
            **Counter(event.outcome for event in some),
            "errors": dict(Counter(event.code or event.errors[0] for event in some if event.outcome != DONE)),
            "slowest": max((event.seconds for event in some if event.outcome == DONE), default=0.0),
            "slowest_error": max((event.seconds for event in some if event.outcome != DONE), default=0.0),
        }
        for kind, some in sorted(by_kind.items())
    }
