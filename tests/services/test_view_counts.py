"""Views are counted exactly, by however many processes, without a write when something is read."""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from uuid_utils.compat import uuid7

from data_layer import DataLayer
from data_layer.entities import GeneratedImage, Project
from data_layer.entities.enums import ProjectStatus
from data_layer.errors import CommitUnknownError, DatabaseUnavailableError, NotFoundError
from data_layer.schemas.actors import Actor
from data_layer.schemas.generations import GenerationRequest, VariantModel
from data_layer.schemas.projects import ProjectDraft, ProjectOrder
from data_layer.services import view_counts
from data_layer.services.view_counts import ViewCounts
from tests.support import stored_actor


async def stored(data: DataLayer, project_id: UUID) -> tuple[int, datetime | None, datetime]:
    async with data.transaction() as tx:
        project = await tx.projects.get(project_id)
        return project.view_count, project.last_viewed_at, project.updated_at


@pytest.fixture
async def owner(data: DataLayer) -> Actor:
    return await stored_actor(data)


async def make(data: DataLayer, owner: Actor, name: str = "A") -> UUID:
    return (await data.projects.create(owner, ProjectDraft(name=name))).id


async def test_opening_counts_when_it_is_written_and_not_before(data: DataLayer, owner: Actor) -> None:
    counts = data._opened.view_counts
    first, second = await make(data, owner), await make(data, owner)
    before = datetime.now(UTC)
    for _ in range(3):
        await data.projects.open(owner, first)
    await data.projects.open(owner, second)
    unviewed = await stored(data, first)
    assert unviewed[:2] == (0, None)

    await counts.flush()
    await counts.flush()

    count, last, changed = await stored(data, first)
    assert (count, (await stored(data, second))[0]) == (3, 1)
    assert last is not None
    assert before - timedelta(seconds=1) <= last <= datetime.now(UTC) + timedelta(seconds=1)
    assert changed == unviewed[2]  # A view is no change.


async def test_a_view_leaves_the_project_in_the_cache(data: DataLayer, owner: Actor) -> None:
    project_id = await make(data, owner)
    await data.projects.open(owner, project_id)
    async with data.transaction() as tx:  # Behind the cache's back: who sees it has asked the database.
        await tx.projects.increment(project_id, "view_count", amount=100)
    await data._opened.view_counts.flush()
    assert (await data.projects.open(owner, project_id)).view_count == 0


async def test_who_may_not_look_is_not_counted(data: DataLayer, owner: Actor) -> None:
    project_id = await make(data, owner)
    stranger = await stored_actor(data)
    with pytest.raises(Exception, match="no project"):
        await data.projects.open(stranger, project_id)
    await data._opened.view_counts.flush()
    assert (await stored(data, project_id))[0] == 0


async def test_what_is_left_is_written_at_close(data: DataLayer, owner: Actor) -> None:
    project_id = await make(data, owner)
    async with DataLayer(data.settings) as other:
        await other.projects.open(owner, project_id)
    assert (await stored(data, project_id))[0] == 1


async def test_views_are_written_in_the_background(
    data: DataLayer, owner: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(view_counts, "FLUSH_SECONDS", 0.01)
    counts = ViewCounts(data.transaction)
    counts.start()
    project_id = await make(data, owner)
    counts.count(Project, project_id)
    async with asyncio.timeout(30):
        while (await stored(data, project_id))[0] != 1:
            await asyncio.sleep(0.01)
    await counts.close()


async def test_a_deleted_row_keeps_no_other_from_being_counted(data: DataLayer, owner: Actor) -> None:
    counts = ViewCounts(data.transaction)
    project_id = await make(data, owner)
    for row_id in (uuid7(), project_id, uuid7()):
        counts.count(Project, row_id)
        counts.count(GeneratedImage, row_id)
    await counts.flush()
    assert (await stored(data, project_id))[0] == 1


class Failing:
    """Transactions that fail at their end."""

    def __init__(self, data: DataLayer, *errors: Exception) -> None:
        self._data = data
        self._errors = list(errors)

    def __call__(self) -> Any:
        return self

    async def __aenter__(self) -> Any:
        self._tx = self._data.transaction()
        return await self._tx.__aenter__()

    async def __aexit__(self, *_: object) -> None:
        error = self._errors.pop(0) if self._errors else None
        lost = error if isinstance(error, DatabaseUnavailableError) else None
        try:
            await self._tx.__aexit__(type(lost) if lost else None, lost, None)
        finally:
            if error is not None:
                raise error


async def test_what_cannot_be_written_is_kept_and_counted_once(data: DataLayer, owner: Actor) -> None:
    project_id = await make(data, owner)
    counts = ViewCounts(Failing(data, DatabaseUnavailableError("down")))
    counts.count(Project, project_id)
    with pytest.raises(DatabaseUnavailableError):
        await counts.flush()
    counts.count(Project, project_id)
    await counts.flush()
    await counts.flush()
    assert (await stored(data, project_id))[0] == 2


async def test_a_commit_of_unknown_outcome_is_not_repeated(data: DataLayer, owner: Actor) -> None:
    project_id = await make(data, owner)
    counts = ViewCounts(Failing(data, CommitUnknownError("who knows")))
    counts.count(Project, project_id)
    await counts.flush()
    await counts.flush()
    assert (await stored(data, project_id))[0] == 1


async def test_memory_is_bounded(data: DataLayer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view_counts, "_MOST_ROWS", 100)
    counts = ViewCounts(data.transaction)
    for _ in range(1000):
        counts.count(Project, uuid7())
    assert len(counts._seen) == 100


async def test_more_rows_than_one_statement_takes_are_written(
    data: DataLayer, owner: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(view_counts, "_BATCH", 3)
    counts = ViewCounts(data.transaction)
    ids = [await make(data, owner, str(number)) for number in range(10)]
    for times, project_id in enumerate(ids):
        for _ in range(times):
            counts.count(Project, project_id)
    await counts.flush()
    page = await data.projects.list(owner, order=ProjectOrder.VIEWS)
    assert [project.id for project in page.projects] == list(reversed(ids))
    assert [project.view_count for project in page.projects] == list(range(9, -1, -1))


async def test_a_project_in_the_trash_is_still_counted(data: DataLayer, owner: Actor) -> None:
    counts = ViewCounts(data.transaction)
    project_id = await make(data, owner)
    counts.count(Project, project_id)
    await data.projects.delete(owner, project_id)
    await counts.flush()
    async with data.transaction() as tx:
        project = await tx.projects.get(project_id)
        assert (project.status, project.view_count) == (ProjectStatus.DELETED, 1)


@pytest.mark.slow
async def test_several_processes_add_up_exactly_and_never_wait_in_a_circle(
    data: DataLayer, owner: Actor, servers: tuple[str, str]
) -> None:
    ids = [await make(data, owner, str(number)) for number in range(20)]
    program = Path(__file__).with_name("project_viewer.py")
    viewers = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, str(program), *servers, "50", *map(str, ids)), stderr=asyncio.subprocess.PIPE
        )
        for _ in range(3)
    ]
    for viewer in viewers:
        _, errors = await viewer.communicate()
        assert viewer.returncode == 0, errors.decode()
    assert [(await stored(data, project_id))[0] for project_id in ids] == [150] * 20


async def test_versions_that_are_read_are_counted_and_nothing_else(data: DataLayer, owner: Actor) -> None:
    project_id = await make(data, owner)
    counts, generations = data._opened.view_counts, data.generations
    started = await generations.start(owner, project_id, GenerationRequest(), [VariantModel(), VariantModel()])
    for variant in range(2):
        await generations.complete(owner, started.writer_token, variant, code=f"<p>{variant}")
    link = (await data.shares.create(owner, project_id, version=1, variant_index=1)).token.get_secret_value()
    before = await generations.version(owner, project_id, 1, 1)
    for _ in range(2):
        await generations.version(owner, project_id, 1)
    await generations.latest(owner, project_id)
    await data.shares.open(link)
    # These show no page, or to nobody.
    await generations.history(owner, project_id)
    await generations.diff(owner, project_id, 1, 1)
    stranger = await stored_actor(data)
    for refused in (
        lambda: generations.version(stranger, project_id, 1),
        lambda: generations.latest(stranger, project_id),
        lambda: generations.version(owner, project_id, 2),
        lambda: data.shares.open("x"),
    ):
        with pytest.raises(NotFoundError):
            await refused()

    await counts.flush()
    await counts.flush()

    async with data.transaction() as tx:
        assert {code.view_count for code in await tx.codes.list(project_id=project_id)} == {3, 2}
        assert (await tx.codes.get(before.id)).updated_at == before.updated_at  # A view is no change.
