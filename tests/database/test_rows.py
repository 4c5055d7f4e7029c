"""The short way of inserting and reading rows stores and returns what the ORM would."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import inspect, select

from data_layer import DataLayer
from data_layer.entities import AuditLog, Entity, GeneratedImage, Session
from data_layer.entities.enums import AuditAction, ImageProvider
from tests.support import make_code, make_project, make_user

USER = make_user()
PROJECT = make_project(USER)
MOMENT = datetime(2020, 2, 29, 12, tzinfo=UTC)
MINIMAL: list[Entity] = [
    USER,
    PROJECT,
    make_code(PROJECT),
    GeneratedImage(project_id=PROJECT.id, prompt="p", provider=ImageProvider.DALLE3, model="m", size="1024x1024"),
    Session(session_id="hash", user_id=USER.id, expires_at=MOMENT),
    AuditLog.system_event(AuditAction.SYSTEM_STARTUP, "Started"),
]


def _values(entity: Entity) -> dict[str, Any]:
    attributes = inspect(type(entity)).column_attrs
    return {name: getattr(entity, name) for name in attributes.keys() if not attributes[name].deferred}  # noqa: SIM118  (no mapping)


async def test_what_was_never_assigned_is_the_same_in_python_and_in_the_database(data: DataLayer) -> None:
    async with data.transaction() as tx:
        for entity in MINIMAL:
            tx.add(entity)
    async with data.transaction() as tx:
        session = await tx.orm()
        for entity in MINIMAL:
            loaded = (await session.scalars(select(type(entity)).where(type(entity).id == entity.id))).one()
            expected = _values(entity)
            if entity is PROJECT:  # Its version counted itself after the project was inserted.
                expected |= {name: getattr(loaded, name) for name in ("generation_count", "last_generated_at")}
            assert _values(loaded) == expected


async def test_reading_by_id_gives_what_the_orm_gives(data: DataLayer) -> None:
    user = make_user(preferences={"a": [1, {"b": None}]}, last_login_ip="2001:db8::1", last_login_at=MOMENT)
    project = make_project(user, tags=["x", "ü"], settings={"deep": {"er": 1.5}})
    code = make_code(project, code="\N{GRINNING FACE}" * 5000, temperature=0.25, metrics={"n": 2**60}, rating=5)
    async with data.transaction() as tx:
        for entity in (user, project, code):
            tx.add(entity)
    async with data.transaction() as short:
        by_id: list[Entity] = [
            await short.users.get(user.id),
            await short.projects.get(project.id),
            await short.codes.get(code.id),
        ]
    async with data.transaction() as tx:
        session = await tx.orm()
        for found in by_id:
            loaded = (await session.scalars(select(type(found)).where(type(found).id == found.id))).one()
            assert _values(found) == _values(loaded)
            assert {type(value) for value in _values(found).values()} == {type(v) for v in _values(loaded).values()}


@pytest.mark.parametrize("name", ["created_at", "updated_at"])
async def test_history_can_be_imported(data: DataLayer, name: str) -> None:
    user = make_user(**{name: MOMENT - timedelta(days=1)})
    async with data.transaction() as tx:
        tx.add(user)
    async with data.transaction() as tx:
        assert getattr(await tx.users.get(user.id), name) == MOMENT - timedelta(days=1)
