"""One of several processes whose tasks reserve, work and settle at once, as long as the budget allows it."""

from __future__ import annotations

import asyncio
import sys
from decimal import Decimal
from uuid import UUID, uuid4

from data_layer import DataLayer, Settings
from data_layer.entities.enums import UserRole
from data_layer.errors import BudgetExceededError
from data_layer.schemas.actors import Actor
from data_layer.schemas.usage import NewUsage


async def spend(data: DataLayer, actor: Actor) -> str:
    """Reserve one dollar and use all of it."""
    try:
        reservation = await data.usage.reserve(actor, Decimal(1))
    except BudgetExceededError:
        return "refused"
    usage = NewUsage(key=uuid4().hex, provider="openai", model="m", cost=Decimal(1))
    for _ in range(2):  # The answer to the first call may have been lost.
        await data.usage.settle(actor, reservation, usage)
    return "spent"


async def main(database_url: str, redis_url: str, user_id: str, tasks: str) -> None:
    settings = Settings(environment="testing", database_url=database_url, redis_url=redis_url, db_max_connections=8)
    actor = Actor.user(UUID(user_id), UserRole.USER)
    async with DataLayer(settings) as data:
        await asyncio.to_thread(sys.stdin.readline)  # All processes begin at once.
        for outcome in await asyncio.gather(*(spend(data, actor) for _ in range(int(tasks)))):
            sys.stdout.write(f"{outcome}\n")


asyncio.run(main(*sys.argv[1:]))
