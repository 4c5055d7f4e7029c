"""What the tests of generations share."""

from __future__ import annotations

from typing import Any, NamedTuple
from uuid import UUID

import pytest
from sqlalchemy import text

from data_layer import DataLayer
from data_layer.schemas.actors import Actor
from data_layer.schemas.generations import GenerationRequest, StartedGeneration, VariantModel
from data_layer.services.generations import streams
from tests.support import make_project, make_user


class Owner(NamedTuple):
    """A person with a project."""

    actor: Actor
    project_id: UUID


async def stored_owner(data: DataLayer, **values: Any) -> Owner:
    user = make_user(**values)
    project = make_project(user)
    async with data.transaction() as tx:
        tx.add(user)
        tx.add(project)
    return Owner(Actor.user(user.id, user.role), project.id)


@pytest.fixture(autouse=True)
def _checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    """None by itself: on a busy machine it would come between any two steps of a test."""
    monkeypatch.setattr(streams, "CHECKPOINT_SECONDS", 3600.0)


@pytest.fixture
async def owner(data: DataLayer) -> Owner:
    return await stored_owner(data)


async def started(data: DataLayer, owner: Owner, variants: int = 1, **request: Any) -> StartedGeneration:
    models = [VariantModel()] * variants
    return await data.generations.start(owner.actor, owner.project_id, GenerationRequest(**request), models)


async def rows(data: DataLayer, statement: str, **values: Any) -> list[tuple[Any, ...]]:
    async with data.transaction() as tx:
        return [tuple(row) for row in await tx.execute(text(statement).bindparams(**values))]


async def let_leases_run_out(data: DataLayer) -> None:
    async with data.transaction() as tx:
        await tx.execute(
            text("UPDATE generated_codes SET lease_until = now() - interval '1 s' WHERE lease_until IS NOT NULL")
        )
