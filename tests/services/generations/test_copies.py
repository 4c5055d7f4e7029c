"""Projects again, as other projects: whole, up to a version, or one version as the root of a new one."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from data_layer import DataLayer
from data_layer.entities import Entity, FileReference, GeneratedCode, GeneratedImage, Generation, Project
from data_layer.entities.enums import (
    AuditAction,
    GenerationProvider,
    GenerationStatus,
    ImageProvider,
    ProjectStatus,
    RequestType,
    UserRole,
    UserStatus,
)
from data_layer.errors import InvalidValueError, NotFoundError, PermissionDeniedError, ValueTooLongError
from data_layer.schemas.actors import ANONYMOUS, SYSTEM
from data_layer.schemas.files import Attachment
from data_layer.schemas.generations import CodePiece
from data_layer.schemas.projects import ProjectChanges, ProjectDraft
from tests.services.generations.conftest import Owner, rows, started
from tests.services.generations.test_versions import completed
from tests.services.projects.test_service import SCREENSHOT
from tests.support import make_code, stored_actor

TREE = """
SELECT g.number, c.variant_index, c.code, c.status, p.version, p.variant_index, g.generation_type, g.prompt,
    g.selected_variant, g.ended_at IS NULL
FROM generated_codes c JOIN generations g ON g.id = c.generation_id LEFT JOIN generated_codes p ON p.id = c.parent_id
WHERE c.project_id = :id AND g.project_id = :id ORDER BY 1, 2
"""
COUNTERS = """
SELECT generation_count, view_count, (SELECT count(*) FROM generations WHERE project_id = projects.id),
    (SELECT sum(view_count + copy_count + download_count) FROM generated_codes WHERE project_id = projects.id)
FROM projects WHERE id = :id
"""


async def tree(data: DataLayer, project_id: UUID) -> list[tuple[Any, ...]]:
    return await rows(data, TREE, id=project_id)


async def story(data: DataLayer, owner: Owner) -> None:
    """Three versions: the second was made from the second variant of the first, the third has failed."""
    first = await completed(data, owner, "a", "b", prompt="make it")
    await data.generations.select(owner.actor, first[0].generation_id, 1)
    await completed(data, owner, "c", parent_id=first[1].id, generation_type=RequestType.UPDATE)
    failed = await started(data, owner, parent_id=first[1].id, generation_type=RequestType.UPDATE)
    await data.generations.append(owner.actor, failed.writer_token, 0, 1, CodePiece("<p"))
    await data.generations.fail(owner.actor, failed.writer_token, 0, "too long")


async def test_a_clone_has_the_same_tree_under_other_ids_and_goes_on_by_itself(data: DataLayer, owner: Owner) -> None:
    await story(data, owner)
    before = await tree(data, owner.project_id)
    async with data.transaction() as tx:
        await tx.projects.increment(owner.project_id, "view_count", amount=5)
        for code in await tx.codes.list(project_id=owner.project_id):
            await tx.codes.increment(code.id, "view_count", "copy_count", "download_count")

    clone = await data.projects.clone(owner.actor, owner.project_id)

    assert await tree(data, clone.id) == before == await tree(data, owner.project_id)
    assert await rows(data, COUNTERS, id=clone.id) == [(3, 0, 3, 0)]
    await completed(data, Owner(owner.actor, clone.id), "d")
    assert await rows(data, COUNTERS, id=clone.id) == [(4, 0, 4, 0)]
    assert await rows(data, COUNTERS, id=owner.project_id) == [(3, 5, 3, 12)]
    await data.projects.delete(owner.actor, owner.project_id)
    await remove_for_good(data, owner.project_id)
    assert (await tree(data, clone.id))[:-1] == before


async def remove_for_good(data: DataLayer, project_id: UUID) -> None:
    async with data.transaction() as tx:
        await tx.projects.delete(await tx.projects.get(project_id))


LEFT_OUT: dict[type[Entity], set[str]] = {
    Project: {
        "search_vector",
        *("name", "view_count", "is_public", "is_favorite", "last_viewed_at", "deleted_at", "status", "revision"),
        *("status_before_archive", "status_before_delete", "created_at", "updated_at"),
    },
    Generation: {"project_id", "external_source", "external_key", "inputs"},
    GeneratedCode: {
        *("project_id", "generation_id", "parent_id", "lease_until", "writer"),
        *("view_count", "copy_count", "download_count"),
    },
    GeneratedImage: {"project_id", "view_count", "download_count"},
    FileReference: {"project_id", "code_id", "image_id", "created_at", "updated_at"},
}


async def test_every_column_is_copied_unless_it_is_known_why_not(data: DataLayer, owner: Owner) -> None:
    async with data.transaction() as tx:
        project = await tx.projects.get(owner.project_id)
        said = {"name": "A name", "rating": 4, "feedback": {"thumb": "up"}, "is_favorite": True, "prompt_tokens": 3}
        code = make_code(project, status=GenerationStatus.COMPLETED, **said)
        tx.add(code)
        image = GeneratedImage(
            project_id=project.id,
            prompt="a cat",
            provider=ImageProvider.DALLE3,
            model="m",
            size="1024x1024",
            status=GenerationStatus.COMPLETED,
        )
        tx.add(image)
    file = await data.files.save(SCREENSHOT, owner_id=owner.actor.user_id, attached_to=Attachment(code_id=code.id))

    clone = await data.projects.clone(owner.actor, owner.project_id)

    async with data.transaction() as tx:
        for entity, left_out in LEFT_OUT.items():
            names = [column.name for column in entity.__table__.columns if column.name not in {"id", *left_out}]
            condition = {
                Project: "id = :id",
                FileReference: "code_id IN (SELECT id FROM generated_codes WHERE project_id = :id)",
            }
            select = (
                f"SELECT {', '.join(names)} FROM {entity.__tablename__} "
                f"WHERE {condition.get(entity, 'project_id = :id')}"
            )
            both = [
                [tuple(row) for row in await tx.execute(text(select).bindparams(id=project_id))]
                for project_id in (owner.project_id, clone.id)
            ]
            assert len(both[0]) == 1, entity
            assert both[0] == both[1], entity
        [copied] = await tx.files.list(file_id=(await tx.files.object_of(file.id)).id, order_by="-id", limit=1)
        assert copied.code_id in [each.id for each in await tx.codes.list(project_id=clone.id)]


@pytest.mark.parametrize("is_known", [True, False], ids=["with a row", "put there by hand"])
@pytest.mark.parametrize("history", [True, False])
async def test_a_clone_keeps_the_files_of_an_original_that_is_removed(
    data: DataLayer, owner: Owner, *, history: bool, is_known: bool
) -> None:
    project = await data.projects.create(owner.actor, ProjectDraft(name="A"), screenshot=SCREENSHOT)
    key = project.original_image
    assert key is not None
    if not is_known:
        key = "by-hand/screenshot.png"
        await data.storage.upload(SCREENSHOT, key, "image/png")
        async with data.transaction() as tx:
            (await tx.projects.get(project.id)).original_image = key
    clone = await data.projects.clone(owner.actor, project.id, history=history)
    assert (clone.original_image, clone.thumbnail_image) == (key, project.thumbnail_image)
    assert len(await data.files.list(owner_id=owner.actor.user_id, attached_to=Attachment(project_id=clone.id))) == 1

    await remove_for_good(data, project.id)
    await data.file_maintenance.cleanup(SYSTEM, apply=True, older_than=timedelta(0))
    assert (await data.storage.download(key)) == SCREENSHOT
    assert not [found for found in (await data.file_maintenance.check(SYSTEM, deep=True)).findings if found.key == key]
    await remove_for_good(data, clone.id)
    assert not await data.storage.exists(key)


async def test_an_object_that_only_a_column_names_gets_a_reference(data: DataLayer, owner: Owner) -> None:
    mine = await data.files.save(SCREENSHOT, owner_id=owner.actor.user_id)
    async with data.transaction() as tx:
        (await tx.projects.get(owner.project_id)).original_image = mine.key
    clone = await data.projects.clone(owner.actor, owner.project_id)
    await data.files.delete(mine.id, owner_id=owner.actor.user_id)
    [file] = await data.files.list(owner_id=owner.actor.user_id)
    assert (file.project_id, file.key) == (clone.id, mine.key)


async def test_inputs_name_the_copies_of_their_files(data: DataLayer, owner: Owner) -> None:
    file = await data.files.save(
        SCREENSHOT, owner_id=owner.actor.user_id, attached_to=Attachment(project_id=owner.project_id)
    )
    other = "019aaaaa-0000-7000-8000-000000000000"
    said = {"images": [str(file.id), other], "words": f'a "{file.id}" in \\ quotes', "n": 1, "none": None}
    await started(data, owner, inputs=said)
    await started(data, owner, inputs={})
    clone = await data.projects.clone(owner.actor, owner.project_id)
    [copied] = await data.files.list(owner_id=owner.actor.user_id, attached_to=Attachment(project_id=clone.id))
    [(inputs,), (empty,)] = await rows(
        data, "SELECT inputs FROM generations WHERE project_id = :id ORDER BY number", id=clone.id
    )
    assert empty == {}
    assert copied.id != file.id
    assert inputs == said | {"images": [str(copied.id), other]}


async def test_what_still_runs_is_cancelled_in_the_copy(data: DataLayer, owner: Owner) -> None:
    running = await started(data, owner, 2)
    await data.generations.append(owner.actor, running.writer_token, 1, 1, CodePiece("<p>"))
    await data.generations.store(owner.actor, running.writer_token)
    clone = await data.projects.clone(owner.actor, owner.project_id)
    states = "SELECT status, code, lease_until IS NULL AND writer IS NULL FROM generated_codes WHERE project_id = :id"
    assert await rows(data, f"{states} ORDER BY variant_index", id=clone.id) == [
        ("cancelled", "", True),
        ("cancelled", "<p>", True),
    ]
    [view] = await data.generations.history(owner.actor, clone.id)
    assert (view.status, view.ended_at is None) == (GenerationStatus.CANCELLED, False)
    await data.generations.complete(owner.actor, running.writer_token, 1)
    assert (await data.generations.latest(owner.actor, owner.project_id)).code == "<p>"


async def test_at_a_version(data: DataLayer, owner: Owner) -> None:
    await story(data, owner)
    clone = await data.projects.clone(owner.actor, owner.project_id, version=2)
    assert await tree(data, clone.id) == (await tree(data, owner.project_id))[:3]
    assert (await data.projects.open(owner.actor, clone.id)).generation_count == 2
    assert (await completed(data, Owner(owner.actor, clone.id), "x"))[0].version == 3
    for missing in (0, 4, -1, 2**31):
        with pytest.raises(NotFoundError, match="no version"):
            await data.projects.clone(owner.actor, owner.project_id, version=missing)


async def test_without_history_and_forks(data: DataLayer, owner: Owner) -> None:
    await story(data, owner)
    copies = [
        (await data.projects.clone(owner.actor, owner.project_id, history=False), "c"),
        (await data.projects.clone(owner.actor, owner.project_id, history=False, version=1), "b"),
        (await data.generations.fork(owner.actor, owner.project_id, 1), "b"),
        (await data.generations.fork(owner.actor, owner.project_id, 1, 0, name="Mine"), "a"),
    ]
    for copy, code in copies:
        [row] = await tree(data, copy.id)
        assert row == (1, 0, code, "completed", None, None, "import", None, 0, False)
        assert copy.generation_count == 1
    assert [copy.name for copy, _ in copies][2:] == ["Project (copy)", "Mine"]
    for version, variant, error in ((3, None, InvalidValueError), (4, None, NotFoundError), (1, 2, NotFoundError)):
        with pytest.raises(error):
            await data.generations.fork(owner.actor, owner.project_id, version, variant)
    with pytest.raises(InvalidValueError):
        await data.projects.clone(owner.actor, owner.project_id, history=False, version=3)


@pytest.mark.parametrize("history", [True, False])
async def test_a_project_without_versions_and_with_all_its_settings(
    data: DataLayer, owner: Owner, *, history: bool
) -> None:
    draft = ProjectDraft(name="A" * 255, tags=["x"], settings={"a": 1}, is_public=True, is_favorite=True)
    project = await data.projects.create(owner.actor, draft)
    await data.projects.update(owner.actor, project.id, ProjectChanges(description="words"), expected=1)
    await data.projects.archive(owner.actor, project.id)
    clone = await data.projects.clone(owner.actor, project.id, history=history)
    assert clone == await data.projects.open(owner.actor, clone.id)
    assert (clone.name, len(clone.name)) == ("A" * 248 + " (copy)", 255)
    assert (clone.tags, clone.settings, clone.description) == (("x",), {"a": 1}, "words")
    assert (clone.is_public, clone.is_favorite, clone.revision, clone.status) == (False, False, 1, ProjectStatus.DRAFT)
    assert (clone.generation_count, clone.last_generated_at, clone.original_image) == (0, None, None)
    async with data.transaction() as tx:
        assert clone.id in [found.id for found in await tx.projects.search("words", user_id=owner.actor.user_id)]
    for name, error in (("", InvalidValueError), (" ", InvalidValueError), ("x" * 256, ValueTooLongError)):
        with pytest.raises(error):
            await data.projects.clone(owner.actor, project.id, name=name, history=history)


ALLOWED = {"owner", "system"}


@pytest.mark.parametrize("method", ["clone", "clone without history", "fork"])
@pytest.mark.parametrize(
    "who", ["owner", "system", "stranger", "nobody", "moderator", "administrator", "suspended", "holder of a share"]
)
async def test_only_the_owner_makes_copies(data: DataLayer, owner: Owner, who: str, method: str) -> None:
    await story(data, owner)
    async with data.transaction() as tx:
        (await tx.projects.get(owner.project_id)).is_public = True
    await data.shares.create(owner.actor, owner.project_id, version=1)
    match who:
        case "owner":
            actor = owner.actor
        case "system":
            actor = SYSTEM
        case "nobody":
            actor = ANONYMOUS
        case "suspended":
            actor = owner.actor
            async with data.transaction() as tx:
                (await tx.users.get(actor.user_id)).status = UserStatus.SUSPENDED  # type: ignore[arg-type]
        case _:
            roles = {"moderator": UserRole.MODERATOR, "administrator": UserRole.ADMIN}
            actor = await stored_actor(data, role=roles.get(who, UserRole.USER))
    calls = {
        "clone": lambda: data.projects.clone(actor, owner.project_id),
        "clone without history": lambda: data.projects.clone(actor, owner.project_id, history=False),
        "fork": lambda: data.generations.fork(actor, owner.project_id, 1),
    }
    if who not in ALLOWED:
        with pytest.raises((NotFoundError, PermissionDeniedError)):
            await calls[method]()
        assert len(await rows(data, "SELECT id FROM projects")) == 1
        return
    copy = await calls[method]()
    assert copy.user_id == owner.actor.user_id
    recorded = "SELECT action, a.user_id, a.xmin = p.xmin FROM audit_logs a JOIN projects p ON p.id::text = resource_id"
    assert await rows(data, f"{recorded} WHERE p.id = :id", id=copy.id) == [
        (AuditAction.PROJECT_CLONE, owner.actor.user_id, True)
    ]


async def test_a_project_in_the_trash_is_not_copied(data: DataLayer, owner: Owner) -> None:
    await story(data, owner)
    await data.projects.delete(owner.actor, owner.project_id)
    with pytest.raises(NotFoundError):
        await data.projects.clone(owner.actor, owner.project_id)
    with pytest.raises(NotFoundError):
        await data.generations.fork(owner.actor, owner.project_id, 1)


@given(
    st.lists(st.tuples(st.integers(1, 3), st.one_of(st.none(), st.integers(0, 30))), min_size=1, max_size=8),
    st.one_of(st.none(), st.integers(1, 8)),
)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_any_tree(data: DataLayer, generations: list[tuple[int, int | None]], last: int | None) -> None:
    """Parents stand anywhere, also behind their children."""
    actor = await stored_actor(data)
    project = await data.projects.create(actor, ProjectDraft(name="A"))
    async with data.transaction() as tx:
        codes: list[GeneratedCode] = []
        for number, (variants, _) in enumerate(generations):
            generation = Generation(project_id=project.id)
            tx.add(generation)
            await tx.flush()
            for index in range(variants):
                code = GeneratedCode(
                    project_id=project.id,
                    generation_id=generation.id,
                    variant_index=index,
                    code=f"{number}.{index}",
                    provider=GenerationProvider.OTHER,
                    model="m",
                    status=GenerationStatus.COMPLETED,
                )
                codes.append(code)
                tx.add(code)
        await tx.flush()
        # Whichever order the rows have, each variant has the parent that a shuffled order allows.
        by_shuffle = sorted(codes, key=lambda code: code.code[::-1])
        for place, code in enumerate(by_shuffle):
            wanted = generations[code.version - 1][1]
            if wanted is not None and place:
                code.parent_id = by_shuffle[wanted % place].id
    last = None if last is None else min(last, len(generations))
    clone = await data.projects.clone(actor, project.id, version=last)
    whole = [row for row in await tree(data, project.id) if last is None or row[0] <= last]
    expected = [
        (*row[:4], *((None, None) if row[4] and last and row[4] > last else row[4:6]), *row[6:]) for row in whole
    ]
    assert [row[:9] for row in await tree(data, clone.id)] == [row[:9] for row in expected]


async def test_copies_while_others_write(data: DataLayer, owner: Owner) -> None:
    await story(data, owner)

    async def write() -> None:
        for _ in range(5):
            await completed(data, owner, "x", "y")

    async with asyncio.TaskGroup() as group:
        cloning = [group.create_task(data.projects.clone(owner.actor, owner.project_id)) for _ in range(5)]
        for _ in range(2):
            group.create_task(write())
    copies = [task.result() for task in cloning]
    for copy in copies:
        [(count, _, stored, _)] = await rows(data, COUNTERS, id=copy.id)
        numbers = await rows(data, "SELECT number FROM generations WHERE project_id = :id ORDER BY 1", id=copy.id)
        assert count == stored == copy.generation_count
        assert [number for (number,) in numbers] == list(range(1, count + 1))


async def test_a_number_that_is_not_counted_yet_is_given_by_the_database(data: DataLayer, owner: Owner) -> None:
    insert = "INSERT INTO generations (id, project_id, number) VALUES (gen_random_uuid(), :id, 7) RETURNING number"
    assert await rows(data, insert, id=owner.project_id) == [(1,)]
