"""Maintenance while the service runs."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from data_layer import DataLayer, Settings
from data_layer.cache import Cache
from data_layer.entities.enums import GenerationStatus
from data_layer.errors import DatabaseUnavailableError
from data_layer.schemas.actors import SYSTEM
from data_layer.services import schedule
from data_layer.services.maintenance import MaintenanceService
from data_layer.services.schedule import scheduled
from tests.support import make_code, make_project, make_user, until


def count_runs(service: MaintenanceService, monkeypatch: pytest.MonkeyPatch, *, failures: int = 0) -> list[object]:
    """Have the first runs fail, and note each run."""
    runs: list[object] = []
    really_run = type(service).run

    async def run(self: MaintenanceService, *arguments: object, **options: object) -> object:
        runs.append(None)
        if len(runs) <= failures:
            raise DatabaseUnavailableError("as if it were gone")
        return await really_run(self, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(type(service), "run", run)
    return runs


async def test_it_runs_again_and_again_also_after_failures(data: DataLayer, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = count_runs(data.maintenance, monkeypatch, failures=2)
    async with scheduled(data.maintenance, data.cache, 0.02):
        await until(lambda: len(runs) >= 5)
    stopped_at = len(runs)
    await asyncio.sleep(0.1)
    assert len(runs) == stopped_at
    assert (await data.maintenance.run(SYSTEM, dry_run=True)).audit_partitions_made == ()


async def test_a_round_that_another_replica_has_had_is_left_out(
    data: DataLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = count_runs(data.maintenance, monkeypatch)
    really_add, answers = type(data.cache).add, list[bool]()

    async def add(*arguments: Any, **options: Any) -> bool:
        answers.append(await really_add(*arguments, **options))
        return answers[-1]

    monkeypatch.setattr(type(data.cache), "add", add)
    await data.cache.add("data-layer:maintenance-round", value=True, ttl=60)
    async with scheduled(data.maintenance, data.cache, 0.01), scheduled(data.maintenance, data.cache, 0.01):
        await until(lambda: len(answers) >= 5)
        assert runs == []
        await data.cache.delete("data-layer:maintenance-round")
        await until(lambda: len(runs) >= 2)
    assert len(runs) <= answers.count(True), "one round for each note"


async def test_without_redis_every_replica_works(
    data: DataLayer, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = count_runs(data.maintenance, monkeypatch)
    async with Cache(settings.redis, "redis://127.0.0.1:1") as nowhere, scheduled(data.maintenance, nowhere, 0.01):
        await until(lambda: len(runs) >= 2)


async def test_it_can_be_switched_off(data: DataLayer, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = count_runs(data.maintenance, monkeypatch)
    async with scheduled(data.maintenance, data.cache, 0):
        await asyncio.sleep(0.05)
    assert runs == []


async def test_the_end_does_not_wait_for_a_round(data: DataLayer) -> None:
    """A round that waits for a lock is interrupted, and leaves nothing behind that the next one trips over."""
    user = make_user()
    async with data.transaction() as tx:
        tx.add(user)
        await tx.flush()
        async with asyncio.timeout(20):
            async with scheduled(data.maintenance, data.cache, 0.01):
                await asyncio.sleep(0.2)
    assert (await data.maintenance.run(SYSTEM)).is_complete


async def test_generations_whose_writer_has_stopped_are_ended_while_the_service_runs(
    data: DataLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedule, "SWEEP_SECONDS", 0.01)
    user = make_user()
    project = make_project(user)
    code = make_code(project, status=GenerationStatus.PROCESSING, lease_until=datetime.now(UTC) - timedelta(seconds=1))
    async with data.transaction() as tx:
        for entity in (user, project, code):
            tx.add(entity)
    plan = await data.maintenance.run(SYSTEM, dry_run=True)
    assert plan.variants_expired == 1
    async with scheduled(data.maintenance, data.cache, 3600):
        async with asyncio.timeout(30):
            while (await data.maintenance.run(SYSTEM, dry_run=True)).variants_expired:
                await asyncio.sleep(0.01)
    async with data.transaction() as tx:
        assert (await tx.codes.get(code.id)).status is GenerationStatus.FAILED
