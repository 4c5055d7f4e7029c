"""Events of generations are kept with their variant for a time, then removed in batches."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy import text

from data_layer import DataLayer, Settings
from data_layer.entities.time_ordered_ids import id_at
from data_layer.schemas.actors import SYSTEM
from data_layer.schemas.generations import CodePiece, VariantEvent
from data_layer.services import maintenance
from tests.services.generations.conftest import Owner, rows, started
from tests.services.generations.test_following import Picture

OLD = timedelta(days=91)


async def some_events(data: DataLayer, owner: Owner, old: int, new: int) -> UUID:
    """A variant with events, the first of them long ago."""
    generation = await started(data, owner)
    events = [VariantEvent("thinking", {"n": number}) for number in range(old + new)]
    await data.generations.append(owner.actor, generation.writer_token, 0, 1, *events, CodePiece("x"))
    await data.generations.complete(owner.actor, generation.writer_token, 0)
    async with data.transaction() as tx:
        for number in range(1, old + 1):
            moved = text("UPDATE generation_events SET id = :id, created_at = :at WHERE sequence = :number")
            at = datetime.now(UTC) - OLD - timedelta(seconds=number)
            await tx.execute(moved.bindparams(id=id_at(at), at=at, number=number))
    return generation.id


async def test_old_events_are_removed_in_batches(
    data: DataLayer, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "_BATCH", 2)
    generation_id = await some_events(data, owner, 5, 3)
    assert (await data.maintenance.run(SYSTEM, dry_run=True)).generation_events_removed == 5
    report = await data.maintenance.run(SYSTEM)
    assert (report.generation_events_removed, report.problems) == (5, ())
    assert await rows(data, "SELECT sequence FROM generation_events ORDER BY 1") == [(6,), (7,), (8,)]
    assert (await data.maintenance.run(SYSTEM)).generation_events_removed == 0
    reader = Picture()
    await reader.follow(data, owner, generation_id)
    assert (reader.codes, reader.events) == ({0: "x"}, {0: [6, 7, 8]})


async def test_they_can_be_kept_for_ever(data: DataLayer, owner: Owner, settings: Settings) -> None:
    await some_events(data, owner, 2, 0)
    async with DataLayer(settings.replaced(generation_event_retention=0)) as keeping:
        assert (await keeping.maintenance.run(SYSTEM, dry_run=True)).generation_events_removed == 0
        assert (await keeping.maintenance.run(SYSTEM)).generation_events_removed == 0
    async with DataLayer(settings.replaced(generation_event_retention=92)) as keeping:
        assert (await keeping.maintenance.run(SYSTEM)).generation_events_removed == 0
    assert await rows(data, "SELECT count(*) FROM generation_events") == [(2,)]
