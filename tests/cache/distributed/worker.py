"""One process: reads and writes rows through cache and database until it is asked to stop, or somebody kills it."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any
from uuid import UUID

from sqlalchemy import text

from data_layer import DataLayer, Settings
from data_layer.cache import errors, loading, write_intents
from data_layer.cache.wire.connection import Connection
from data_layer.cache.wire.node import Node
from data_layer.errors import CacheError, DatabaseError
from tests.cache.distributed.history import Recorder

_READERS = 3
_DEATHS_IN_THE_GAP = 0.03
_TIME_TO_LIVE = 60


def key_of(project: UUID) -> str:
    return f"project:{project}"


async def load(data: DataLayer, project: UUID) -> int:
    async with data.transaction() as tx:
        found = await tx.execute(text("SELECT view_count FROM projects WHERE id = :id").bindparams(id=project))
        return int(found.scalar_one())


@dataclass(frozen=True)
class Orders:
    """What a worker is to do. It stops when the file ``stop`` is there."""

    settings: dict[str, Any]
    projects: list[UUID]
    histories: Path
    stop: Path
    sabotage: str | None


class Worker:
    def __init__(self, data: DataLayer, orders: Orders) -> None:
        self._data = data
        self._projects = orders.projects
        self._stop = orders.stop
        self._recorder = Recorder(orders.histories)
        self._chance = random.Random()

    async def run(self) -> None:
        readers = [self._repeat(self._read, 0.004) for _ in range(_READERS)]
        await asyncio.gather(self._repeat(self._write, 0.05), *readers)

    async def _repeat(self, work: Any, pause: float) -> None:
        while not self._stop.exists():
            try:
                await work()
            except (CacheError, DatabaseError):
                await asyncio.sleep(0.01)
            await asyncio.sleep(self._chance.random() * pause)

    def _pick(self) -> int:
        """Some rows often and some rarely, so that some values are replaced in a hurry and others live for long."""
        return min(int(self._chance.expovariate(0.25)), len(self._projects) - 1)

    def _pick_any(self) -> int:
        return self._chance.randrange(len(self._projects))

    async def _read(self) -> None:
        row, dice = self._chance.choice([self._pick, self._pick_any])(), self._chance.random()
        key, began = key_of(self._projects[row]), monotonic()
        if dice < 0.3:
            kind, version = "get", await self._data.cache.get(key)
        elif dice < 0.35:
            kind, version = "database", await load(self._data, self._projects[row])
        else:
            kind = "fresh" if dice < 0.352 else "read"
            version = await self._data.cache.get_or_load(
                key, lambda: load(self._data, self._projects[row]), _TIME_TO_LIVE, fresh=kind == "fresh"
            )
        if version is not None:
            self._recorder.note(kind, row, version, began, monotonic())

    async def _write(self) -> None:
        row = self._pick()
        project, began = self._projects[row], monotonic()
        statement = text("UPDATE projects SET view_count = view_count + 1 WHERE id = :id RETURNING view_count")
        try:
            async with self._data.transaction() as tx:
                version = (await tx.execute(statement.bindparams(id=project))).scalar_one()
                tx.invalidate(key_of(project))
                await asyncio.sleep(self._chance.random() * 0.005)
                self._change_ones_mind()
        except _RolledBackError:
            return
        self._recorder.note("write", row, version, began, monotonic())

    def _change_ones_mind(self) -> None:
        if self._chance.random() < 0.1:
            raise _RolledBackError


class _RolledBackError(Exception):
    pass


def make_the_gap_dangerous() -> None:
    """Lets time pass between each commit and what follows it, and sometimes dies there: the worst point to die at."""
    settle_soon = write_intents.WriteIntents.settle_soon

    def settle_late(self: Any, keys: Any, token: bytes) -> None:
        async def settle() -> None:
            await asyncio.sleep(random.random() * 0.02)
            if random.random() < _DEATHS_IN_THE_GAP:
                os.kill(os.getpid(), signal.SIGKILL)
            settle_soon(self, keys, token)

        for key in keys:
            self._near.drop(key)
        self._background.start(settle())

    write_intents.WriteIntents.settle_soon = settle_late  # type: ignore[method-assign]


def sabotage(what: str | None) -> None:
    """Takes away one of the things that make it safe, so that the checker can show that it notices."""

    async def announce_nothing(_self: Any, _keys: Any, _token: bytes, _limit: float) -> None:
        pass

    async def fill_anyway(self: Any, spec: Any, _token: bytes, payload: Any, _started: float) -> bool:
        stored = self._entries.codec.seal(*payload)
        await asyncio.sleep(random.random() * 0.2)
        await self._runner.run("SET", spec.key, stored, "PX", spec.milliseconds)
        return False

    def settle_nothing(_self: Any, _keys: Any, _token: bytes) -> None:
        pass

    if what == "intents":
        write_intents.WriteIntents.announce = announce_nothing  # type: ignore[method-assign, assignment]
    elif what == "settling":
        write_intents.WriteIntents.announce = announce_nothing  # type: ignore[method-assign, assignment]
        write_intents.WriteIntents.settle_soon = settle_nothing  # type: ignore[method-assign, assignment]
    elif what == "roles":
        Connection.ask_role = _confirm_anyway  # type: ignore[method-assign, assignment]
        Connection.watch_role = Node.require_same_server = _do_nothing  # type: ignore[method-assign, assignment]
        errors.DEMOTIONS = frozenset()  # Final, but this is sabotage.
    elif what == "leases":
        loading.Loading._fill = fill_anyway  # type: ignore[method-assign, assignment]


def _confirm_anyway(_connection: Connection, confirmed: Callable[[], None]) -> None:
    confirmed()


def _do_nothing(*_: object) -> None:
    pass


async def follow(orders: Orders) -> None:
    async with DataLayer(Settings(**orders.settings)) as data:
        await Worker(data, orders).run()


def work(orders: Orders) -> None:
    """The program of the process."""
    make_the_gap_dangerous()
    sabotage(orders.sabotage)
    asyncio.run(follow(orders))
