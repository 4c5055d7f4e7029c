"""One of several processes that open the same projects again and again."""

from __future__ import annotations

import asyncio
import random
import sys
from uuid import UUID

from data_layer import DataLayer, Settings
from data_layer.schemas.actors import SYSTEM


async def main(database_url: str, redis_url: str, rounds: str, *project_ids: str) -> None:
    ids = [UUID(project_id) for project_id in project_ids]
    async with DataLayer(Settings(environment="testing", database_url=database_url, redis_url=redis_url)) as data:
        for _ in range(int(rounds)):
            random.shuffle(ids)
            for project_id in ids:
                await data.projects.open(SYSTEM, project_id)
            await data._opened.view_counts.flush()


asyncio.run(main(*sys.argv[1:]))
