"""Maintenance again and again, while the service runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from data_layer.cache import Cache
from data_layer.concurrency import cancel_and_wait, jittered
from data_layer.context import new_correlation_id, request_context
from data_layer.errors import CacheError
from data_layer.observability.log import get_log
from data_layer.schemas.actors import SYSTEM
from data_layer.services.generations.expiry import SWEEP_SECONDS
from data_layer.services.maintenance import MaintenanceService

log = get_log(__name__)

_ROUND = "data-layer:maintenance-round"
_NOTED_PART = 0.8
"""Of an interval: less than the shortest wait, so that the replica that had a round can have the next one."""
_FIRST_SECONDS = 5.0  # So that months are there soon after a migration, and a restart loop does not spend itself on it.


@asynccontextmanager
async def scheduled(maintenance: MaintenanceService, cache: Cache, interval: float) -> AsyncIterator[None]:
    """Run maintenance about every ``interval`` seconds inside the block; never when it is 0.

    However many replicas do the same, there is about one round in each interval, as long as they share a Redis: a round
    is noted there, and the others skip theirs. Without it each has its round, one after the other.

    Generations whose writer has stopped are ended every 15 seconds.

    Leaving the block interrupts a round, which the next one continues, wherever that will be.
    """
    if not interval:
        yield
        return
    tasks = (
        asyncio.create_task(_repeat(maintenance, cache, interval), name="maintenance"),
        asyncio.create_task(_sweep(maintenance), name="maintenance-of-generations"),
    )
    try:
        yield
    finally:
        await cancel_and_wait(*tasks)


async def _sweep(maintenance: MaintenanceService) -> None:
    """What people wait for is not left to the next round: generations whose writer has stopped."""
    while True:
        await asyncio.sleep(jittered(SWEEP_SECONDS, 0.8, 1.0))
        try:
            with request_context(correlation_id=new_correlation_id(), source="maintenance"):
                await maintenance.end_expired_variants()
        except Exception as error:  # noqa: BLE001  (whatever it was: the next one may succeed)
            log.warning("generations_not_swept", reason=f"{type(error).__name__}: {error}")


async def _repeat(maintenance: MaintenanceService, cache: Cache, interval: float) -> None:
    wait = min(_FIRST_SECONDS, interval)
    while True:
        # Replicas that were started together should not meet each time.
        await asyncio.sleep(jittered(wait, 0.9, 1.1))
        wait = interval
        try:
            with request_context(correlation_id=new_correlation_id(), source="maintenance"):
                if await _is_wanted(cache, interval):
                    await maintenance.run(SYSTEM)
        except Exception as error:  # noqa: BLE001  (whatever it was: the next round may succeed)
            log.warning("maintenance_failed", reason=f"{type(error).__name__}: {error}")


async def _is_wanted(cache: Cache, interval: float) -> bool:
    """Whether no replica has had a round lately; if so, this one has it now."""
    try:
        return await cache.add(_ROUND, value=True, ttl=_NOTED_PART * interval)
    except CacheError:
        return True
