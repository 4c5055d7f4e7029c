"""Probing all parts at once, each within a time limit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from sqlalchemy import text

from data_layer.concurrency import ignore_error
from data_layer.database.statements import named
from data_layer.errors import DataLayerError
from data_layer.observability.log import get_log
from data_layer.repositories.unit_of_work import Transactions
from data_layer.schemas.operations import Health, HealthStatus, PartHealth

log = get_log(__name__)
Probe = Callable[[], Coroutine[Any, Any, None]]
Result = TypeVar("Result")

PROBE_SECONDS = 2.0
_PROBE = named("health.probe", text("SELECT 1"))


class HealthService:
    """Asks the database, the cache and the storage for a sign of life."""

    def __init__(self, transactions: Transactions, check_cache: Probe, check_storage: Probe) -> None:
        self._transactions = transactions
        self._check_cache = check_cache
        self._check_storage = check_storage

    async def check(self, *, time_limit: float = PROBE_SECONDS) -> Health:
        """Probe all parts at the same time.

        Args:
            time_limit: seconds after which a part that is silent counts as broken.
        """
        probes = {"database": self._probe_database, "cache": self._check_cache, "storage": self._check_storage}
        results = await asyncio.gather(*(_probe(probe, time_limit) for probe in probes.values()))
        parts = dict(zip(probes, results, strict=True))
        for name, part in parts.items():
            if not part.healthy:
                log.warning("health_probe_failed", part=name, code=part.error_code, reason=part.error)
        works = {name: part.healthy for name, part in parts.items()}
        return Health(**works, overall=all(works.values()), status=_status(works), parts=parts)

    async def _probe_database(self) -> None:
        async with self._transactions() as tx:
            await tx.execute(_PROBE)


def _status(works: dict[str, bool]) -> HealthStatus:
    broken = {name for name, works_well in works.items() if not works_well}
    if not broken:
        return HealthStatus.HEALTHY
    return HealthStatus.DEGRADED if broken == {"cache"} else HealthStatus.UNHEALTHY


async def _probe(probe: Probe, time_limit: float) -> PartHealth:
    started = time.perf_counter()
    code = reason = None
    try:
        await within(time_limit, probe())
    except TimeoutError:
        code, reason = "timeout", f"no answer within {time_limit:g} s"
    except DataLayerError as error:
        code, reason = error.code, str(error)
    latency = round((time.perf_counter() - started) * 1000, 2)
    return PartHealth(healthy=code is None, latency_ms=latency, error_code=code, error=reason)


async def within(seconds: float, probe: Coroutine[Any, Any, Result]) -> Result:
    """What a probe returns: wait for it, but not for its tidying up, which takes as long as its server is silent.

    Raises:
        TimeoutError: it took longer.
    """
    task = asyncio.create_task(probe)
    try:
        finished, _ = await asyncio.wait([task], timeout=seconds)
    finally:
        task.cancel()
    if not finished:
        ignore_error(task)
        raise TimeoutError
    return task.result()
