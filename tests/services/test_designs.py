"""Design systems: one person's own, bounded in size and number, no change lost, every change recorded."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from uuid_utils.compat import uuid7

from data_layer import DataLayer
from data_layer.entities import User
from data_layer.entities.enums import AuditAction, UserRole, UserStatus
from data_layer.errors import (
    ChangedMeanwhileError,
    DataLayerError,
    InvalidTextError,
    InvalidValueError,
    LimitReachedError,
    NotFoundError,
    PermissionDeniedError,
    ValueTooLongError,
)
from data_layer.schemas.actors import ANONYMOUS, SYSTEM, Actor
from data_layer.schemas.designs import DesignSystemChanges, DesignSystemView
from data_layer.services.designs import MAXIMUM_NUMBER, MAXIMUM_SIZE
from tests.support import stored_actor


@pytest.fixture
async def owner(data: DataLayer) -> Actor:
    return await stored_actor(data)


async def entries(data: DataLayer) -> list[tuple[AuditAction, str | None, dict[str, Any], dict[str, Any]]]:
    async with data.transaction() as tx:
        found = await tx.audit.list(resource_type="design_system")
    return [(entry.action, entry.resource_id, entry.old_values, entry.new_values) for entry in found]


async def test_a_design_system_is_created_read_changed_and_deleted(data: DataLayer, owner: Actor) -> None:
    created = await data.designs.create(owner, name="  Löffel & Co ", content="Buttons are round. 🥄")
    assert (created.name, created.content) == ("Löffel & Co", "Buttons are round. 🥄")
    second = await data.designs.create(owner, name="Löffel & Co", content="")
    assert await data.designs.get(owner, created.id) == created
    assert await data.designs.list(owner) == [created, second]

    changed = await data.designs.update(owner, created.id, DesignSystemChanges(content="Square."))

    assert (changed.name, changed.content) == (created.name, "Square.")
    assert changed.updated_at > created.updated_at
    assert changed.created_at == created.created_at
    await data.designs.delete(owner, created.id)
    assert await data.designs.list(owner) == [second]
    with pytest.raises(NotFoundError):
        await data.designs.delete(owner, created.id)


async def test_each_change_is_recorded_without_the_content(data: DataLayer, owner: Actor) -> None:
    design = await data.designs.create(owner, name="A", content="secret sauce")
    await data.designs.update(owner, design.id, DesignSystemChanges(name="B"))
    await data.designs.update(owner, design.id, DesignSystemChanges(content="SECRET SAUCE"))
    await data.designs.update(owner, design.id, DesignSystemChanges(name=" B ", content="SECRET SAUCE"))
    await data.designs.delete(owner, design.id)
    identity = str(design.id)
    assert await entries(data) == [
        (AuditAction.DESIGN_CREATE, identity, {}, {"name": "A", "content_size": 12}),
        (AuditAction.DESIGN_UPDATE, identity, {"name": "A"}, {"name": "B"}),
        (AuditAction.DESIGN_UPDATE, identity, {}, {}),
        (AuditAction.DESIGN_DELETE, identity, {"name": "B", "content_size": 12}, {}),
    ]


async def test_an_update_that_changes_nothing_keeps_the_time(data: DataLayer, owner: Actor) -> None:
    design = await data.designs.create(owner, name="A", content="x")
    for changes in (DesignSystemChanges(), DesignSystemChanges(name="A", content="x")):
        assert await data.designs.update(owner, design.id, changes) == design


async def test_a_lost_update_is_refused(data: DataLayer, owner: Actor) -> None:
    design = await data.designs.create(owner, name="A", content="")
    results = await asyncio.gather(
        *(
            data.designs.update(
                owner, design.id, DesignSystemChanges(content=f"writer {number}"), expected=design.updated_at
            )
            for number in range(8)
        ),
        return_exceptions=True,
    )
    won = [result for result in results if isinstance(result, DesignSystemView)]
    assert [type(result) for result in results if result not in won] == [ChangedMeanwhileError] * 7
    assert won == [await data.designs.get(owner, design.id)]
    with pytest.raises(ChangedMeanwhileError, match="read it again"):
        await data.designs.delete(owner, design.id, expected=design.updated_at)
    await data.designs.delete(owner, design.id, expected=won[0].updated_at)


@pytest.mark.parametrize("name", ["", " \t\n", None, 5, b"bytes"])
async def test_a_name_is_needed(data: DataLayer, owner: Actor, name: Any) -> None:
    with pytest.raises(InvalidValueError) as raised:
        await data.designs.create(owner, name=name, content="")
    assert raised.value.field == "name"
    assert await data.designs.list(owner) == []


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"content": "ä" * (MAXIMUM_SIZE // 2) + "x"}, ValueTooLongError),
        ({"content": "a\0b"}, InvalidTextError),
        ({"content": "\ud800"}, InvalidTextError),
        ({"name": "n" * 256}, ValueTooLongError),
        ({"name": "a\0b"}, InvalidTextError),
    ],
)
async def test_what_cannot_be_kept_is_refused_by_name(
    data: DataLayer, owner: Actor, values: dict[str, str], error: type[InvalidValueError]
) -> None:
    design = await data.designs.create(owner, name="n" * 255, content="ä" * (MAXIMUM_SIZE // 2))
    with pytest.raises(error) as created:
        await data.designs.create(owner, name=values.get("name", "A"), content=values.get("content", ""))
    with pytest.raises(error) as changed:
        await data.designs.update(owner, design.id, DesignSystemChanges(**values))
    assert [created.value.field, changed.value.field] == [*values, *values]
    assert await data.designs.list(owner) == [design]


async def test_the_number_is_limited_however_many_come_at_once(data: DataLayer, owner: Actor) -> None:
    for number in range(MAXIMUM_NUMBER - 2):
        await data.designs.create(owner, name=f"{number}", content="")
    results = await asyncio.gather(
        *(data.designs.create(owner, name=f"late {number}", content="") for number in range(8)), return_exceptions=True
    )
    assert sum(isinstance(result, LimitReachedError) for result in results) == 6
    kept = await data.designs.list(owner)
    assert len(kept) == MAXIMUM_NUMBER
    await data.designs.delete(owner, kept[0].id)
    await data.designs.create(owner, name="room again", content="")
    await data.designs.create(await stored_actor(data), name="somebody else's", content="")


async def test_they_go_with_the_account(data: DataLayer, owner: Actor) -> None:
    assert owner.user_id is not None
    await data.designs.create(owner, name="A", content="personal")
    await data.accounts.delete(owner, owner.user_id)
    async with data.transaction() as tx:
        assert await tx.designs.count() == 0


async def test_an_account_that_is_not_active_does_nothing(data: DataLayer, owner: Actor) -> None:
    design = await data.designs.create(owner, name="A", content="")
    async with data.transaction() as tx:
        user: User = await tx.users.get(owner.user_id or uuid7())
        user.status = UserStatus.SUSPENDED
    for call in calls(data, owner, design):
        with pytest.raises(PermissionDeniedError):
            await call


def calls(data: DataLayer, actor: Actor, design: DesignSystemView) -> list[Any]:
    return [
        data.designs.create(actor, name="A", content=""),
        data.designs.list(actor),
        data.designs.get(actor, design.id),
        data.designs.update(actor, design.id, DesignSystemChanges(name="B"), expected=design.updated_at),
        data.designs.delete(actor, design.id, expected=design.updated_at),
    ]


METHODS = ("create", "list", "get", "update", "delete")
WHO = ("owner", "stranger", "nobody", "moderator", "administrator", "system")


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(who=st.sampled_from(WHO), method=st.sampled_from(METHODS), is_there=st.booleans())
async def test_only_the_owner_reaches_them(data: DataLayer, who: str, method: str, *, is_there: bool) -> None:
    owner = await stored_actor(data)
    actor = {
        "owner": owner,
        "stranger": await stored_actor(data),
        "nobody": ANONYMOUS,
        "moderator": await stored_actor(data, role=UserRole.MODERATOR),
        "administrator": await stored_actor(data, role=UserRole.ADMIN),
        "system": SYSTEM,
    }[who]
    design = await data.designs.create(owner, name="A", content="content")
    design_id, before = design.id if is_there else uuid7(), len(await entries(data))
    service, owner_id = data.designs, owner.user_id
    work: Any = {
        "create": lambda: service.create(actor, name="B", content="", owner_id=owner_id),
        "list": lambda: service.list(actor, owner_id=owner_id),
        "get": lambda: service.get(actor, design_id),
        "update": lambda: service.update(actor, design_id, DesignSystemChanges(name="C")),
        "delete": lambda: service.delete(actor, design_id),
    }[method]

    error: DataLayerError | None = None
    try:
        await work()
    except DataLayerError as raised:
        error = raised

    needs_owner = method in {"create", "list"}
    if who in {"owner", "system"}:
        assert error is None if is_there or needs_owner else type(error) is NotFoundError
    else:
        assert type(error) is PermissionDeniedError if needs_owner else type(error) is NotFoundError
        # Whether it exists is not disclosed, by the message neither.
        assert needs_owner or str(error) == f"no design system has the id {design_id}"
        assert await service.get(owner, design.id) == design
    assert len(await entries(data)) - before == (error is None and method in {"create", "update", "delete"})


async def test_the_expected_time_is_that_of_the_row(data: DataLayer, owner: Actor) -> None:
    design = await data.designs.create(owner, name="A", content="")
    almost = design.updated_at + timedelta(microseconds=1)
    with pytest.raises(ChangedMeanwhileError):
        await data.designs.update(owner, design.id, DesignSystemChanges(name="B"), expected=almost)
