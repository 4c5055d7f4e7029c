"""Everything at once: many callers, all sizes, cancellations, and a server that stops, hangs and comes back."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from typing import Any

import pytest

from data_layer.cache.commands import CommandRunner
from data_layer.errors import DataLayerError
from data_layer.testing.redis_server import RedisServer
from tests.support import until

from .wire import LIMIT, running

CALLERS = 24
ROUNDS = 8
SIZES = (10, 10, 10, 1000, 100_000, 500_000)


class Caller:
    """Writes ever new values to a key of its own, and reads each of them back."""

    def __init__(self, runner: CommandRunner, number: int, choose: random.Random) -> None:
        self.key = b"key-%d" % number
        self.read = 0
        self.refused = 0
        self._runner = runner
        self._choose = choose
        self._written = 0

    async def work(self, is_over: asyncio.Event) -> None:
        while not is_over.is_set():
            self._written += 1
            step = asyncio.create_task(self._step(b"%d:" % self._written + b"x" * self._choose.choice(SIZES)))
            if self._choose.random() < 0.1:
                for _ in range(self._choose.randrange(6)):
                    await asyncio.sleep(0)
                step.cancel()
            with suppress(asyncio.CancelledError):
                await step
            if self._choose.random() < 0.3:
                await asyncio.sleep(0)

    async def _step(self, value: bytes) -> None:
        try:
            found = await self._write_and_read(value)
        except DataLayerError:
            self.refused += 1
            return
        # A server that was restarted has forgotten all; an older value it cannot have.
        assert found in {value, None}
        self.read += found is not None

    async def _write_and_read(self, value: bytes) -> Any:
        match self._choose.randrange(4):
            case 0:
                await self._runner.run("SET", self.key, value)
                return await self._runner.run("GET", self.key)
            case 1:
                await self._runner.run("SET", self.key, value)
                return (await self._runner.get_many([b"absent", self.key]))[1]
            case 2:
                answers = await self._runner.run_batch([("SET", self.key, value), ("GET", self.key)])
                failed = next((answer for answer in answers if isinstance(answer, DataLayerError)), None)
                if failed is not None:
                    raise failed
                return answers[1]
            case _:
                return (await self._runner.run_all([("SET", self.key, value), ("GET", self.key)], atomic=True))[1]


async def disturb(server: RedisServer, choose: random.Random) -> None:
    match choose.randrange(3):
        case 0:
            await asyncio.to_thread(server.restart)
        case 1:
            server.restart()  # The event loop notices nothing until it is over.
        case _:
            server.pause()
            await asyncio.sleep(choose.uniform(0.05, 0.5))
            server.resume()


@pytest.mark.parametrize("seed", [1, 2])
async def test_every_caller_reads_what_it_wrote_and_nothing_is_left(seed: int) -> None:
    choose = random.Random(seed)
    with RedisServer() as server:
        async with running(server.url, connect=500, command=300) as runner, asyncio.timeout(3 * LIMIT):
            callers = [Caller(runner, number, choose) for number in range(CALLERS)]
            is_over = asyncio.Event()
            work = [asyncio.create_task(caller.work(is_over)) for caller in callers]
            for _ in range(ROUNDS):
                await asyncio.sleep(choose.uniform(0.05, 0.3))
                await disturb(server, choose)
            server.pause()
            await until(lambda: any(caller.refused for caller in callers))
            server.resume()
            (primary,) = await runner.primaries()
            await until(lambda: primary.breaker.is_closed)
            before = sum(caller.read for caller in callers)
            await until(lambda: sum(caller.read for caller in callers) > before + CALLERS)
            is_over.set()
            await asyncio.gather(*work)
            assert primary.connections <= 2
            assert not any(primary.large.values())
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []
