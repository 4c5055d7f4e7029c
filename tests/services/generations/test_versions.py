"""The versions of a project: their tree, any of them, what differs, and an earlier one again."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_layer import DataLayer
from data_layer.entities.enums import GenerationStatus, RequestType
from data_layer.errors import InvalidValueError, NotFoundError
from data_layer.repositories.unit_of_work import UnitOfWork
from data_layer.schemas.codes import GeneratedCodeFull
from data_layer.schemas.generations import CodeDiff
from data_layer.services.generations.differences import _MOST_COMPARED
from tests.services.generations.conftest import Owner, rows, started


async def completed(data: DataLayer, owner: Owner, *codes: str, **request: object) -> list[GeneratedCodeFull]:
    generation = await started(data, owner, len(codes), **request)
    token = generation.writer_token
    return [
        await data.generations.complete(owner.actor, token, variant, code=code) for variant, code in enumerate(codes)
    ]


async def test_history_is_a_tree_of_generations_and_variants(data: DataLayer, owner: Owner) -> None:
    first = await completed(data, owner, "a", "b")
    second = await completed(data, owner, "c", parent_id=first[1].id, generation_type=RequestType.UPDATE)
    third = await completed(data, owner, "d", parent_id=first[1].id)
    history = await data.generations.history(owner.actor, owner.project_id)
    assert [view.number for view in history] == [3, 2, 1]
    assert [[code.id for code in view.variants] for view in history] == [
        [third[0].id],
        [second[0].id],
        [code.id for code in first],
    ]
    assert [view.variants[0].parent_id for view in history] == [first[1].id, first[1].id, None]
    pages = [
        await data.generations.history(owner.actor, owner.project_id, limit=1, before=before) for before in (4, 3, 2, 1)
    ]
    assert tuple(view for page in pages for view in page) == history
    assert "code" not in history[0].variants[0].model_dump()


async def test_the_selected_variant_is_the_version(data: DataLayer, owner: Owner) -> None:
    await completed(data, owner, "a", "b")
    [view] = await data.generations.history(owner.actor, owner.project_id)
    assert (await data.generations.version(owner.actor, owner.project_id, 1)).code == "a"
    changed = await data.generations.select(owner.actor, view.id, 1)
    assert changed.selected_variant == 1
    assert (await data.generations.version(owner.actor, owner.project_id, 1)).code == "b"
    assert (await data.generations.version(owner.actor, owner.project_id, 1, 0)).code == "a"
    assert (await data.generations.latest(owner.actor, owner.project_id)).code == "b"
    with pytest.raises(InvalidValueError):
        await data.generations.select(owner.actor, view.id, 2)
    for place in ((2, None), (1, 2), (0, None), (-1, None), (2**31, None), (1, 2**31)):
        with pytest.raises(NotFoundError):
            await data.generations.version(owner.actor, owner.project_id, *place)


async def test_the_latest_version_is_one_that_is_complete(data: DataLayer, owner: Owner) -> None:
    with pytest.raises(NotFoundError):
        await data.generations.latest(owner.actor, owner.project_id)
    generation = await started(data, owner, 2)
    await data.generations.fail(owner.actor, generation.writer_token, 0, "no")
    await data.generations.complete(owner.actor, generation.writer_token, 1, code="good")
    await started(data, owner)
    assert (await data.generations.latest(owner.actor, owner.project_id)).code == "good"


async def test_restoring_makes_a_version_whose_parent_is_the_restored_one(data: DataLayer, owner: Owner) -> None:
    [first] = await completed(data, owner, "a")
    await completed(data, owner, "b", parent_id=first.id)
    views = await asyncio.gather(*(data.generations.restore(owner.actor, owner.project_id, 1) for _ in range(2)))
    assert sorted(view.number for view in views) == [3, 4]
    for view in views:
        assert (view.generation_type, view.status) == (RequestType.RESTORE, GenerationStatus.COMPLETED)
        assert view.ended_at is not None
        assert [code.parent_id for code in view.variants] == [first.id]
    assert (await data.generations.latest(owner.actor, owner.project_id)).code == "a"
    assert await rows(data, "SELECT generation_count FROM projects") == [(4,)]
    await started(data, owner)
    with pytest.raises(InvalidValueError, match="pending"):
        await data.generations.restore(owner.actor, owner.project_id, 5)


async def test_restoring_is_one_transaction(data: DataLayer, owner: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    await completed(data, owner, "a")
    begun = []
    service = data.generations
    begin = service._transactions

    def counted() -> UnitOfWork:
        begun.append(begin())
        return begun[-1]

    monkeypatch.setattr(service, "_transactions", counted)
    view = await service.restore(owner.actor, owner.project_id, 1)
    assert view.ended_at is not None
    assert len(begun) == 1
    entry = "SELECT a.xmin = g.xmin FROM audit_logs a JOIN generations g ON g.id::text = resource_id WHERE number = 2"
    assert await rows(data, entry) == [(True,)]


async def difference(data: DataLayer, owner: Owner, old: str, new: str) -> CodeDiff:
    # A version without code does not complete, so the codes are stored as they are.
    [first] = await completed(data, owner, old or "x")
    [second] = await completed(data, owner, new or "x")
    async with data.transaction() as tx:
        (await tx.codes.get(first.id)).code = old
        (await tx.codes.get(second.id)).code = new
    return await data.generations.diff(owner.actor, owner.project_id, first.version, (second.version, 0))


async def test_a_difference_by_hunks_and_with_statistics(data: DataLayer, owner: Owner) -> None:
    old = [f"line {number}" for number in range(1, 41)]
    new = [*old[:4], "new", *old[4:30], "changed", *old[31:]]
    found = await difference(data, owner, "\n".join(old), "\n".join(new))
    assert (found.added_lines, found.removed_lines) == (2, 1)
    assert [(h.old_start, h.old_lines, h.new_start, h.new_lines) for h in found.hunks] == [(2, 6, 2, 7), (28, 7, 29, 7)]
    assert found.hunks[1].lines == (
        *(" line 28", " line 29", " line 30", "-line 31", "+changed", " line 32", " line 33", " line 34"),
    )
    assert found.unified.startswith("--- version 1.0\n+++ version 2.0\n@@ -2,6 +2,7 @@\n line 2\n")
    same = await difference(data, owner, "a", "a")
    assert (same.unified, same.hunks) == ("", ())


texts = st.lists(st.sampled_from(["a", "b", "", "cc", " "]), max_size=30).map("\n".join)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(old=texts, new=texts)
async def test_the_hunks_make_the_new_code_of_the_old_one(data: DataLayer, owner: Owner, old: str, new: str) -> None:
    found = await difference(data, owner, old, new)
    lines = old.split("\n")
    for hunk in reversed(found.hunks):
        at = slice(hunk.old_start - 1, hunk.old_start - 1 + hunk.old_lines)
        assert lines[at] == [line[1:] for line in hunk.lines if line[0] in " -"]
        lines[at] = [line[1:] for line in hunk.lines if line[0] in " +"]
        assert hunk.new_lines == sum(line[0] in " +" for line in hunk.lines)
    assert "\n".join(lines) == new


async def test_a_difference_of_hostile_size_is_one_hunk(data: DataLayer, owner: Owner) -> None:
    old = "\n".join(["same", *(f"{number}" for number in range(_MOST_COMPARED + 1)), "end"])
    new = "\n".join(["same", *(f"{-number - 1}" for number in range(_MOST_COMPARED + 1)), "end"])
    found = await difference(data, owner, old, new)
    assert len(found.hunks) == 1
    assert found.added_lines == found.removed_lines


async def test_an_opened_project_shows_what_was_generated_since(data: DataLayer, owner: Owner) -> None:
    """It is cached: whatever counts in its row has to tell the cache."""
    seen = [(await data.projects.open(owner.actor, owner.project_id)).generation_count]
    await completed(data, owner, "a")
    seen.append((await data.projects.open(owner.actor, owner.project_id)).generation_count)
    await data.generations.restore(owner.actor, owner.project_id, 1)
    seen.append((await data.projects.open(owner.actor, owner.project_id)).generation_count)
    assert seen == [0, 1, 2]


async def test_an_opened_project_goes_with_its_account(data: DataLayer, owner: Owner) -> None:
    await data.projects.open(owner.actor, owner.project_id)
    assert owner.actor.user_id is not None
    await data.accounts.delete(owner.actor, owner.actor.user_id)
    with pytest.raises(NotFoundError):
        await data.projects.open(owner.actor, owner.project_id)


@pytest.mark.parametrize("place", [(), (1,), (1, 2, 3), ("a", 0), "1", None, True, 1.5])
async def test_a_place_that_is_none_is_refused_by_name(data: DataLayer, owner: Owner, place: Any) -> None:
    await completed(data, owner, "a")
    with pytest.raises(InvalidValueError) as raised:
        await data.generations.diff(owner.actor, owner.project_id, place, 1)
    assert raised.value.field in {"old", "number"}
    with pytest.raises(InvalidValueError) as raised:
        await data.generations.history(owner.actor, owner.project_id, before=2**31)
    assert raised.value.field == "before"
