"""Links show one page and nothing else, count their views, and end for everybody at once."""

from __future__ import annotations

import asyncio
import hashlib
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from uuid_utils.compat import uuid7

from data_layer import DataLayer
from data_layer.entities import GeneratedCode, Generation, Project
from data_layer.entities.enums import (
    AuditAction,
    CodeStack,
    GenerationStatus,
    ProjectStatus,
    RequestType,
    UserRole,
    UserStatus,
)
from data_layer.errors import (
    DataLayerError,
    InvalidValueError,
    LimitReachedError,
    MissingReferenceError,
    NotFoundError,
    PermissionDeniedError,
)
from data_layer.schemas.actors import ANONYMOUS, SYSTEM, Actor
from data_layer.schemas.files import Attachment
from data_layer.services.shares import MAXIMUM_NUMBER
from tests.file_content import picture as image
from tests.support import make_code, make_project, make_user, stored_actor

NOTHING = "there is no such share"


class Shared:
    """An owner with a project of three versions; the second has two variants, of which the second is selected."""

    def __init__(self, data: DataLayer) -> None:
        self.data = data
        self.user = make_user()
        self.owner = Actor.user(self.user.id)
        self.project = make_project(self.user)
        self.codes: list[GeneratedCode] = []

    async def store(self) -> Shared:
        async with self.data.transaction() as tx:
            tx.add(self.user)
            tx.add(self.project)
        await self.add("one")
        generation = Generation(project_id=self.project.id, selected_variant=1)
        async with self.data.transaction() as tx:
            tx.add(generation)
        for index in range(2):
            await self.add(f"two, variant {index}", generation_id=generation.id, variant_index=index)
        await self.add("three", code_stack=CodeStack.SVG)
        return self

    async def add(self, code: str, **values: Any) -> GeneratedCode:
        row = make_code(self.project, code=code, **{"status": GenerationStatus.COMPLETED} | values)
        async with self.data.transaction() as tx:
            tx.add(row)
        self.codes.append(row)
        return row

    async def change_project(self, **values: Any) -> None:
        async with self.data.transaction() as tx:
            project = await tx.projects.get(self.project.id)
            for name, value in values.items():
                setattr(project, name, value)

    async def token(self, **values: Any) -> str:
        made = await self.data.shares.create(self.owner, self.project.id, **values)
        return made.token.get_secret_value()

    async def shown(self, token: str) -> str:
        return (await self.data.shares.open(token)).code


@pytest.fixture
async def shared(data: DataLayer) -> Shared:
    return await Shared(data).store()


async def test_a_frozen_link_shows_its_version_whatever_follows(shared: Shared) -> None:
    first, selected = await shared.token(version=1), await shared.token(version=2)
    other = await shared.token(version=2, variant_index=0)
    await shared.add("four")
    assert [await shared.shown(token) for token in (first, selected, other)] == [
        *("one", "two, variant 1", "two, variant 0")
    ]
    # The choice is made when the link is.
    async with shared.data.transaction() as tx:
        (await tx.generations.get(shared.codes[1].generation_id)).selected_variant = 0
    assert await shared.shown(selected) == "two, variant 1"


async def test_a_following_link_shows_the_latest_that_can_be_shown(shared: Shared) -> None:
    token = await shared.token()
    assert await shared.shown(token) == "three"
    for status in (GenerationStatus.FAILED, GenerationStatus.CANCELLED):
        await shared.add("broken", status=status)
    await shared.add("", status=GenerationStatus.PENDING)
    writing = await shared.add("half", status=GenerationStatus.PROCESSING, lease_until=shared.codes[0].created_at)
    assert await shared.shown(token) == "three"
    async with shared.data.transaction() as tx:
        code = await tx.codes.get(writing.id)
        code.code, code.status, code.lease_until = "whole", GenerationStatus.COMPLETED, None
    assert await shared.shown(token) == "whole"


async def test_a_following_link_shows_the_selected_variant(data: DataLayer) -> None:
    shared = Shared(data)
    async with data.transaction() as tx:
        tx.add(shared.user)
        tx.add(shared.project)
    generation = Generation(project_id=shared.project.id, selected_variant=1)
    async with data.transaction() as tx:
        tx.add(generation)
    for index in range(3):
        await shared.add(f"variant {index}", generation_id=generation.id, variant_index=index)
    token = await shared.token()
    assert await shared.shown(token) == "variant 1"
    async with data.transaction() as tx:
        (await tx.generations.get(generation.id)).selected_variant = 2
    assert await shared.shown(token) == "variant 2"


async def test_a_link_discloses_the_page_and_nothing_else(shared: Shared) -> None:
    page = await shared.data.shares.open(await shared.token())
    assert page.model_dump() == {"code": "three", "code_stack": CodeStack.SVG}


async def test_the_token_is_shown_once_and_stored_as_a_hash(shared: Shared) -> None:
    made = await shared.data.shares.create(shared.owner, shared.project.id, version=2)
    token = made.token.get_secret_value()
    assert len(token) == 43
    assert token not in repr(made)
    assert token not in made.model_dump_json()
    async with shared.data.transaction() as tx:
        [share] = await tx.shares.list()
        everything = str(
            (await tx.execute(text("SELECT shares::text || audit_logs::text FROM shares, audit_logs"))).all()
        )
    assert share.token_hash == hashlib.sha256(token.encode()).hexdigest()
    assert token not in everything
    assert await shared.data.shares.list(shared.owner, shared.project.id) == [made.share]
    assert (made.share.version, made.share.variant_index, made.share.is_following) == (2, 1, False)


async def test_views_are_counted_exactly(shared: Shared) -> None:
    token, other = await shared.token(), await shared.token()
    await asyncio.gather(*(shared.shown(token) for _ in range(25)))
    newest, oldest = await shared.data.shares.list(shared.owner, shared.project.id)
    assert (oldest.view_count, newest.view_count) == (25, 0)
    assert oldest.last_viewed_at is not None
    assert newest.last_viewed_at is None
    async with shared.data.transaction() as tx:
        assert (await tx.projects.get(shared.project.id)).view_count == 0
    assert await shared.shown(other)


async def nothing(shared: Shared, token: Any) -> None:
    """The same error, and no view is counted."""
    with pytest.raises(NotFoundError) as raised:
        await shared.data.shares.open(token)
    assert str(raised.value) == NOTHING
    with pytest.raises(NotFoundError) as raised:
        await shared.data.shares.fork(await stored_actor(shared.data), token)
    assert str(raised.value) == NOTHING


@pytest.mark.parametrize("frozen", [False, True])
async def test_whatever_ends_a_link_makes_no_difference(shared: Shared, *, frozen: bool) -> None:
    made = await shared.data.shares.create(shared.owner, shared.project.id, version=1 if frozen else None)
    token, share_id = made.token.get_secret_value(), made.share.id
    for status in (ProjectStatus.ARCHIVED, ProjectStatus.DELETED):
        await shared.change_project(status=status)
        await nothing(shared, token)
    await shared.change_project(status=ProjectStatus.ACTIVE)
    assert await shared.shown(token)
    for account in (UserStatus.SUSPENDED, UserStatus.INACTIVE, UserStatus.ACTIVE):
        async with shared.data.transaction() as tx:
            (await tx.users.get(shared.user.id)).status = account
        if account is not UserStatus.ACTIVE:
            await nothing(shared, token)
    async with shared.data.transaction() as tx:
        (await tx.shares.get(share_id)).expires_at = shared.codes[0].created_at
    await nothing(shared, token)
    async with shared.data.transaction() as tx:
        (await tx.shares.get(share_id)).expires_at = None
    assert await shared.shown(token)
    assert await shared.data.shares.revoke(shared.owner, share_id)
    await nothing(shared, token)
    [share] = await shared.data.shares.list(shared.owner, shared.project.id)
    assert (share.view_count, share.revoked_at is None) == (2, False)
    assert not await shared.data.shares.revoke(shared.owner, share_id)
    async with shared.data.transaction() as tx:
        await tx.projects.delete(await tx.projects.get(shared.project.id))
    await nothing(shared, token)


@pytest.mark.parametrize("token", ["", "x" * 43, "a\0b", "\ud800", "x" * 100_000])
async def test_a_token_that_is_none_finds_nothing(shared: Shared, token: str) -> None:
    await shared.token()
    await nothing(shared, token)


async def test_a_link_without_any_page_shows_nothing(data: DataLayer) -> None:
    shared = Shared(data)
    async with data.transaction() as tx:
        tx.add(shared.user)
        tx.add(shared.project)
    token = await shared.token()
    await nothing(shared, token)
    await shared.add("first")
    assert await shared.shown(token) == "first"


async def test_a_link_goes_with_its_variant(shared: Shared) -> None:
    token = await shared.token(version=3)
    async with shared.data.transaction() as tx:
        await tx.codes.delete(await tx.codes.get(shared.codes[-1].id))
    await nothing(shared, token)


async def test_what_cannot_be_shared_is_refused(shared: Shared) -> None:
    create, project_id = shared.data.shares.create, shared.project.id
    failed = await shared.add("broken", status=GenerationStatus.FAILED)
    for version, variant in ((9, None), (0, None), (2, 2), (failed.version, None), (failed.version, 0)):
        with pytest.raises(NotFoundError, match="that can be shown"):
            await create(shared.owner, project_id, version=version, variant_index=variant)
    for lifetime in (timedelta(0), timedelta(seconds=-1), timedelta(days=4000)):
        with pytest.raises(InvalidValueError) as raised:
            await create(shared.owner, project_id, expires_in=lifetime)
        assert raised.value.field == "expires_in"
    with pytest.raises(InvalidValueError):
        await create(shared.owner, project_id, variant_index=0)
    await shared.change_project(status=ProjectStatus.ARCHIVED)
    with pytest.raises(InvalidValueError) as raised:
        await create(shared.owner, project_id)
    assert raised.value.field == "status"
    assert await shared.data.shares.list(shared.owner, project_id) == []


async def test_the_number_is_limited_however_many_come_at_once(shared: Shared) -> None:
    async with shared.data.transaction() as tx:
        rows = "SELECT gen_random_uuid(), id, n FROM projects, generate_series(3, :most) AS n"
        statement = text(f"INSERT INTO shares (id, project_id, token_hash) {rows}")
        await tx.execute(statement.bindparams(most=MAXIMUM_NUMBER))
    results = await asyncio.gather(*(shared.token() for _ in range(6)), return_exceptions=True)
    assert sum(isinstance(result, LimitReachedError) for result in results) == 4
    share = (await shared.data.shares.list(shared.owner, shared.project.id))[-1]
    await shared.data.shares.revoke(shared.owner, share.id)
    await shared.token()


async def test_making_and_ending_are_recorded(shared: Shared) -> None:
    made = await shared.data.shares.create(shared.owner, shared.project.id, version=1, expires_in=timedelta(days=1))
    moderator = await stored_actor(shared.data, role=UserRole.MODERATOR)
    await shared.data.shares.revoke(moderator, made.share.id)
    async with shared.data.transaction() as tx:
        created, revoked = await tx.audit.list(resource_type="project", resource_id=str(shared.project.id))
    assert (created.action, created.user_id) == (AuditAction.PROJECT_SHARE, shared.user.id)
    assert created.new_values.keys() == {"share_id", "version", "variant_index", "expires_at"}
    assert (revoked.action, revoked.user_id) == (AuditAction.PROJECT_UNSHARE, moderator.user_id)
    assert revoked.new_values == {"share_id": str(made.share.id)}


METHODS = ("create", "list", "revoke", "open", "fork")
WHO = ("owner", "stranger", "nobody", "moderator", "administrator", "holder", "system")


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    who=st.sampled_from(WHO),
    method=st.sampled_from(METHODS),
    state=st.sampled_from([ProjectStatus.ACTIVE, ProjectStatus.DELETED, None]),
)
async def test_who_may_do_what(data: DataLayer, who: str, method: str, state: ProjectStatus | None) -> None:
    shared = await Shared(data).store()
    made = await data.shares.create(shared.owner, shared.project.id)
    token = made.token.get_secret_value()
    if state is not None:
        await shared.change_project(status=state)
    is_there = state is not None
    project_id: UUID = shared.project.id if is_there else uuid7()
    share_id: UUID = made.share.id if is_there else uuid7()
    actor = {
        "owner": shared.owner,
        "stranger": await stored_actor(data),
        "holder": await stored_actor(data),  # Has the token, and nothing more from it.
        "nobody": ANONYMOUS,
        "moderator": await stored_actor(data, role=UserRole.MODERATOR),
        "administrator": await stored_actor(data, role=UserRole.ADMIN),
        "system": SYSTEM,
    }[who]
    heir = shared.user.id if who == "system" else None
    work: Any = {
        "create": lambda: data.shares.create(actor, project_id),
        "list": lambda: data.shares.list(actor, project_id),
        "revoke": lambda: data.shares.revoke(actor, share_id),
        "open": lambda: data.shares.open(token if is_there else "x" * 43),
        "fork": lambda: data.shares.fork(actor, token if is_there else "x" * 43, owner_id=heir),
    }[method]

    error: DataLayerError | None = None
    try:
        await work()
    except DataLayerError as raised:
        error = raised

    allowed = {
        "create": who in {"owner", "system"} and state is ProjectStatus.ACTIVE,
        "list": who in {"owner", "moderator", "administrator", "system"} and state is ProjectStatus.ACTIVE,
        "revoke": who in {"owner", "moderator", "administrator", "system"} and is_there,
        "open": state is ProjectStatus.ACTIVE,
        "fork": who != "nobody" and state is ProjectStatus.ACTIVE,
    }[method]
    assert (error is None) == allowed, error
    if error is not None and (who, method) == ("nobody", "fork"):
        assert type(error) is PermissionDeniedError
    elif error is not None:
        assert type(error) is NotFoundError
        expected = {"open": NOTHING, "fork": NOTHING, "revoke": f"no share has the id {share_id}"}
        assert str(error) == expected.get(method, f"no project has the id {project_id}")


async def test_a_deleted_row_of_a_project_is_no_crash(shared: Shared) -> None:
    made = await shared.data.shares.create(shared.owner, shared.project.id)
    async with shared.data.transaction() as tx:
        project: Project = await tx.projects.get(shared.project.id)
        await tx.projects.delete(project)
    with pytest.raises(NotFoundError):
        await shared.data.shares.revoke(shared.owner, made.share.id)


async def forked_code(data: DataLayer, holder: Actor, project_id: UUID) -> str:
    return (await data.generations.latest(holder, project_id)).code


async def test_a_fork_is_the_page_that_the_link_shows_now(shared: Shared) -> None:
    data, holder = shared.data, await stored_actor(shared.data)
    frozen, following = await shared.token(version=2, variant_index=0), await shared.token()
    assert not (await data.projects.list(holder)).projects
    forks = [await data.shares.fork(holder, token, name=" Mine ") for token in (frozen, following)]
    await shared.add("four")
    forks.append(await data.shares.fork(holder, following))

    assert [await forked_code(data, holder, fork.id) for fork in forks] == ["two, variant 0", "three", "four"]
    assert [fork.name for fork in forks] == ["Mine", "Mine", "Copy of a shared page"]
    assert {(fork.user_id, fork.generation_count, fork.is_public) for fork in forks} == {(holder.user_id, 1, False)}
    [listed, *_] = (await data.projects.list(holder)).projects  # It was cached as an empty list.
    assert listed.id == forks[-1].id
    [version] = await data.generations.history(holder, forks[1].id)
    assert (version.number, version.generation_type, version.created_by) == (1, RequestType.IMPORT, holder.user_id)
    assert version.variants[0].code_stack is CodeStack.SVG


async def test_a_fork_stays_whatever_happens_to_the_share(shared: Shared) -> None:
    data, holder = shared.data, await stored_actor(shared.data)
    made = await data.shares.create(shared.owner, shared.project.id)
    fork = await data.shares.fork(holder, made.token.get_secret_value())
    await data.shares.revoke(shared.owner, made.share.id)
    async with data.transaction() as tx:
        await tx.projects.delete(await tx.projects.get(shared.project.id))
    assert await forked_code(data, holder, fork.id) == "three"
    # And it is the holder's alone.
    with pytest.raises(NotFoundError):
        await data.projects.open(shared.owner, fork.id)


async def test_nothing_private_comes_with_a_fork(shared: Shared) -> None:
    data, holder = shared.data, await stored_actor(shared.data)
    secret = "do not tell"
    await shared.change_project(
        name=secret, description=secret, instructions=secret, tags=[secret], settings={secret: 1}, metadata_={secret: 1}
    )
    picture = await data.files.save(
        image("PNG"), owner_id=shared.user.id, attached_to=Attachment(project_id=shared.project.id)
    )
    page = await shared.add(
        "page",
        **dict.fromkeys(("name", "original_prompt", "revised_prompt", "additional_instructions"), secret),
        **{field: {secret: 1} for field in ("metrics", "generation_params", "metadata_")},
        model=secret,
        parent_id=shared.codes[0].id,
    )
    assert holder.user_id is not None
    fork = await data.shares.fork(holder, await shared.token())

    async with data.transaction() as tx:
        rows = [
            str((await tx.execute(text(f"SELECT {table} FROM {table} WHERE {own} = :id").bindparams(id=value))).all())
            for table, own, value in (
                ("projects", "id", fork.id),
                *((table, "project_id", fork.id) for table in ("generations", "generated_codes", "generated_images")),
                ("file_references", "project_id", fork.id),
                ("file_references", "owner_id", holder.user_id),
                ("project_search", "project_id", fork.id),
                ("usage_entries", "user_id", holder.user_id),
                ("audit_logs", "user_id", holder.user_id),
            )
        ]
    stored = "".join(rows)
    private = (secret, *map(str, (shared.project.id, shared.user.id, page.id, page.generation_id, picture.id)))
    assert str(fork.id) in stored
    assert not [each for each in private if each in stored]


async def test_a_fork_is_recorded_and_counts_as_a_view(shared: Shared) -> None:
    data, holder = shared.data, await stored_actor(shared.data)
    made = await data.shares.create(shared.owner, shared.project.id, version=1)
    fork = await data.shares.fork(holder, made.token.get_secret_value())
    await data._opened.view_counts.flush()
    [share] = await data.shares.list(shared.owner, shared.project.id)
    async with data.transaction() as tx:
        [entry] = await tx.audit.list(resource_id=str(fork.id))
        viewed = (await tx.codes.get(shared.codes[0].id)).view_count
    assert (share.view_count, viewed) == (1, 1)
    assert (entry.action, entry.user_id) == (AuditAction.PROJECT_CLONE, holder.user_id)
    assert entry.new_values == {"name": fork.name, "share_id": str(made.share.id)}


async def test_who_cannot_have_a_project_forks_nothing(shared: Shared) -> None:
    data, holder = shared.data, await stored_actor(shared.data)
    token = await shared.token()
    with pytest.raises(PermissionDeniedError):
        await data.shares.fork(holder, token, owner_id=shared.user.id)
    with pytest.raises(PermissionDeniedError):  # Administrators make no projects for others.
        await data.shares.fork(await stored_actor(data, role=UserRole.ADMIN), token, owner_id=shared.user.id)
    with pytest.raises(InvalidValueError, match="owner_id"):
        await data.shares.fork(SYSTEM, token)
    with pytest.raises(MissingReferenceError):
        await data.shares.fork(SYSTEM, token, owner_id=uuid7())
    for name in ("", "   ", "x" * 256):
        with pytest.raises(InvalidValueError, match="name"):
            await data.shares.fork(holder, token, name=name)
    async with data.transaction() as tx:
        (await tx.users.get(holder.user_id or uuid7())).status = UserStatus.SUSPENDED
    with pytest.raises(PermissionDeniedError):
        await data.shares.fork(holder, token)
    [share] = await data.shares.list(shared.owner, shared.project.id)
    assert share.view_count == 0  # What is refused, is undone as a whole.
    async with data.transaction() as tx:
        assert await tx.projects.count() == 1
