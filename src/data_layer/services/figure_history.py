"""The figures of the last half hour, for charts that show what was before somebody looked.

One process of all records them, and the others show the same: the samples are in Redis, and each process has a copy of
them, which it continues by itself while Redis is away.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any
from uuid import uuid4

from data_layer.cache import Cache
from data_layer.concurrency import cancel_and_wait
from data_layer.context import new_correlation_id, request_context
from data_layer.errors import CacheError
from data_layer.observability.log import get_log
from data_layer.repositories.unit_of_work import Transactions
from data_layer.schemas.actors import Actor
from data_layer.schemas.statistics import FigureSample
from data_layer.services.arguments import checks_arguments
from data_layer.services.permissions import Permission, as_of_now, require
from data_layer.services.statistics import Statistics, StatisticsService

log = get_log(__name__)

HISTORY = timedelta(minutes=30)
SECONDS = 10.0
"""Between two samples, where they are cheap."""
_LONGEST_SECONDS = 60.0
_SHARE = 0.02
"""Of the time that recording may take: samples of large databases and caches, which take longer, are farther apart."""
_MOST_SAMPLES = int(HISTORY.total_seconds() / SECONDS)
_SAMPLES = "data-layer:figure-samples"
_RECORDER = "data-layer:figure-recorder"
_PATIENCE = 2.5
"""After so many times the distance of two samples another process takes over from a recorder that has died."""


@checks_arguments
class FigureHistory:
    """Records the figures of ``StatisticsService`` and returns those of the last half hour.

    Args:
        statistics: gathers them.
        transactions: checks in them who may read the figures.
        cache: where the samples are.
    """

    def __init__(self, statistics: StatisticsService, transactions: Transactions, cache: Cache) -> None:
        self._statistics = statistics
        self._transactions = transactions
        self._cache = cache
        self._samples: tuple[FigureSample, ...] = ()
        self._process = f"{socket.gethostname()}:{os.getpid()}"
        self._token = uuid4().hex

    async def recent(self, actor: Actor) -> tuple[FigureSample, ...]:
        """Return the samples of the last half hour, the oldest first.

        Raises:
            PermissionDeniedError: the actor is not an administrator.
        """
        require(actor, Permission.READ_STATISTICS)
        if not actor.is_system:
            async with self._transactions() as tx:
                require(await as_of_now(tx, actor), Permission.READ_STATISTICS)
        await self._catch_up()
        return self._samples

    @asynccontextmanager
    async def recording(self) -> AsyncIterator[None]:
        """Record about every ten seconds inside the block, unless another process does."""
        task = asyncio.create_task(self._repeat(), name="figure-history")
        try:
            yield
        finally:
            await cancel_and_wait(task)
            with suppress(CacheError):
                if await self._cache.get(_RECORDER) == self._token:
                    await self._cache.delete(_RECORDER)

    async def _repeat(self) -> None:
        pause = SECONDS
        while True:
            try:
                with request_context(correlation_id=new_correlation_id(), source="figures"):
                    await self._catch_up()
                    if await self._is_recorder(pause):
                        begun = monotonic()
                        await self._record()
                        pause = min(max((monotonic() - begun) / _SHARE, SECONDS), _LONGEST_SECONDS)
            except Exception as error:  # noqa: BLE001  (whatever it was: the next sample may succeed)
                log.warning("figures_not_recorded", reason=f"{type(error).__name__}: {error}")
            await asyncio.sleep(pause)

    async def _is_recorder(self, pause: float) -> bool:
        """Whether this process records; without Redis each does, for itself."""
        life = pause * _PATIENCE
        try:
            if await self._cache.add(_RECORDER, self._token, ttl=life):
                return True
            if await self._cache.get(_RECORDER) != self._token:
                return False
            await self._cache.set(_RECORDER, self._token, ttl=life)
        except CacheError:
            pass
        return True

    async def _record(self) -> None:
        sample = _sample_of(await self._statistics.gather(), self._process)
        self._samples = _merged(self._samples, [sample])
        with suppress(CacheError):
            await self._cache.set(_SAMPLES, list(self._samples), ttl=HISTORY)

    async def _catch_up(self) -> None:
        """Add what other processes have recorded."""
        found: list[FigureSample] = []
        with suppress(CacheError):
            found = await self._cache.get(_SAMPLES, as_type=list[FigureSample]) or []
        self._samples = _merged(self._samples, found)


def _merged(ours: Iterable[FigureSample], others: Iterable[FigureSample]) -> tuple[FigureSample, ...]:
    """The samples of both that are not too old, in their order."""
    oldest = datetime.now(UTC) - HISTORY
    by_time = {each.taken_at: each for each in (*ours, *others) if each.taken_at >= oldest}
    return tuple(by_time[moment] for moment in sorted(by_time)[-_MOST_SAMPLES:])


def _sample_of(figures: Statistics, process: str) -> FigureSample:
    found: dict[str, Any] = {"taken_at": figures.taken_at, "process": process}
    if (database := figures.database) is not None:
        found |= {
            "database_size": database.size,
            "connections": database.server_connections,
            "block_hit_rate": database.hit_rate,
            "commits": database.commits,
            "waiting_for_locks": database.waiting_for_locks,
        }
    if (cache := figures.cache) is not None:
        found |= {
            "cache_size": cache.server_memory_used,
            "cache_hit_rate": cache.hit_rate,
            "keys": cache.keys,
            "near_size": cache.near.size,
            "latency_ms": cache.latency_p50_ms,
        }
    if (storage := figures.storage) is not None:
        found |= {
            "stored_size": storage.total_size,
            "file_count": storage.file_count,
            "free_size": storage.free_size,
        }
    return FigureSample(**found)
