"""Two servers behind one name, which swap roles while the processes work."""

from __future__ import annotations

import asyncio
import random

from data_layer.testing.redis_server import RedisServer
from tests.cache.wire import Endpoint

_LINK_SECONDS = 20
_LONGEST_STEP = 0.1
_ALONE_SECONDS = 2.0


class Pair:
    """A primary that the name leads to, and its replica.

    A swap is a planned failover as Redis' own FAILOVER makes it: the primary takes no writes until its replica has
    all of them, so nothing that was acknowledged is lost. Around each step connections are reset, or not. Afterwards
    the old primary is a replica that cannot reach its new primary, and answers reads with what it has.
    """

    def __init__(self, endpoint: Endpoint, replica: RedisServer, chance: random.Random) -> None:
        self._endpoint = endpoint
        self._replica = replica
        self._chance = chance
        self.swaps = 0

    async def follow(self) -> None:
        """Let the replica follow the primary, and wait until it does."""
        await self._run(self._replica, "REPLICAOF", "127.0.0.1", self._endpoint.server.port)
        async with asyncio.timeout(_LINK_SECONDS):
            while "master_link_status:up" not in await self._run(self._replica, "INFO", "replication"):
                await asyncio.sleep(0.02)

    async def swap(self) -> None:
        """Fail over, with the name moving before, between or after the steps."""
        old, new = self._endpoint.server, self._replica
        moves_at = self._chance.randrange(3)
        await self._run(old, "CLIENT", "PAUSE", 5000, "WRITE")
        await self._catch_up(old, new)
        await self._disturb()
        for number in range(3):
            if number == moves_at:
                self._endpoint.server = new
            if number == 0:
                await self._run(new, "REPLICAOF", "NO", "ONE")
            elif number == 1:
                await self._run(old, "REPLICAOF", "127.0.0.1", 1)
                await self._run(old, "CLIENT", "UNPAUSE")
            await self._disturb()
        self._replica = old
        self.swaps += 1
        await asyncio.sleep(_ALONE_SECONDS * self._chance.uniform(0.8, 1.2))
        await self.follow()

    async def _disturb(self) -> None:
        await asyncio.sleep(self._chance.random() * _LONGEST_STEP)
        if self._chance.random() < 0.3:
            self._endpoint.cut(every=self._chance.choice([1, 2, 3]))

    async def _catch_up(self, old: RedisServer, new: RedisServer) -> None:
        async with asyncio.timeout(_LINK_SECONDS):
            while await self._offset(old, "master_repl_offset") != await self._offset(new, "slave_repl_offset"):
                await asyncio.sleep(0.005)

    async def _offset(self, server: RedisServer, field: str) -> str:
        text = await self._run(server, "INFO", "replication")
        return next(line for line in text.splitlines() if line.startswith(field + ":")).partition(":")[2]

    @staticmethod
    async def _run(server: RedisServer, *command: str | int) -> str:
        return str(await asyncio.to_thread(server.execute, *command))
