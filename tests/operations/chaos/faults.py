"""What happens to the servers, one after the other, and when."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import monotonic

import psycopg

from data_layer.testing.postgresql_server import StopMode
from tests.operations.chaos.plan import POSTGRESQL, REDIS, STORAGE, Plan
from tests.operations.chaos.servers import Servers
from tests.operations.chaos.watch import Watch

Say = Callable[[str], None]

_ABLE_TO_NOTICE = _ABLE_TO_RECOVER = 30.0


@dataclass(frozen=True, slots=True)
class Fault:
    """What was broken from ``began`` to ``returned``."""

    name: str
    server: str
    began: float
    returned: float

    @property
    def seconds(self) -> float:
        return self.returned - self.began


class Faults:
    """Breaks and repairs, and lets time pass in between: as much as the plan has."""

    def __init__(
        self, plan: Plan, servers: Servers, watch: Watch, has_recovered: Callable[[Fault], bool], say: Say
    ) -> None:
        self._plan = plan
        self._servers = servers
        self._watch = watch
        self._has_recovered = has_recovered
        self._say = say
        self.done: list[Fault] = []

    def faults(self) -> list[tuple[str, str, Callable[[float], Awaitable[None]]]]:
        """Each one: its name, what is broken, and how."""
        faults: list[tuple[str, str, Callable[[float], Awaitable[None]]]] = [
            ("PostgreSQL restarted, its clients disconnected", POSTGRESQL, self._stop_fast),
            ("PostgreSQL crashed and recovered", POSTGRESQL, self._stop_at_once),
            ("a backend of PostgreSQL killed", POSTGRESQL, self._kill_backend),
            ("Redis killed and back, empty", REDIS, self._kill_redis),
        ]
        if self._servers.proxy is not None:
            faults += [("the storage slow", STORAGE, self._slow), ("the storage silent", STORAGE, self._silent)]
        return faults

    async def run(self) -> None:
        """Let all of it happen."""
        faults = self.faults()
        # In each unit of time a server is away; as long again and longer it is back.
        unit = self._plan.seconds / (3 * len(faults) + 1)
        await asyncio.sleep(unit)
        for name, server, happen in faults:
            self._say(f"{name} …")
            began = monotonic()
            await happen(min(unit, 3.0))
            self.done.append(Fault(name, server, began, monotonic()))
            self._say(f"  back after {self.done[-1].seconds:.1f} s")
            await asyncio.sleep(max(0.0, 3 * unit - self.done[-1].seconds))
            await self._give_time(self.done[-1])

    async def _give_time(self, fault: Fault) -> None:
        """On a busy machine the next fault waits until everybody has got over this one."""
        while monotonic() < fault.returned + _ABLE_TO_RECOVER and not self._has_recovered(fault):
            await asyncio.sleep(0.1)

    async def _stop_fast(self, seconds: float) -> None:
        await self._restart(StopMode.FAST, seconds)

    async def _stop_at_once(self, seconds: float) -> None:
        await self._restart(StopMode.IMMEDIATE, seconds)

    async def _restart(self, mode: StopMode, seconds: float) -> None:
        await asyncio.to_thread(self._servers.postgresql.stop, mode)
        stopped = monotonic()
        await asyncio.sleep(seconds)
        async with asyncio.timeout(_ABLE_TO_NOTICE):
            await self._watch.until_unready(after=stopped)
        await asyncio.to_thread(self._servers.postgresql.start)

    async def _kill_backend(self, _: float) -> None:
        """PostgreSQL ends all other backends then and recovers, by itself."""
        server = self._servers.postgresql
        sql = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'replica%' ORDER BY random() LIMIT 1"
        ((pid,),) = await asyncio.to_thread(server.execute, sql)
        os.kill(pid, signal.SIGKILL)
        while not await asyncio.to_thread(self._is_over, pid):
            await asyncio.sleep(0.02)

    def _is_over(self, pid: int) -> bool:
        sql = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s"
        try:
            return self._servers.postgresql.execute(sql, pid) == [(0,)]
        except psycopg.Error:
            return False

    async def _kill_redis(self, seconds: float) -> None:
        await asyncio.to_thread(self._servers.redis.kill)
        killed = monotonic()
        await asyncio.sleep(seconds)
        async with asyncio.timeout(_ABLE_TO_NOTICE):
            await self._watch.until_degraded(after=killed)
        await asyncio.to_thread(self._servers.redis.start)

    async def _slow(self, seconds: float) -> None:
        """Half a second for each piece, and 50 kB in a second."""
        assert self._servers.proxy is not None
        self._servers.proxy.slow_down(delay=0.3, bytes_per_second=50_000)
        await asyncio.sleep(seconds)
        self._servers.proxy.slow_down(delay=0.0, bytes_per_second=None)

    async def _silent(self, seconds: float) -> None:
        """No answer at all, for longer than anybody waits for one."""
        assert self._servers.proxy is not None
        self._servers.proxy.mute()
        await asyncio.sleep(max(seconds, self._plan.time_of_silence))
        self._servers.proxy.unmute()
