"""Numbers without gaps and exact counters, with writers of both kinds in four processes."""

from __future__ import annotations

import asyncio
import os

from data_layer import DataLayer, Settings
from data_layer.schemas.generations import GenerationRequest, VariantModel
from tests.services.generations.conftest import Owner, rows
from tests.support import forked, make_code

PROCESSES, WRITERS, ROUNDS = 4, 13, 3


async def test_fifty_writers_in_four_processes(data: DataLayer, owner: Owner, settings: Settings) -> None:
    async with data.transaction() as tx:
        project = await tx.projects.get(owner.project_id)

    async def write() -> None:
        async with DataLayer(settings.replaced(db_max_connections=5)) as mine:

            async def start() -> None:
                for _ in range(ROUNDS):
                    models = [VariantModel()] * 2
                    await mine.generations.start(owner.actor, owner.project_id, GenerationRequest(), models)

            async def add() -> None:
                for _ in range(ROUNDS):
                    async with mine.transaction() as tx:
                        tx.add(make_code(project))

            async def fail() -> None:
                for _ in range(ROUNDS):
                    try:
                        async with mine.transaction() as tx:
                            tx.add(make_code(project))
                            await tx.flush()
                            raise InterruptedError  # noqa: TRY301  (it ends the transaction)
                    except InterruptedError:
                        pass

            writers = (start, add, start, add, fail)
            await asyncio.gather(*(writers[number % len(writers)]() for number in range(WRITERS)))

    statuses = await asyncio.gather(*(asyncio.to_thread(os.waitpid, forked(write), 0) for _ in range(PROCESSES)))

    assert [status for _, status in statuses] == [0] * PROCESSES
    expected = PROCESSES * ROUNDS * sum(number % 5 != 4 for number in range(WRITERS))
    numbers = await rows(data, "SELECT number FROM generations ORDER BY number")
    assert [number for (number,) in numbers] == list(range(1, expected + 1))
    [(count,)] = await rows(data, "SELECT generation_count FROM projects")
    assert count == expected
    versions = "SELECT count(*) FROM generated_codes JOIN generations g ON g.id = generation_id AND version = number"
    assert await rows(data, versions) == [
        (PROCESSES * ROUNDS * sum((2, 1, 2, 1, 0)[number % 5] for number in range(WRITERS)),)
    ]
