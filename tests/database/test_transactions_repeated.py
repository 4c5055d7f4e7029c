"""Entities after a rollback: the transaction can be repeated with them and loses nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import text

from data_layer import DataLayer
from data_layer.entities import Project
from data_layer.errors import (
    ConcurrentChangeError,
    DatabaseUnavailableError,
    DuplicateError,
    NotFoundError,
    TransactionError,
)
from data_layer.repositories.unit_of_work import UnitOfWork
from tests.support import make_code, make_project, make_user

Ending = Callable[[DataLayer, UnitOfWork], Awaitable[None]]


async def _exception(_data: DataLayer, _tx: UnitOfWork) -> None:
    raise KeyError


async def _cancellation(_data: DataLayer, _tx: UnitOfWork) -> None:
    raise asyncio.CancelledError


async def _duplicate(data: DataLayer, tx: UnitOfWork) -> None:
    """A statement that the database refuses."""
    taken = make_user()
    await asyncio.create_task(_store(data, taken))
    tx.add(make_user(email=taken.email))
    await tx.flush()


async def _refused_change(data: DataLayer, tx: UnitOfWork) -> None:
    """A change that the ORM session writes and the database refuses."""
    taken, other = make_user(), make_user()
    await asyncio.create_task(_store(data, taken, other))
    (await tx.users.get(other.id)).email = taken.email


async def _conflict(data: DataLayer, tx: UnitOfWork) -> None:
    """A commit that fails."""
    await tx.execute(
        text(
            "CREATE FUNCTION pg_temp.conflict() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE serialization_failure; END $$"
        )
    )
    await tx.execute(text("CREATE TEMPORARY TABLE deferred (id integer) ON COMMIT DROP"))
    await tx.execute(
        text(
            "CREATE CONSTRAINT TRIGGER conflict AFTER INSERT ON deferred DEFERRABLE INITIALLY DEFERRED "
            "FOR EACH ROW EXECUTE FUNCTION pg_temp.conflict()"
        )
    )
    await tx.execute(text("INSERT INTO deferred VALUES (1)"))
    del data


async def _break(_data: DataLayer, tx: UnitOfWork) -> None:
    """A connection that the server closes while the transaction is open."""
    await tx.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))


_ERRORS = (KeyError, asyncio.CancelledError, DuplicateError, ConcurrentChangeError, DatabaseUnavailableError)
endings = pytest.mark.parametrize("end", [_exception, _cancellation, _duplicate, _refused_change, _conflict, _break])


async def _store(data: DataLayer, *entities: Any) -> None:
    async with data.transaction() as tx:
        for entity in entities:
            tx.add(entity)


async def _project(data: DataLayer) -> Project:
    user = make_user()
    project = make_project(user, description="old", tags=["old"], settings={"theme": "old"})
    await _store(data, user, project)
    async with data.transaction() as tx:
        return await tx.projects.get(project.id)


async def _stored(data: DataLayer, project: Project) -> Project:
    async with data.transaction() as tx:
        return await tx.projects.get(project.id)


@endings
@pytest.mark.parametrize("is_flushed", [True, False])
async def test_what_was_changed_is_written_by_the_next_transaction(
    data: DataLayer, end: Ending, *, is_flushed: bool
) -> None:
    project = await _project(data)
    before = project.updated_at
    with pytest.raises(_ERRORS):
        async with data.transaction() as tx:
            tx.add(project)
            project.name = "new"
            project.tags.append("new")
            project.settings["theme"] = "new"
            if is_flushed:
                await tx.flush()
            project.description = "new"
            await end(data, tx)
    assert (await _stored(data, project)).name == "Project"
    assert project.updated_at == before
    assert (project.name, project.description, project.tags) == ("new", "new", ["old", "new"])
    await _store(data, project)
    stored = await _stored(data, project)
    assert (stored.name, stored.description, stored.tags) == ("new", "new", ["old", "new"])
    assert stored.settings == {"theme": "new"}
    assert stored.updated_at > before


@endings
async def test_what_was_read_in_it_can_be_used_and_changed_later(data: DataLayer, end: Ending) -> None:
    project = await _project(data)
    with pytest.raises(_ERRORS):
        async with data.transaction() as tx:
            read = await tx.projects.get(project.id)
            (found,) = await tx.users.list(id=project.user_id)
            read.name = "new"
            await tx.flush()
            await end(data, tx)
    assert (read.name, read.description) == ("new", "old")
    assert found.first_name == "Test"
    found.first_name = "Later"
    await _store(data, read, found)
    assert (await _stored(data, project)).name == "new"
    async with data.transaction() as tx:
        assert (await tx.users.get(found.id)).first_name == "Later"


@endings
async def test_what_was_inserted_is_new_again(data: DataLayer, end: Ending) -> None:
    project = await _project(data)
    first, second = make_code(project), make_code(project)
    with pytest.raises(_ERRORS):
        async with data.transaction() as tx:
            tx.add(first)
            await tx.flush()
            tx.add(second)
            await tx.flush()
            assert vars(second)["version"] == 2
            second.code = "changed"
            await tx.flush()
            await end(data, tx)
    assert [second.version, second.created_at] == [None, None]
    await _store(data, second)
    await _store(data, first)
    async with data.transaction() as tx:
        codes = {code.id: code for code in await tx.codes.list()}
    assert {key: (code.version, code.code) for key, code in codes.items()} == {
        second.id: (1, "changed"),
        first.id: (2, "<html></html>"),
    }
    assert (second.version, second.created_at) == (1, codes[second.id].created_at)


async def test_a_time_that_was_given_is_kept(data: DataLayer) -> None:
    other = await _project(data)
    user = make_user(created_at=other.created_at.replace(year=2001))
    with pytest.raises(KeyError):
        async with data.transaction() as tx:
            tx.add(user)
            await tx.flush()
            raise KeyError
    await _store(data, user)
    async with data.transaction() as tx:
        assert (await tx.users.get(user.id)).created_at.year == 2001


@endings
async def test_what_a_statement_filled_in_is_as_before(data: DataLayer, end: Ending) -> None:
    """The database counted, and has taken that back."""
    project = await _project(data)
    with pytest.raises(_ERRORS):
        async with data.transaction() as tx:
            tx.add(project)
            await tx.projects.increment(project.id, "view_count", amount=5)
            assert project.view_count == 5
            project.name = "new"
            await tx.flush()
            await tx.projects.increment(project.id, "view_count", amount=5)
            await end(data, tx)
    assert project.view_count == 0
    async with data.transaction() as tx:
        tx.add(project)
        await tx.projects.increment(project.id, "view_count")
    assert project.view_count == 1
    stored = await _stored(data, project)
    assert (stored.view_count, stored.name) == (1, "new")


@endings
async def test_what_was_removed_is_stored_still(data: DataLayer, end: Ending) -> None:
    project = await _project(data)
    with pytest.raises(_ERRORS):
        async with data.transaction() as tx:
            tx.add(project)
            project.name = "new"
            await tx.flush()
            await tx.projects.delete(project)
            await end(data, tx)
    await _store(data, project)
    assert (await _stored(data, project)).name == "new"
    async with data.transaction() as tx:
        await tx.projects.delete(project)
    async with data.transaction() as tx:
        with pytest.raises(NotFoundError):
            await tx.projects.get(project.id)


@endings
async def test_what_was_done_with_sqlalchemys_session_is_taken_back_too(data: DataLayer, end: Ending) -> None:
    project = await _project(data)
    added = make_user()
    with pytest.raises(_ERRORS):
        async with data.transaction() as tx:
            session = await tx.orm()
            loaded = await session.get(Project, project.id)
            assert loaded is not None
            loaded.name = "new"
            session.add(added)
            await session.flush()
            await session.delete(loaded)
            await session.flush()
            await end(data, tx)
    await _store(data, loaded, added)
    assert (await _stored(data, project)).name == "new"
    async with data.transaction() as tx:
        assert (await tx.users.get(added.id)).email == added.email


async def test_after_an_error_inside_the_block_the_entities_can_be_read(data: DataLayer) -> None:
    taken = make_user()
    await _store(data, taken)
    project = await _project(data)
    with pytest.raises(TransactionError):
        async with data.transaction() as tx:
            user = await tx.users.get(project.user_id)
            user.email = taken.email
            tx.add(project)
            project.name = "new"
            with pytest.raises(DuplicateError):
                await tx.flush()
            assert (user.email, project.name, project.description) == (taken.email, "new", "old")
    user.email = "free@example.com"
    await _store(data, user, project)
    assert (await _stored(data, project)).name == "new"


async def test_a_transaction_is_repeated_until_it_succeeds(data: DataLayer) -> None:
    project = await _project(data)
    user = make_user()
    for attempt in range(4):
        with suppress(KeyError):
            async with data.transaction() as tx:
                tx.add(project)
                tx.add(user)
                project.name = f"{project.name}!"
                await tx.flush()
                if attempt < 3:
                    raise KeyError
    assert (await _stored(data, project)).name == "Project!!!!"
    async with data.transaction() as tx:
        assert await tx.users.count(id=user.id) == 1


async def test_a_commit_makes_everything_last_once(data: DataLayer) -> None:
    """What is known of a rollback must not touch what was committed."""
    project = await _project(data)
    async with data.transaction() as tx:
        tx.add(project)
        project.name = "new"
        await tx.projects.increment(project.id, "view_count")
    assert project.view_count == 1
    async with data.transaction() as tx:
        other = await tx.projects.get(project.id)
        other.name = "newest"
    await _store(data, project)
    assert (await _stored(data, project)).name == "newest"


class TestSavepoints:
    async def test_a_rollback_to_one_puts_back_what_was_there(self, data: DataLayer) -> None:
        project = await _project(data)
        user = make_user()
        async with data.transaction() as tx:
            tx.add(project)
            project.name = "outside"
            session = await tx.orm()
            with pytest.raises(KeyError):
                async with session.begin_nested():
                    tx.add(user)
                    project.name = "inside"
                    project.description = "inside"
                    await tx.flush()
                    raise KeyError
            assert (project.name, project.description) == ("outside", "old")
            project.is_favorite = True
        stored = await _stored(data, project)
        assert (stored.name, stored.description, stored.is_favorite) == ("outside", "old", True)
        async with data.transaction() as tx:
            assert await tx.users.count(id=user.id) == 0
            tx.add(user)
        async with data.transaction() as tx:
            assert await tx.users.count(id=user.id) == 1

    async def test_one_that_is_released_stays_with_the_transaction(self, data: DataLayer) -> None:
        project = await _project(data)
        user = make_user()
        with pytest.raises(KeyError):
            async with data.transaction() as tx:
                tx.add(project)
                session = await tx.orm()
                async with session.begin_nested():
                    tx.add(user)
                    project.name = "new"
                    await tx.flush()
                raise KeyError
        await _store(data, project, user)
        assert (await _stored(data, project)).name == "new"
        async with data.transaction() as tx:
            assert await tx.users.count(id=user.id) == 1

    async def test_a_failure_in_one_leaves_the_transaction_usable(self, data: DataLayer) -> None:
        taken, user = make_user(), make_user()
        await _store(data, taken, user)
        async with data.transaction() as tx:
            read = await tx.users.get(user.id)
            read.first_name = "Kept"
            session = await tx.orm()
            with pytest.raises(DuplicateError):
                async with session.begin_nested():
                    read.email = taken.email
                    await tx.flush()
            assert (read.first_name, read.email) == ("Kept", user.email)
        async with data.transaction() as tx:
            stored = await tx.users.get(user.id)
        assert (stored.first_name, stored.email) == ("Kept", user.email)
