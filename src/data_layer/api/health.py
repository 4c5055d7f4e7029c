"""What probes and people ask: alive, ready, healthy."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Literal

from fastapi import APIRouter, Request, Response, status

from data_layer.context import set_patience
from data_layer.errors import DataLayerError, SchemaAheadError
from data_layer.layer import DataLayer
from data_layer.schemas.base import Value
from data_layer.schemas.operations import Health, HealthStatus
from data_layer.services.health import PROBE_SECONDS, within
from data_layer.web.authentication import people_of
from data_layer.web.deadlines import PROBE

_PROBE_INTERVAL = 1.0

router = APIRouter(tags=["health"])
"""The routes for probes. They need no login, so they disclose nothing about the inside."""


class Alive(Value):
    """The process runs."""

    status: Literal["alive"] = "alive"


class Ready(Value):
    """Whether requests can be served; ``reason`` is an error code."""

    ready: bool
    reason: str | None = None


class PublicPartHealth(Value):
    """One part, without the words of its error, which may name servers."""

    healthy: bool
    latency_ms: float
    error_code: str | None


class PublicHealth(Value):
    """All parts, probed at the same moment: 200 when all work, 503 when one does not.

    ``status`` is ``degraded`` when only the cache is broken: requests are served, so ``/readyz`` stays 200.
    """

    database: bool
    cache: bool
    storage: bool
    overall: bool
    status: HealthStatus
    parts: dict[str, PublicPartHealth]


class SharedProbe:
    """A probe of all parts, at most once a second for all who ask: anybody may, and it writes to the storage."""

    def __init__(self, probe: Callable[[], Awaitable[Health]]) -> None:
        self._probe = probe
        self._lock = asyncio.Lock()
        self._last: tuple[float, Health] | None = None

    async def result(self) -> Health:
        """What was found less than a second ago, or is found now."""
        async with self._lock:
            if self._last is None or time.monotonic() - self._last[0] >= _PROBE_INTERVAL:
                self._last = None
                found = await self._probe()
                self._last = time.monotonic(), found
            return self._last[1]


@router.head("/livez", include_in_schema=False)
@router.get("/livez", summary="Does the process run?")
async def livez() -> Alive:
    """Say so, whatever the servers behind it do."""
    return Alive()


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz", summary="Can requests be served?", responses={503: {"model": Ready}})
async def readyz(request: Request, response: Response) -> Ready:
    """The database answers, and its tables fit; the cache is not needed to work."""
    set_patience(PROBE)
    ready = await _readiness(people_of(request).data)
    response.status_code = status.HTTP_200_OK if ready.ready else status.HTTP_503_SERVICE_UNAVAILABLE
    return ready


@router.head("/health", include_in_schema=False)
@router.get("/health", summary="Do database, cache and storage work?", responses={503: {"model": PublicHealth}})
async def health(request: Request, response: Response) -> PublicHealth:
    """What was found less than a second ago, or is found now."""
    set_patience(PROBE)
    probe: SharedProbe = request.app.state.probe
    report = await probe.result()
    response.status_code = status.HTTP_200_OK if report.overall else status.HTTP_503_SERVICE_UNAVAILABLE
    return PublicHealth.model_validate(report.model_dump())


async def _readiness(data: DataLayer) -> Ready:
    """Ready with a database whose tables fit; the cache is not needed to work.

    They still fit when a newer version has migrated them meanwhile: what a migration takes away, the version before no
    longer used. If the pods of that one were not ready now, nobody would serve in the middle of a rollout. A process
    that only starts refuses such a database.
    """
    try:
        await within(PROBE_SECONDS, data.require_current_schema())
    except TimeoutError:
        return Ready(ready=False, reason="timeout")
    except SchemaAheadError:
        return Ready(ready=True)
    except DataLayerError as error:
        return Ready(ready=False, reason=error.code)
    return Ready(ready=True)
