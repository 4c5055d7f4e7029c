"""An application that knows no ids gets its tree, in whatever order, pieces and number its requests arrive."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_layer import DataLayer
from data_layer.entities.enums import AuditAction, GenerationStatus, ProjectStatus, RequestType, UserRole, UserStatus
from data_layer.errors import DataLayerError, DuplicateError, InvalidValueError, NotFoundError, PermissionDeniedError
from data_layer.schemas.actors import ANONYMOUS, SYSTEM
from data_layer.schemas.lineage import EarlierTurn, ReceivedGeneration, ReceivedVariant
from data_layer.schemas.projects import ProjectDraft
from tests.services.generations.conftest import Owner, rows
from tests.support import stored_actor

BEGIN = datetime(2026, 11, 29, 12, tzinfo=UTC)
FAILED = GenerationStatus.FAILED


def variants(*codes: str | None) -> tuple[ReceivedVariant, ...]:
    return tuple(
        ReceivedVariant(index=index, code=code) if code else ReceivedVariant(index=index, status=FAILED, message="no")
        for index, code in enumerate(codes)
    )


def request(key: str, *codes: str | None, minute: int = 0, base: str | None = None, **more: Any) -> ReceivedGeneration:
    kind = RequestType.CREATE if base is None else RequestType.UPDATE
    values: dict[str, Any] = {"generation_type": kind, "base_code": base, "prompt": key} | more
    at = BEGIN + timedelta(minutes=minute)
    return ReceivedGeneration(source="app", key=key, at=at, variants=variants(*codes), **values)


def turns(*pairs: tuple[str, str | None]) -> tuple[EarlierTurn, ...]:
    return tuple(EarlierTurn(prompt=prompt, code=code) for prompt, code in pairs)


TREE = """
SELECT g.project_id, coalesce(g.external_key, 'stand-in'), c.variant_index, c.code, g.generation_type,
    coalesce(pg.external_key, 'stand-in'), p.variant_index, p.code
FROM generated_codes c JOIN generations g ON g.id = c.generation_id
LEFT JOIN generated_codes p ON p.id = c.parent_id LEFT JOIN generations pg ON pg.id = p.generation_id
JOIN projects ON projects.id = g.project_id WHERE user_id = :id
"""
NUMBERS = """
SELECT generation_count, ARRAY(SELECT number FROM generations WHERE project_id = projects.id ORDER BY number),
    (SELECT bool_and(c.version = g.number) FROM generations g JOIN generated_codes c ON c.generation_id = g.id
    WHERE g.project_id = projects.id)
FROM projects WHERE user_id = :id
"""


async def forest(data: DataLayer, owner_id: UUID | None) -> list[list[tuple[Any, ...]]]:
    """The trees of a person's projects; numbers and ids may differ, but there are no gaps."""
    trees: dict[UUID, list[tuple[Any, ...]]] = {}
    for project_id, *row in await rows(data, TREE, id=owner_id):
        trees.setdefault(project_id, []).append(tuple(row))
    for count, numbers, is_same in await rows(data, NUMBERS, id=owner_id):
        assert numbers == list(range(1, count + 1))
        assert is_same in {True, None}
    return sorted(sorted(tree, key=str) for tree in trees.values())


async def parents(data: DataLayer, owner: Owner) -> dict[str, str | None]:
    """The code that each code was made from."""
    [tree] = await forest(data, owner.actor.user_id)
    return {code: parent for _, _, code, _, _, _, parent in tree}


async def receive(data: DataLayer, owner: Owner, *received: ReceivedGeneration) -> None:
    for each in received:
        await data.generations.receive(owner.actor, each, project_id=owner.project_id)


@dataclass(frozen=True)
class Request:
    """One request of a story, which made its codes from a variant of an earlier one, if it did."""

    parent: int
    variant: int
    codes: tuple[str | None, ...]
    prompt: str
    is_reopened: bool


def requests(codes: st.SearchStrategy[str]) -> st.SearchStrategy[list[Request]]:
    one = st.builds(
        Request,
        parent=st.integers(-2, 4),
        variant=st.integers(0, 2),
        codes=st.lists(st.one_of(codes, codes, codes, st.none()), min_size=1, max_size=3).map(tuple),
        prompt=st.sampled_from("pq"),
        is_reopened=st.booleans(),
    )
    return st.lists(one, min_size=2, max_size=6)


@dataclass(frozen=True)
class Telling:
    """How much the application tells."""

    has_turn_codes: bool
    has_variants: bool
    strips: bool


def told(story: Sequence[Request], telling: Telling, *, imports: bool = True) -> list[ReceivedGeneration]:
    """The requests as the application sends them. What has no parent that can be changed creates, or imports."""
    conversations: list[tuple[EarlierTurn, ...]] = []
    received = []
    for number, step in enumerate(story):
        parent = story[step.parent] if 0 <= step.parent < number else None
        base = parent.codes[step.variant % len(parent.codes)] if parent else None
        earlier: tuple[EarlierTurn, ...] = ()
        if base is None or parent is None:
            base = f"imported {step.variant}" if step.parent == -2 and imports else None
        elif not (step.is_reopened and imports):
            code = base.strip() if telling.has_turn_codes else None
            earlier = (*conversations[step.parent], EarlierTurn(prompt=parent.prompt, code=code))
        conversations.append(earlier)
        told_base = base.strip() if base is not None and telling.strips else base
        others = tuple(code for code in parent.codes if code) if parent and base and telling.has_variants else ()
        said = {"base_variants": others, "earlier": earlier, "prompt": step.prompt}
        received.append(request(str(number), *step.codes, minute=number, base=told_base, **said))
    return received


def unique(story: Sequence[Request]) -> list[Request]:
    """The same story in which no two codes are equal."""
    return [
        replace(step, codes=tuple(code and f"{number}.{index} {code}" for index, code in enumerate(step.codes)))
        for number, step in enumerate(story)
    ]


def pieces(received: Sequence[ReceivedGeneration]) -> list[ReceivedGeneration]:
    """Each variant by itself."""
    return [each.model_copy(update={"variants": (variant,)}) for each in received for variant in each.variants]


tellings = st.builds(Telling, has_turn_codes=st.booleans(), has_variants=st.booleans(), strips=st.booleans())
few_codes = st.sampled_from(["a", "a ", "\n a", "b", "c"])
examples = settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)


async def new_owner(data: DataLayer) -> Owner:
    actor = await stored_actor(data)
    return Owner(actor, (await data.projects.create(actor, ProjectDraft(name="A"))).id)


# The key names a request once for each application, and examples share a database.
async def deliver(
    data: DataLayer, owner: Owner, received: Sequence[ReceivedGeneration], project_id: UUID | None, *, at_once: bool
) -> None:
    source = str(owner.project_id)
    calls = [
        data.generations.receive(owner.actor, each.model_copy(update={"source": source}), project_id=project_id)
        for each in received
    ]
    if at_once:
        await asyncio.gather(*calls)
    else:
        for call in calls:
            await call


@given(requests(few_codes), tellings, st.data())
@examples
async def test_any_order_in_a_project(
    data: DataLayer, story: list[Request], telling: Telling, draw: st.DataObject
) -> None:
    """Codes are equal again and again, so that only what else is told decides."""
    received = told(story, telling)
    expected = await new_owner(data)
    await deliver(data, expected, received, expected.project_id, at_once=False)
    shuffled = draw.draw(st.permutations(pieces(received)))
    again = draw.draw(st.lists(st.sampled_from(received), max_size=3))
    owner = await new_owner(data)
    await deliver(data, owner, [*shuffled, *again], owner.project_id, at_once=draw.draw(st.booleans()))
    assert await forest(data, owner.actor.user_id) == await forest(data, expected.actor.user_id)


@given(requests(few_codes), tellings, st.data())
@examples
async def test_any_order_without_a_project(
    data: DataLayer, story: list[Request], telling: Telling, draw: st.DataObject
) -> None:
    """All children of a version come from one variant, which arrives with it: else nothing tells that they are related.

    A generation never moves to another project.
    """
    story = [
        replace(step, variant=story[step.parent].variant if 0 <= step.parent < number else 0)
        for number, step in enumerate(unique(story))
    ]
    received = told(story, replace(telling, has_turn_codes=True), imports=False)
    owner = await new_owner(data)
    await data.projects.delete(owner.actor, owner.project_id)
    shuffled = draw.draw(st.permutations([*received, *received[:1]]))
    await deliver(data, owner, shuffled, None, at_once=draw.draw(st.booleans()))
    assert await forest(data, owner.actor.user_id) == true_forest(story)


def true_forest(story: Sequence[Request]) -> list[list[tuple[Any, ...]]]:
    """What the forest is by the story itself."""
    trees: list[list[tuple[Any, ...]]] = []
    tree_of: list[int] = []
    for number, step in enumerate(story):
        parent = story[step.parent] if 0 <= step.parent < number else None
        index = step.variant % len(parent.codes) if parent else 0
        base = parent.codes[index] if parent else None
        if base is None:
            tree_of.append(len(trees))
            trees.append([])
        else:
            tree_of.append(tree_of[step.parent])
        made_from = ("stand-in", None, None) if base is None else (str(step.parent), index, base)
        kind = "create" if base is None else "update"
        trees[tree_of[-1]] += [
            (str(number), place, code or "", kind, *made_from) for place, code in enumerate(step.codes)
        ]
    return sorted(sorted(tree, key=str) for tree in trees)


async def test_the_code_decides_then_the_variants_then_the_conversation(data: DataLayer, owner: Owner) -> None:
    await receive(
        *(data, owner),
        request("exact", " same", minute=1),
        request("trimmed", "same ", minute=2),
        request("set", "same", "other", minute=3, base="same "),
        request("talk", "same", minute=4, earlier=turns(("hello", None))),
        request("last", "same", minute=5),
    )

    async def parent_of(**more: Any) -> str:
        asked = request("asked", "new", minute=9, **more)
        found = await data.generations.find_parent(owner.actor, asked, project_id=owner.project_id)
        assert found is not None
        [(key,)] = await rows(
            data, "SELECT external_key FROM generations JOIN generated_codes c ON c.generation_id = generations.id "
            "WHERE c.id = :id", id=found.id
        )  # fmt: skip
        return str(key)

    assert await parent_of(base=" same") == "exact"
    assert await parent_of(base="same", base_variants=("other", "same")) == "set"
    assert await parent_of(base="same", earlier=turns(("hello", None), ("talk", None))) == "talk"
    assert await parent_of(base="same") == "last"
    assert await parent_of(base="\u2003same\ufeff") == "last"
    nothing = request("asked", "new", minute=9, base="unknown")
    assert await data.generations.find_parent(owner.actor, nothing, project_id=owner.project_id) is None
    assert await rows(data, "SELECT id FROM generations WHERE external_key IS NULL") == []


async def test_an_unknown_code_becomes_a_root_of_type_import(data: DataLayer, owner: Owner) -> None:
    await receive(data, owner, request("edit", "new", base="<p>mine</p>"), request("edit 2", "x", base="<p>mine</p>"))
    [tree] = await forest(data, owner.actor.user_id)
    assert tree == [
        ("edit 2", 0, "x", "update", "stand-in", 0, "<p>mine</p>"),
        ("edit", 0, "new", "update", "stand-in", 0, "<p>mine</p>"),
        ("stand-in", 0, "<p>mine</p>", "import", "stand-in", None, None),
    ]


async def test_a_stand_in_goes_when_the_parent_arrives(data: DataLayer, owner: Owner) -> None:
    conversation = turns(("make", "one"), ("bigger", "two"))
    await receive(data, owner, request("third", "three", minute=3, base="two", earlier=conversation))
    assert await parents(data, owner) == {"one": None, "two": "one", "three": "two"}
    history = await data.generations.history(owner.actor, owner.project_id)
    assert [(view.generation_type, view.prompt) for view in history][:2] == [("import", "bigger"), ("import", "make")]
    await receive(data, owner, request("first", "one", minute=1, prompt="make"))
    await receive(
        data, owner, request("second", "two", minute=2, base="one", earlier=turns(("make", "one")), prompt="bigger")
    )
    assert await parents(data, owner) == {"one": None, "two": "one", "three": "two"}
    assert await rows(data, "SELECT count(*) FROM generations WHERE external_key IS NULL") == [(0,)]


@pytest.mark.parametrize("mark", ["favorite", "share", "name"])
async def test_a_stand_in_that_somebody_uses_stays(data: DataLayer, owner: Owner, mark: str) -> None:
    await receive(data, owner, request("second", "two", minute=2, base="one"))
    [stand_in] = [v for v in await data.generations.history(owner.actor, owner.project_id) if not v.prompt]
    match mark:
        case "favorite":
            await data.generations.mark_favorite(owner.actor, stand_in.variants[0].id)
        case "share":
            await data.shares.create(owner.actor, owner.project_id, version=stand_in.number)
        case _:
            await data.generations.rename(owner.actor, stand_in.variants[0].id, "mine")
    await receive(data, owner, request("first", "one", minute=1))
    [tree] = await forest(data, owner.actor.user_id)
    assert ("second", 0, "two", "update", "first", 0, "one") in tree
    assert ("stand-in", 0, "one", "import", "stand-in", None, None) in tree


async def test_the_clock_of_the_application_went_back(data: DataLayer, owner: Owner) -> None:
    conversation = turns(("first", None))
    await receive(
        data, owner, request("first", "one", minute=9), request("second", "two", base="one", earlier=conversation)
    )
    assert await parents(data, owner) == {"one": None, "two": "one"}


async def test_codes_that_come_back_make_no_circle(data: DataLayer, owner: Owner) -> None:
    """Each changes nothing, at the same time, and tells the same conversation."""
    same = [request(f"{n}", "one", base="one", prompt="p", earlier=turns(("p", None))[:0]) for n in range(4)]
    await receive(data, owner, *same, *same)
    rise = """
        WITH RECURSIVE up AS (
            SELECT id, parent_id, 0 AS steps FROM generated_codes
            UNION ALL SELECT up.id, c.parent_id, steps + 1 FROM up JOIN generated_codes c ON c.id = up.parent_id
            WHERE steps < 99
        ) SELECT max(steps) FROM up
    """
    [(longest,)] = await rows(data, rise)
    assert longest < 99


async def test_children_of_two_variants_meet_in_one_project(data: DataLayer) -> None:
    actor = await stored_actor(data)
    said: dict[str, Any] = {"earlier": turns(("make", None)), "base_variants": ("one", "two")}
    for key, base in (("b", "one"), ("c", "two")):
        await data.generations.receive(actor, request(key, key, minute=1, base=base, **said))
    await data.generations.receive(actor, request("a", "one", "two", prompt="make"))
    [tree] = await forest(data, actor.user_id)
    assert [(row[0], row[5]) for row in tree if row[3] == "update"] == [("b", 0), ("c", 1)]
    assert len(tree) == 4


async def test_what_lies_in_two_projects_stays_there(data: DataLayer) -> None:
    """Nothing told that two children belong together; project and number of each were answered, so they hold."""
    actor = await stored_actor(data)
    receive = data.generations.receive
    children = [await receive(actor, request(key, key, minute=1, base=base)) for key, base in (("b", "1"), ("c", "2"))]
    assert len({child.project_id for child in children}) == 2
    parent = await receive(actor, request("a", "1", "2"))
    assert parent.project_id in {child.project_id for child in children}

    again = [await receive(actor, request(key, key, minute=1, base=base)) for key, base in (("b", "1"), ("c", "2"))]
    assert [(each.id, each.project_id) for each in again] == [(each.id, each.project_id) for each in children]
    trees = await forest(data, actor.user_id)
    made_from = {row[0]: row[6] for tree in trees for row in tree if row[3] == "update"}
    assert made_from == {"b": "1", "c": "2"}  # One from the parent itself, one from what stands for it.
    assert sorted(len(tree) for tree in trees) == [2, 3]

    # Whoever names the project has one tree, in this order too.
    project_id = (await data.projects.create(actor, ProjectDraft(name="A"))).id
    for key, codes, base in (("b2", ["b"], "1"), ("c2", ["c"], "2"), ("a2", ["1", "2"], None)):
        received = request(key, *codes, minute=0 if base is None else 1, base=base)
        await receive(actor, received, project_id=project_id)
    assert sorted(len(tree) for tree in await forest(data, actor.user_id)) == [2, 3, 4]


async def test_strange_texts_are_found_again(data: DataLayer, owner: Owner) -> None:
    code = "<p>\0\ud83d</p>"
    await receive(data, owner, request("a", code, prompt="\0"), request("b", "two", minute=1, base=code + "\n"))
    assert await parents(data, owner) == {"<p>\u2400\ufffd</p>": None, "two": "<p>\u2400\ufffd</p>"}


async def test_what_is_sent_twice_changes_nothing(data: DataLayer, owner: Owner) -> None:
    await receive(data, owner, request("a", "one", None))
    before = await rows(data, "SELECT id, code, status, updated_at FROM generated_codes ORDER BY id")
    entries = await rows(data, "SELECT count(*) FROM audit_logs")
    await receive(data, owner, request("a", "another", "late"))
    assert await rows(data, "SELECT id, code, status, updated_at FROM generated_codes ORDER BY id") == before
    assert await rows(data, "SELECT count(*) FROM audit_logs") == entries
    with pytest.raises(DuplicateError):
        await data.generations.receive(await stored_actor(data), request("a", "one"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"variants": (ReceivedVariant(index=0, code=" "),)},
        {"variants": (ReceivedVariant(index=0, code="x", status=GenerationStatus.PROCESSING),)},
        {"variants": (*variants("x"), *variants("y"))},
        {"source": "x" * 65},
        {"key": "x" * 256},
        {"key": "\0"},
        {"variants": variants("x" * (5 * 2**20 + 1))},
    ],
    ids=["no code", "running", "twice", "long source", "long key", "nul", "too large"],
)
async def test_bad_input(data: DataLayer, owner: Owner, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidValueError):
        await receive(data, owner, request("a", "x").model_copy(update=wrong))
    assert await rows(data, "SELECT id FROM generations") == []


@pytest.mark.parametrize("method", ["receive", "find_parent"])
@pytest.mark.parametrize("where", ["in the project", "anywhere"])
@pytest.mark.parametrize(
    "who", ["owner", "system", "stranger", "nobody", "moderator", "administrator", "suspended", "holder of a share"]
)
async def test_only_the_owner_is_served(data: DataLayer, owner: Owner, who: str, method: str, where: str) -> None:
    await receive(data, owner, request("a", "one"))
    await data.shares.create(owner.actor, owner.project_id)
    roles = {"moderator": UserRole.MODERATOR, "administrator": UserRole.ADMIN}
    actor = {"owner": owner.actor, "system": SYSTEM, "nobody": ANONYMOUS, "suspended": owner.actor}.get(who)
    if actor is None:
        actor = await stored_actor(data, role=roles.get(who, UserRole.USER))
    if who == "suspended":
        async with data.transaction() as tx:
            (await tx.users.get(owner.actor.user_id)).status = UserStatus.SUSPENDED  # type: ignore[arg-type]
    place = {"project_id": owner.project_id} if where == "in the project" else {"owner_id": owner.actor.user_id}
    call = getattr(data.generations, method)(actor, request("b", "two", minute=1, base="one"), **place)
    if who not in {"owner", "system"}:
        with pytest.raises((NotFoundError, PermissionDeniedError)):
            await call
        assert len(await rows(data, "SELECT id FROM generations")) == 1
        return
    found = await call
    assert found.project_id == owner.project_id
    if method == "receive":
        recorded = (
            "SELECT action, user_id, a.xmin = g.xmin FROM audit_logs a JOIN generations g ON g.id::text = resource_id"
        )
        assert (AuditAction.CODE_GENERATE, owner.actor.user_id, True) in await rows(data, recorded)


async def test_codes_of_others_and_of_the_trash_are_no_parents(data: DataLayer, owner: Owner) -> None:
    await receive(data, owner, request("a", "one"))
    stranger = await stored_actor(data)
    asked = request("b", "two", minute=1, base="one")
    assert await data.generations.find_parent(stranger, asked) is None
    await data.projects.delete(owner.actor, owner.project_id)
    assert await data.generations.find_parent(owner.actor, asked) is None
    view = await data.generations.receive(owner.actor, asked)
    project = await data.projects.open(owner.actor, view.project_id)
    assert (project.id != owner.project_id, project.name, project.status) == (True, "b", ProjectStatus.DRAFT)
    with pytest.raises(DataLayerError):
        await data.generations.receive(owner.actor, asked.model_copy(update={"key": "c"}), project_id=owner.project_id)
