"""What the cache has of projects, lists and histories is what the database has, after every way of writing."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from data_layer import DataLayer
from data_layer.entities.enums import ProjectStatus, UserRole
from data_layer.errors import NotFoundError, PermissionDeniedError
from data_layer.repositories.unit_of_work import UnitOfWork
from data_layer.schemas.actors import SYSTEM, Actor
from data_layer.schemas.codes import VariantChanges
from data_layer.schemas.generations import (
    CodePiece,
    FinishedGeneration,
    FinishedVariant,
    GenerationRequest,
    GenerationView,
    VariantModel,
)
from data_layer.schemas.lineage import ReceivedGeneration, ReceivedVariant
from data_layer.schemas.projects import ProjectChanges, ProjectDraft, ProjectFilter, ProjectFull, ProjectOrder
from data_layer.services.cached_projects import LONGEST_PAGE_BESIDE_NAME
from data_layer.services.generations import GenerationService
from data_layer.services.generations.access import views_of
from data_layer.services.project_keys import keys_of_project, owner_key
from data_layer.services.projects import ProjectService
from tests.services.generations.conftest import let_leases_run_out
from tests.support import make_code, stored_actor

IN_TRASH = ProjectFilter(statuses=frozenset({ProjectStatus.DELETED}))


class Story:
    """One person who does everything that can be done, and looks at everything before and after."""

    def __init__(self, data: DataLayer, actor: Actor, project: ProjectFull, token: str, history: Any) -> None:
        self.data = data
        self.actor = actor
        self.project = project
        self.token = token
        self.generation: GenerationView = history[0]

    @classmethod
    async def begin(cls, data: DataLayer, actor: Actor) -> Story:
        project = await data.projects.create(actor, ProjectDraft(name="First", tags=["a"]))
        generation = await data.generations.start(actor, project.id, GenerationRequest(), [VariantModel()] * 3)
        await data.generations.complete(actor, generation.writer_token, 0, code="<p>")
        history = await data.generations.history(actor, project.id)
        return cls(data, actor, project, generation.writer_token, history)

    @property
    def first_code(self) -> Any:
        return self.generation.variants[0].id

    async def expire(self) -> None:
        await let_leases_run_out(self.data)
        await self.data.maintenance.run(SYSTEM)

    async def unarchive(self) -> None:
        await self.data.projects.archive(self.actor, self.project.id)
        await seen(self)
        await self.data.projects.unarchive(self.actor, self.project.id)

    async def restore_from_trash(self) -> None:
        await self.data.projects.delete(self.actor, self.project.id)
        await seen(self)
        await self.data.projects.restore(self.actor, self.project.id)

    async def receive(self) -> None:
        variant = ReceivedVariant(index=0, code="<i>")
        received = ReceivedGeneration(
            source="app", key=str(self.project.id), at=datetime.now(UTC), prompt="more", variants=(variant,)
        )
        await self.data.generations.receive(self.actor, received, project_id=self.project.id)
        await seen(self)
        again = received.model_copy(update={"variants": (variant, ReceivedVariant(index=1, code="<u>"))})
        await self.data.generations.receive(self.actor, again, project_id=self.project.id)

    async def add_by_hand(self) -> None:
        async with self.data.transaction() as tx:
            project = await tx.projects.get(self.project.id)
            tx.add(make_code(project))
            tx.invalidate(*keys_of_project(self.project.id, self.project.user_id))


WRITES: dict[str, Callable[[Story], Awaitable[object]]] = {
    "create": lambda story: story.data.projects.create(story.actor, ProjectDraft(name="Second")),
    "update": lambda story: story.data.projects.update(
        story.actor, story.project.id, ProjectChanges(name="Renamed", is_favorite=True), expected=1
    ),
    "archive": lambda story: story.data.projects.archive(story.actor, story.project.id),
    "unarchive": Story.unarchive,
    "restore_from_trash": Story.restore_from_trash,
    "delete": lambda story: story.data.projects.delete(story.actor, story.project.id),
    "clone": lambda story: story.data.projects.clone(story.actor, story.project.id),
    "fork": lambda story: story.data.generations.fork(story.actor, story.project.id, 1, 0),
    "start": lambda story: story.data.generations.start(
        story.actor, story.project.id, GenerationRequest(), [VariantModel()]
    ),
    "complete": lambda story: story.data.generations.complete(story.actor, story.token, 1, code="<b>"),
    "fail": lambda story: story.data.generations.fail(story.actor, story.token, 1, "no"),
    "cancel": lambda story: story.data.generations.cancel(story.actor, story.generation.id),
    "take_over": lambda story: story.data.generations.take_over(story.actor, story.generation.id),
    "select": lambda story: story.data.generations.select(story.actor, story.generation.id, 1),
    "edit": lambda story: story.data.generations.edit(story.actor, story.first_code, VariantChanges(name="name")),
    "hide": lambda story: story.data.generations.hide(story.actor, [story.first_code]),
    "restore_variant": lambda story: story.data.generations.restore_variant(story.actor, story.first_code),
    "fork_variant": lambda story: story.data.generations.fork_variant(story.actor, story.first_code),
    "rename": lambda story: story.data.generations.rename(story.actor, story.first_code, "name"),
    "mark_favorite": lambda story: story.data.generations.mark_favorite(story.actor, story.first_code),
    "rate": lambda story: story.data.generations.rate(story.actor, story.first_code, stars=4),
    "restore": lambda story: story.data.generations.restore(story.actor, story.project.id, 1, 0),
    "receive": Story.receive,
    "record": lambda story: story.data.generations.record(
        story.actor, story.project.id, GenerationRequest(), [FinishedVariant(code="<i>")]
    ),
    "import_many": lambda story: story.data.generations.import_many(
        *(story.actor, story.project.id),
        [FinishedGeneration(request=GenerationRequest(), variants=(FinishedVariant(code="<i>"),))],
    ),
    "expire": Story.expire,
    "add_by_hand": Story.add_by_hand,
}


SHOWN_NOWHERE = {
    *("open", "list", "search", "recent", "find", "details", "history", "version", "latest", "diff", "follow"),
    *("find_parent", "append", "write", "renew", "report_usage", "store", "count_copy", "count_download"),
    *("tree", "open_variant", "compare", "shown", "replay", "state_at", "close"),
}
"""Methods that change nothing that a list or a history shows, except while a variant runs."""


async def seen(story: Story) -> list[Any]:
    """What the services show, from the cache where it may be."""
    projects, generations = story.data.projects, story.data.generations
    shown: list[Any] = [await projects.list(story.actor, limit=2)]
    shown.append(await projects.list(story.actor, order=ProjectOrder.NAME, is_descending=False))
    shown.append(await projects.list(story.actor, IN_TRASH))
    for read in (projects.open, generations.history):
        try:
            shown.append(await read(story.actor, story.project.id))
        except NotFoundError:
            shown.append(None)
    return shown


async def stored(story: Story) -> list[Any]:
    """The same from the database."""
    owner = story.project.user_id
    async with story.data.transaction() as tx:
        project = await tx.projects.view(story.project.id)
        assert project is not None
        is_there = project.status is not ProjectStatus.DELETED
        history = views_of(*await tx.generations.history(story.project.id, limit=100, before=None))
        return [
            tuple(await page(tx, owner, ProjectFilter(), ProjectOrder.UPDATED))[:2],
            tuple(await page(tx, owner, ProjectFilter(), ProjectOrder.NAME)),
            tuple(await page(tx, owner, IN_TRASH, ProjectOrder.UPDATED)),
            project if is_there else None,
            history if is_there else None,
        ]


async def page(tx: UnitOfWork, owner: Any, wanted: ProjectFilter, order: ProjectOrder) -> Any:
    is_descending = order is not ProjectOrder.NAME
    _, projects = await tx.projects.page(owner, wanted, order, is_descending=is_descending, after=None, limit=50)
    return projects


def without_pages(shown: list[Any]) -> list[Any]:
    return [getattr(each, "projects", each) for each in shown]


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("is_ended", [False, True], ids=["running", "ended"])
async def test_what_is_cached_changes_with_every_write(data: DataLayer, write: str, is_ended: bool) -> None:  # noqa: FBT001
    story = await Story.begin(data, await stored_actor(data))
    if is_ended:
        if write in {"complete", "fail", "cancel", "take_over", "expire"}:
            return  # Nothing is left to end.
        await data.generations.cancel(story.actor, story.generation.id)
    before = await seen(story)
    assert without_pages(before) == await stored(story)
    await WRITES[write](story)
    assert without_pages(await seen(story)) == await stored(story)


async def test_a_running_variant_is_shown_as_it_grows(data: DataLayer) -> None:
    story = await Story.begin(data, await stored_actor(data))
    await data.generations.append(story.actor, story.token, 1, 1, CodePiece("<p>"))
    await data.generations.store(story.actor, story.token)
    assert without_pages(await seen(story)) == await stored(story)


async def test_each_look_at_a_running_variant_loads_the_history_once(data: DataLayer) -> None:
    story = await Story.begin(data, await stored_actor(data))
    loads = 0

    async def load() -> tuple[GenerationView, ...]:
        nonlocal loads
        loads += 1
        return (story.generation,)

    for number in (1, 2):
        assert await data.generations._cached.history(story.project, "page", load) == (story.generation,)
        assert loads == number


async def test_a_history_that_nothing_writes_is_read_from_the_cache(data: DataLayer) -> None:
    story = await Story.begin(data, await stored_actor(data))
    await data.generations.cancel(story.actor, story.generation.id)
    before = await data.generations.history(story.actor, story.project.id)
    loads = data.cache.process_stats().hits
    assert await data.generations.history(story.actor, story.project.id) == before
    assert data.cache.process_stats().hits > loads


async def test_one_load_shows_a_list_after_a_change(data: DataLayer) -> None:
    story = await Story.begin(data, await stored_actor(data))
    longest = LONGEST_PAGE_BESIDE_NAME
    looks: list[tuple[dict[str, Any], int]] = [
        ({"limit": longest}, 1),
        ({"limit": longest}, 0),
        ({"limit": longest, "order": ProjectOrder.NAME}, 1),
        ({"limit": longest, "order": ProjectOrder.NAME}, 0),
        ({"limit": longest + 1}, 1),
    ]
    for name in ("Second", "Third"):
        project = await data.projects.open(story.actor, story.project.id)
        await data.projects.update(story.actor, project.id, ProjectChanges(name=name), expected=project.revision)
        for asked, expected in looks:
            misses = data.cache.process_stats().misses
            page = await data.projects.list(story.actor, **asked)
            assert [project.name for project in page.projects] == [name]
            assert data.cache.process_stats().misses - misses == expected


async def test_a_long_page_is_not_kept_beside_the_name(data: DataLayer) -> None:
    story = await Story.begin(data, await stored_actor(data))
    await story.expire()
    await data.projects.list(story.actor, limit=LONGEST_PAGE_BESIDE_NAME + 1)
    listed = await data.cache.get(owner_key(story.project.user_id))
    assert listed["pages"]
    assert listed["page"] is None


@pytest.mark.parametrize("end", ["suspend", "deactivate"])
async def test_a_closed_account_reads_no_lists_from_the_cache(data: DataLayer, end: str) -> None:
    story = await Story.begin(data, await stored_actor(data))
    admin = await stored_actor(data, role=UserRole.ADMIN)
    await seen(story)
    if end == "suspend":
        await data.accounts.suspend(admin, story.project.user_id, reason="spam")
    else:
        await data.accounts.deactivate(story.actor, story.project.user_id)
    with pytest.raises(PermissionDeniedError):
        await data.projects.list(story.actor)
    with pytest.raises(PermissionDeniedError):
        await data.generations.history(story.actor, story.project.id)


def test_every_method_is_tried() -> None:
    for service in (ProjectService, GenerationService):
        methods = {name for name, _ in inspect.getmembers(service, inspect.isfunction) if not name.startswith("_")}
        assert methods <= WRITES.keys() | SHOWN_NOWHERE
