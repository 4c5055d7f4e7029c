"""Nobody sees or changes what is somebody else's, by any method of any service. New methods are found by reflection."""

from __future__ import annotations

import inspect
from typing import Any
from uuid import UUID

import pytest

from data_layer import DataLayer
from data_layer.errors import DataLayerError
from data_layer.schemas.actors import Actor
from tests.support import stored_actor

from .test_every_argument import CASES, Case, World, annotations_of, methods_of

OWNERS = {"actor", "owner_id"}
METHODS = sorted({case[:2] for case in CASES if OWNERS & annotations_of(methods_of(case.service)[case.method]).keys()})
LISTS = [
    (service, method)
    for service, method in METHODS
    if str(inspect.signature(methods_of(service)[method]).return_annotation).startswith(("Sequence", "list"))
    or str(inspect.signature(methods_of(service)[method]).return_annotation).partition("[")[0].endswith("Page")
]
NOT_FOR_OWNERS = {
    ("accounts", "list"),
    ("sessions", "list_all"),
    ("mails", "list"),
    ("operations", "examine"),
    ("audit", "list"),
    ("usage", "sums"),
    ("usage", "entries"),
    ("accounts", "renew_recovery_codes"),
}
"""For staff, without anything in them here, or new secrets that nobody can know before."""


async def call_as(world: World, person: UUID, service: str, method: str, *, whose: UUID | None) -> tuple[Any, bool]:
    """What a method returns to a person who names the things of the world, and whether it was asked for one of them."""
    plain = methods_of(service)[method]
    annotations = annotations_of(plain)
    values: dict[str, Any] = {}
    for name, parameter in inspect.signature(plain).parameters.items():
        if name in annotations and parameter.kind is not parameter.VAR_KEYWORD and parameter.default is parameter.empty:
            values[name] = world.plausible(Case(service, method, name), name, annotations[name])
    things = {value for value in values.values() if isinstance(value, UUID) and value in world.ids}
    if "actor" not in annotations:
        things.discard(values.get("owner_id"))  # The person is put in its place.
    if whose is not None:
        values |= dict.fromkeys({"owner_id", "user_id"} & annotations.keys(), whose)
    elif "actor" in annotations:
        values.pop("owner_id", None)
    if "actor" in annotations:
        values["actor"] = Actor.user(person)
    else:
        values["owner_id"] = person
    if "text" in values:
        values["text"] = "Project"
    asked = bool(things) or ("actor" in annotations and whose not in {None, person} and "user_id" in annotations)
    return await world.use(
        getattr(getattr(world.data, service), method), inspect.signature(plain).parameters, values
    ), asked


@pytest.fixture
async def world(data: DataLayer) -> World:
    world = World(data)
    await world.make()
    return world


async def fault_of(world: World, stranger: UUID, service: str, method: str, *, names_owner: bool) -> str | None:
    """What a stranger could see or change by a method."""
    try:
        result, asked = await call_as(world, stranger, service, method, whose=world.user_id if names_owner else None)
    except DataLayerError:
        return None
    if asked and result not in (False, 0, [], ()):
        return f"{service}.{method} did something for a stranger"
    shown = repr(result)
    if any(isinstance(value, UUID) and str(value) in shown for value in world.values.values()):
        return f"{service}.{method} returns {shown[:200]}"
    return None


@pytest.mark.parametrize("service", sorted({service for service, _ in METHODS}))
@pytest.mark.parametrize("names_owner", [False, True])
async def test_a_stranger_sees_and_changes_nothing(world: World, service: str, *, names_owner: bool) -> None:
    """All methods meet the same things, which are still there if each has kept the stranger away."""
    stranger = await stored_actor(world.data)
    assert stranger.user_id
    methods = [each for each in METHODS if each[0] == service]
    found = [await fault_of(world, stranger.user_id, *each, names_owner=names_owner) for each in methods]
    assert [fault for fault in found if fault] == []
    await world.read_everything()


async def test_the_owner_sees_it(world: World) -> None:
    """Without this the test above could pass because a list is always empty."""
    for service, method in LISTS:
        if (service, method) not in NOT_FOR_OWNERS:
            result, _ = await call_as(world, world.user_id, service, method, whose=world.user_id)
            assert any(str(value) in repr(result) for value in world.ids), f"{service}.{method} returns {result!r}"


def test_the_methods_are_found() -> None:
    assert len(METHODS) >= 80
    assert len(LISTS) >= 10
