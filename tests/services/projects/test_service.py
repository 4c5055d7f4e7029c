"""Projects: one person's own, no update lost, every change recorded, pages right while rows change."""

from __future__ import annotations

import asyncio
import base64
from datetime import UTC, datetime, timedelta
from importlib import resources
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from uuid_utils.compat import uuid7

from data_layer import DataLayer
from data_layer.entities import GeneratedCode, Project
from data_layer.entities.enums import AuditAction, CodeStack, GenerationProvider, ProjectStatus, UserRole, UserStatus
from data_layer.errors import (
    ChangedMeanwhileError,
    DataLayerError,
    FetchAddressError,
    InvalidFileError,
    InvalidUrlError,
    InvalidValueError,
    NotFoundError,
    PermissionDeniedError,
)
from data_layer.schemas.actors import ANONYMOUS, SYSTEM, Actor
from data_layer.schemas.projects import (
    ProjectChanges,
    ProjectDraft,
    ProjectFilter,
    ProjectFull,
    ProjectOrder,
    ProjectSummary,
)
from data_layer.services.cached_projects import CachedProjects
from data_layer.services.image_files import ImageFiles
from data_layer.services.projects import ProjectService
from data_layer.services.view_counts import ViewCounts
from tests.services.fetching.site import Site, answer, make_fetcher, redirect
from tests.support import stored_actor

SCREENSHOT = resources.files("data_layer").joinpath("seed_data/screenshots/login-form.png").read_bytes()
DATA_URL = "data:image/png;base64," + base64.b64encode(SCREENSHOT).decode()


@pytest.fixture
async def owner(data: DataLayer) -> Actor:
    return await stored_actor(data)


def project_service(data: DataLayer, site: Site) -> ProjectService:
    """The service, to which the site is on the internet."""
    images = ImageFiles(data.files, make_fetcher(site))
    cached = CachedProjects(data.transaction, data.cache)
    return ProjectService(data.transaction, images, cached, ViewCounts(data.transaction))


async def actions(data: DataLayer, project: ProjectFull) -> list[AuditAction]:
    async with data.transaction() as tx:
        return [entry.action for entry in await tx.audit.list(resource_id=str(project.id))]


async def names(data: DataLayer, actor: Actor, **options: Any) -> list[str]:
    return [project.name for project in (await data.projects.list(actor, **options)).projects]


async def test_a_project_with_a_data_url_keeps_it_as_a_file_with_thumbnails(data: DataLayer, owner: Actor) -> None:
    project = await data.projects.create(owner, ProjectDraft(name=" A "), screenshot=DATA_URL, file_name="a.png")

    assert (project.name, project.original_image_filename, project.revision) == ("A", "a.png", 1)
    assert (project.original_image_size, project.original_image_mime_type) == (len(SCREENSHOT), "image/png")
    [file] = await data.files.list(owner_id=owner.user_id)
    assert (file.project_id, file.key, file.expires_at) == (project.id, project.original_image, None)
    assert project.thumbnail_image in [small.key for small in file.thumbnails]
    assert await data.files.download(file.id, owner_id=owner.user_id) == SCREENSHOT
    assert await data.projects.open(owner, project.id) == project
    assert await actions(data, project) == [AuditAction.PROJECT_CREATE]


@pytest.mark.parametrize(
    "screenshot",
    [
        "data:image/png;base64,!!!",
        "data:text/html,<p>",
        "nothing",
        "data:image/png;base64,é",
        b"no image",
        DATA_URL[:99],
    ],
)
async def test_a_screenshot_that_is_none_creates_nothing(data: DataLayer, owner: Actor, screenshot: Any) -> None:
    with pytest.raises((InvalidValueError, InvalidFileError)):
        await data.projects.create(owner, ProjectDraft(name="A"), screenshot=screenshot)
    assert await names(data, owner) == []
    assert await data.files.list(owner_id=owner.user_id) == []


async def test_a_screenshot_is_fetched_from_its_url_and_kept(data: DataLayer, owner: Actor) -> None:
    site = Site()
    async with site.serving():
        site.answers |= {"/a.png?sig=x": redirect("/b"), "/b": answer(SCREENSHOT, "Content-Type: text/html")}
        service = project_service(data, site)
        url = f"http://images.test:{site.port}/a.png?sig=x"
        project = await service.create(owner, ProjectDraft(name="A"), screenshot=url, file_name="a.png")
    [file] = await data.files.list(owner_id=owner.user_id)
    assert (file.project_id, file.key, file.expires_at) == (project.id, project.original_image, None)
    assert (project.original_image_mime_type, project.original_image_filename) == ("image/png", "a.png")
    assert project.thumbnail_image in [small.key for small in file.thumbnails]
    assert await data.files.download(file.id, owner_id=owner.user_id) == SCREENSHOT


@pytest.mark.parametrize("body", [b"<!DOCTYPE html><p>Log in</p>", b"", SCREENSHOT[:500], b"hello"])
async def test_what_is_fetched_must_be_an_image(data: DataLayer, owner: Actor, body: bytes) -> None:
    site = Site()
    async with site.serving():
        site.answers["/a.png"] = answer(body, "Content-Type: image/png")
        service = project_service(data, site)
        with pytest.raises(InvalidFileError):
            url = f"http://images.test:{site.port}/a.png"
            await service.create(owner, ProjectDraft(name="A"), screenshot=url)
    assert await names(data, owner) == []
    assert await data.files.list(owner_id=owner.user_id) == []


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        *(("http://127.0.0.1/a.png", FetchAddressError), ("http://localhost:80/a.png", FetchAddressError)),
        *(("http://169.254.169.254/latest/", FetchAddressError), ("https://[::1]/", FetchAddressError)),
        *(("http://2130706433/", InvalidUrlError), ("file:///etc/passwd", InvalidUrlError)),
    ],
)
async def test_a_screenshot_from_our_own_network_is_refused(
    data: DataLayer, owner: Actor, url: str, kind: type[DataLayerError]
) -> None:
    with pytest.raises(kind) as caught:
        await data.projects.create(owner, ProjectDraft(name="A"), screenshot=url)
    assert getattr(caught.value, "field", "screenshot") == "screenshot"
    assert await names(data, owner) == []


async def test_nothing_is_fetched_for_somebody_who_may_not_create_the_project(data: DataLayer, owner: Actor) -> None:
    site = Site()
    async with site.serving():
        service = project_service(data, site)
        for actor in (ANONYMOUS, await stored_actor(data)):
            with pytest.raises(PermissionDeniedError):
                url = f"http://images.test:{site.port}/"
                await service.create(actor, ProjectDraft(name="A"), screenshot=url, owner_id=owner.user_id)
    assert site.requests == []


async def test_a_project_that_cannot_be_inserted_leaves_no_file(data: DataLayer, owner: Actor) -> None:
    async with data.transaction() as tx:
        await tx.execute(text("ALTER TABLE projects ADD CONSTRAINT refused CHECK (name <> 'refused')"))
    try:
        with pytest.raises(DataLayerError):
            await data.projects.create(owner, ProjectDraft(name="refused"), screenshot=SCREENSHOT)
    finally:
        async with data.transaction() as tx:
            await tx.execute(text("ALTER TABLE projects DROP CONSTRAINT refused"))
    assert await data.files.list(owner_id=owner.user_id) == []
    assert [file async for file in data.storage.list()] == []


async def test_a_lost_update_is_refused_with_both_states(data: DataLayer, owner: Actor) -> None:
    project = await data.projects.create(owner, ProjectDraft(name="A", tags=["x", " x ", "y"]))
    assert project.tags == ("x", "y")

    results = await asyncio.gather(
        *(
            data.projects.update(owner, project.id, ProjectChanges(name=name), expected=project.revision)
            for name in "BCDE"
        ),
        return_exceptions=True,
    )

    [stored] = [result for result in results if isinstance(result, ProjectFull)]
    refused = [result for result in results if isinstance(result, ChangedMeanwhileError)]
    assert len(refused) == 3
    assert {str(error.wanted["name"]) for error in refused} == set("BCDE") - {stored.name}
    assert all((e.current["name"], e.current["revision"]) == (stored.name, stored.revision) for e in refused)
    assert await data.projects.open(owner, project.id) == stored
    assert await actions(data, project) == [AuditAction.PROJECT_CREATE, AuditAction.PROJECT_UPDATE]


async def test_generations_and_views_do_not_refuse_an_update(data: DataLayer, owner: Actor) -> None:
    project = await data.projects.create(owner, ProjectDraft(name="A", description="x"))
    async with data.transaction() as tx:
        tx.add(GeneratedCode(project_id=project.id, code="", provider=GenerationProvider.CLAUDE, model="m"))
        await tx.projects.increment(project.id, "view_count")

    changed = await data.projects.update(
        owner, project.id, ProjectChanges(description=None, metadata={"a": 1}), expected=project.revision
    )

    assert (changed.description, changed.metadata, changed.revision) == (None, {"a": 1}, project.revision + 1)


async def test_a_change_past_the_service_counts_as_one(data: DataLayer, owner: Actor) -> None:
    project = await data.projects.create(owner, ProjectDraft(name="A"))
    async with data.transaction() as tx:
        (await tx.projects.get(project.id)).name = "past"
    with pytest.raises(ChangedMeanwhileError):
        await data.projects.update(owner, project.id, ProjectChanges(name="B"), expected=project.revision)


async def test_archiving_and_deleting_return_to_the_status_before(data: DataLayer, owner: Actor) -> None:
    project = await data.projects.create(owner, ProjectDraft(name="A"), screenshot=SCREENSHOT)
    done = ProjectChanges(status=ProjectStatus.COMPLETED)
    await data.projects.update(owner, project.id, done, expected=project.revision)
    for _ in range(2):
        assert (await data.projects.archive(owner, project.id)).status is ProjectStatus.ARCHIVED
    await data.projects.open(owner, project.id)

    await data.projects.delete(owner, project.id)

    for attempt in (
        data.projects.open(owner, project.id),
        data.projects.delete(owner, project.id),
        data.projects.archive(owner, project.id),
        data.projects.update(owner, project.id, done, expected=4),
    ):
        with pytest.raises(NotFoundError):
            await attempt
    assert await names(data, owner) == []
    assert await names(data, owner, wanted=ProjectFilter(statuses=frozenset({ProjectStatus.DELETED}))) == ["A"]
    async with data.transaction() as tx:
        assert (await tx.projects.count(), await tx.projects.list(), await tx.projects.search("A")) == (0, [], [])
    assert await data.projects.recent() == []

    for _ in range(2):
        restored = await data.projects.restore(owner, project.id)
        assert (restored.status, restored.deleted_at) == (ProjectStatus.ARCHIVED, None)
    for _ in range(2):
        assert (await data.projects.unarchive(owner, project.id)).status is ProjectStatus.COMPLETED
    assert await data.projects.open(owner, project.id) == await data.projects.unarchive(owner, project.id)
    assert await actions(data, project) == [
        AuditAction.PROJECT_CREATE,
        AuditAction.PROJECT_UPDATE,
        AuditAction.PROJECT_ARCHIVE,
        AuditAction.PROJECT_DELETE,
        AuditAction.PROJECT_RESTORE,
        AuditAction.PROJECT_RESTORE,
    ]


async def test_final_removal_takes_the_files_that_nobody_else_has(data: DataLayer, owner: Actor) -> None:
    first = await data.projects.create(owner, ProjectDraft(name="A"), screenshot=SCREENSHOT)
    second = await data.projects.create(owner, ProjectDraft(name="B"), screenshot=SCREENSHOT)
    assert first.original_image == second.original_image
    soon = datetime.now(UTC) + timedelta(hours=1)
    for project, files_left in ((first, True), (second, False)):
        await data.projects.delete(owner, project.id)
        async with data.transaction() as tx:
            assert await tx.projects.count_deleted(soon) == 1
            assert await tx.projects.remove_deleted(soon - timedelta(days=1), limit=9) == []
            assert [each.id for each in await tx.projects.remove_deleted(soon, limit=9)] == [project.id]
        keys = {file.key async for file in data.storage.list()}
        assert {second.original_image, second.thumbnail_image} <= keys if files_left else not keys


@pytest.mark.parametrize("order", ProjectOrder)
@pytest.mark.parametrize("is_descending", [True, False])
async def test_pages_hold_each_project_once_in_every_order(
    data: DataLayer, owner: Actor, order: ProjectOrder, *, is_descending: bool
) -> None:
    rows = [Project(user_id=owner.user_id, name=name) for name in ("b", "B", "a", "ä", "Z", "z", "b")]  # type: ignore[arg-type]
    async with data.transaction() as tx:
        for row in rows:
            tx.add(row)
        for row in rows[:3]:
            await tx.projects.increment(row.id, "view_count", amount=2)
        rows[3].last_generated_at = rows[4].last_generated_at = datetime.now(UTC)
    whole = await names(data, owner, order=order, is_descending=is_descending)
    assert sorted(whole) == sorted(row.name for row in rows)

    seen: list[ProjectSummary] = []
    cursor: str | None = None
    while True:
        page = await data.projects.list(owner, order=order, is_descending=is_descending, after=cursor, limit=2)
        seen += page.projects
        if cursor is None:
            # What was seen already goes, and the rest stays where it is.
            await data.projects.delete(owner, page.projects[0].id)
        cursor = page.next
        if cursor is None:
            break

    assert len({project.id for project in seen}) == len(rows) == len(seen)
    assert [project.name for project in seen] == whole


async def test_lists_are_filtered(data: DataLayer, owner: Actor) -> None:
    red = await data.projects.create(owner, ProjectDraft(name="red", tags=["r"], is_favorite=True))
    await data.projects.create(owner, ProjectDraft(name="blue", is_public=True))
    svg = CodeStack.SVG
    async with data.transaction() as tx:
        tx.add(GeneratedCode(project_id=red.id, code="", code_stack=svg, provider=GenerationProvider.CLAUDE, model="m"))
    for wanted in (ProjectFilter(tag="r"), ProjectFilter(is_favorite=True), ProjectFilter(stack=svg)):
        assert await names(data, owner, wanted=wanted) == ["red"]
    for wanted in (ProjectFilter(is_public=True), ProjectFilter(is_favorite=False)):
        assert await names(data, owner, wanted=wanted) == ["blue"]
    with pytest.raises(InvalidValueError):
        await names(data, owner, wanted=ProjectFilter(tag="\x00"))


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.one_of(
        st.text(),
        st.lists(
            st.one_of(
                st.sampled_from(["name", "views", "updated", True, False, str(uuid7()), "2026-01-01T00:00:00+00:00"]),
                st.text(),
                st.none(),
                st.integers(),
                st.floats(),
            )
        ),
    ),
    order=st.sampled_from(ProjectOrder),
)
async def test_hostile_cursors_are_refused(data: DataLayer, owner: Actor, content: Any, order: ProjectOrder) -> None:
    import json

    raw = content if isinstance(content, str) else base64.urlsafe_b64encode(json.dumps(content).encode()).decode()
    try:
        await data.projects.list(owner, order=order, after=raw)
    except InvalidValueError as error:
        assert error.field == "after"  # noqa: PT017  (some cursors are right by chance)


ROLES = ("owner", "stranger", "nobody", "suspended", "moderator", "administrator", "system")
METHODS = ("open", "list", "search", "update", "archive", "unarchive", "delete", "restore", "create")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(role=st.sampled_from(ROLES), method=st.sampled_from(METHODS), reason=st.sampled_from([None, " ", "a report"]))
async def test_who_may_do_what(data: DataLayer, role: str, method: str, reason: str | None) -> None:
    owner = await stored_actor(data)
    project = await data.projects.create(owner, ProjectDraft(name="secret"))
    actor = {
        "owner": owner,
        "stranger": await stored_actor(data),
        "nobody": ANONYMOUS,
        "suspended": await stored_actor(data, status=UserStatus.SUSPENDED, role=UserRole.ADMIN),
        "moderator": await stored_actor(data, role=UserRole.MODERATOR),
        "administrator": await stored_actor(data, role=UserRole.ADMIN),
        "system": SYSTEM,
    }[role]
    before = await actions(data, project)
    works = role in {"owner", "system"}
    with_reason = (
        role in {"moderator", "administrator"} and method in {"open", "list", "search"} and reason == "a report"
    )

    try:
        match method:
            case "open":
                await data.projects.open(actor, project.id, reason=reason)
            case "list":
                await data.projects.list(actor, owner_id=owner.user_id, reason=reason)
            case "search":
                await data.projects.search(actor, "x", owner_id=owner.user_id, reason=reason)
            case "create":
                await data.projects.create(actor, ProjectDraft(name="x"), owner_id=owner.user_id)
            case "update":
                await data.projects.update(actor, project.id, ProjectChanges(name="x"), expected=1)
            case _:
                await getattr(data.projects, method)(actor, project.id)
    except InvalidValueError:
        assert role in {"moderator", "administrator"}
        assert (method in {"open", "list", "search"}, reason) == (True, " ")
    except (NotFoundError, PermissionDeniedError):
        assert not works
        assert not with_reason
        assert await actions(data, project) == before
        assert (await data.projects.open(owner, project.id)).name == "secret"
    else:
        assert works or with_reason
    if with_reason:
        async with data.transaction() as tx:
            [entry] = await tx.audit.list(user_id=actor.user_id)
        assert (entry.action, entry.details) == (AuditAction.ADMIN_DATA_EXPORT, reason)


async def delete_some_time_ago(data: DataLayer, owner: Actor, project: ProjectFull, age: timedelta) -> None:
    await data.projects.delete(owner, project.id)
    async with data.transaction() as tx:
        change = text("UPDATE projects SET deleted_at = now() - CAST(:age AS interval) WHERE id = :id")
        await tx.execute(change.bindparams(age=age, id=project.id))


@pytest.mark.parametrize("days", [1, 7, 100])
async def test_trash_retention_says_how_long_the_trash_is_kept(data: DataLayer, owner: Actor, days: int) -> None:
    ages = {"kept": timedelta(days=days, hours=-1), "old": timedelta(days=days, hours=1)}
    for name, age in ages.items():
        project = await data.projects.create(owner, ProjectDraft(name=name))
        await delete_some_time_ago(data, owner, project, age)
    async with DataLayer(data.settings.replaced(trash_retention=days)) as other:
        assert (await other.maintenance.run(SYSTEM)).projects_removed == 1
    left = ProjectFilter(statuses=frozenset({ProjectStatus.DELETED}))
    assert await names(data, owner, wanted=left) == ["kept"]


async def test_trash_is_kept_for_ever_on_request(data: DataLayer, owner: Actor) -> None:
    project = await data.projects.create(owner, ProjectDraft(name="old"))
    await delete_some_time_ago(data, owner, project, timedelta(days=100_000))
    async with DataLayer(data.settings.replaced(trash_retention=0)) as other:
        assert (await other.maintenance.run(SYSTEM, dry_run=True)).projects_removed == 0
        assert (await other.maintenance.run(SYSTEM)).projects_removed == 0
    await data.projects.restore(owner, project.id)


async def test_the_trash_is_emptied_in_small_transactions(data: DataLayer, owner: Actor) -> None:
    for number in range(45):
        project = await data.projects.create(owner, ProjectDraft(name=f"{number}"))
        await delete_some_time_ago(data, owner, project, timedelta(days=31))
    steps: list[int] = []

    def note(step: str, count: int) -> None:
        if step == "projects_removed":
            steps.append(count)

    assert (await data.maintenance.run(SYSTEM, on_progress=note)).projects_removed == 45
    assert steps == [20, 40, 45]


async def test_maintenance_removes_what_lay_in_the_trash_long_enough(data: DataLayer, owner: Actor) -> None:
    kept, old = [
        await data.projects.create(owner, ProjectDraft(name=name), screenshot=SCREENSHOT) for name in ("kept", "old")
    ]
    for project, age in ((kept, timedelta(days=30, hours=-1)), (old, timedelta(days=30, hours=1))):
        await delete_some_time_ago(data, owner, project, age)

    assert (await data.maintenance.run(SYSTEM, dry_run=True)).projects_removed == 1
    assert (await data.maintenance.run(SYSTEM)).projects_removed == 1

    with pytest.raises(NotFoundError):
        await data.projects.restore(owner, old.id)
    await data.projects.restore(owner, kept.id)
    assert await actions(data, old) == [AuditAction.PROJECT_CREATE] + [AuditAction.PROJECT_DELETE] * 2
