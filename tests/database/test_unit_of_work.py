from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import select, text

from data_layer import DataLayer, Settings
from data_layer.entities import AuditLog, GeneratedCode, Project, User
from data_layer.entities.enums import AuditAction, GenerationProvider, GenerationStatus, UserRole
from data_layer.errors import (
    DuplicateError,
    IllegalStatusMoveError,
    InvalidTextError,
    InvalidValueError,
    MissingReferenceError,
    NestedTransactionError,
    NotFoundError,
    SchemaMismatchError,
    StillReferencedError,
    TransactionClosedError,
    ValueTooLongError,
)
from tests.support import make_code, make_project, make_user


async def test_what_is_added_is_stored_at_the_end_and_filled_in_by_the_database(data: DataLayer) -> None:
    user = make_user(preferences={"theme": "dark"})
    async with data.transaction() as tx:
        tx.add(user)
    assert user.created_at is not None
    assert user.login_count == 0
    async with data.transaction() as tx:
        stored = await tx.users.get(user.id)
    assert stored is not user
    assert (stored.email, stored.preferences, stored.status) == (user.email, {"theme": "dark"}, "active")
    assert stored.created_at == user.created_at


async def test_a_row_is_one_object_within_a_transaction(data: DataLayer) -> None:
    user = make_user()
    async with data.transaction() as tx:
        tx.add(user)
        assert await tx.users.find_one(email=user.email) is user
        assert await tx.users.get(user.id) is user
    async with data.transaction() as tx:
        first = await tx.users.get(user.id)
        assert await tx.users.find_one(email=user.email) is first
        assert list(await tx.users.list()) == [first]


async def test_changes_of_what_was_read_are_written(data: DataLayer) -> None:
    user, project = make_user(), Project(user_id=make_user().id, name="x")
    project.user_id = user.id
    async with data.transaction() as tx:
        tx.add(project)  # Added before the row it refers to: the transaction finds the order.
        tx.add(user)
    async with data.transaction() as tx:
        read = await tx.users.get(user.id)
        read.first_name = "Changed"
        read.preferences["theme"] = "light"
    async with data.transaction() as tx:
        again = await tx.users.get(user.id)
    assert (again.first_name, again.preferences) == ("Changed", {"theme": "light"})
    assert again.updated_at > user.updated_at


async def test_whatever_is_asked_sees_what_was_added_and_changed(data: DataLayer) -> None:
    user = make_user()
    async with data.transaction() as tx:
        tx.add(user)
        assert await tx.users.standing(user.id) == (user.role, user.status)
    async with data.transaction() as tx:
        found = (await tx.execute(select(User))).scalar_one()
        found.role = UserRole.MODERATOR
        assert await tx.users.standing(user.id) == (UserRole.MODERATOR, user.status)
        found.first_name = "Changed"
    async with data.transaction() as tx:
        assert (await tx.users.get(user.id)).first_name == "Changed"
    with pytest.raises(TransactionClosedError):
        await tx.users.standing(user.id)


async def test_an_exception_rolls_everything_back_and_the_entity_can_be_added_again(data: DataLayer) -> None:
    user = make_user()
    with pytest.raises(KeyError):
        async with data.transaction() as tx:
            tx.add(user)
            await tx.flush()
            raise KeyError
    async with data.transaction() as tx:
        assert await tx.users.count() == 0
        tx.add(user)
    async with data.transaction() as tx:
        assert await tx.users.count() == 1


async def test_cancellation_rolls_back_and_gives_the_connection_back(data: DataLayer) -> None:
    reached = asyncio.Event()

    async def work() -> None:
        async with data.transaction() as tx:
            tx.add(make_user())
            await tx.flush()
            reached.set()
            await tx.execute(text("SELECT pg_sleep(30)"))

    task = asyncio.create_task(work())
    await reached.wait()
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert data.database.pool_figures()["in_use"] == 0
    async with data.transaction() as tx:
        assert await tx.users.count() == 0


async def test_a_stored_entity_can_be_changed_later_in_another_transaction(data: DataLayer) -> None:
    user = make_user()
    async with data.transaction() as tx:
        tx.add(user)
    user.display_name = "Later"
    async with data.transaction() as tx:
        tx.add(user)
    async with data.transaction() as tx:
        assert (await tx.users.get(user.id)).display_name == "Later"


async def test_transactions_do_not_nest(data: DataLayer) -> None:
    async with data.transaction():
        with pytest.raises(NestedTransactionError, match="pass its `tx` on"):
            async with data.transaction():
                pass
    async with data.transaction() as tx:  # The refusal left nothing behind.
        assert await tx.users.count() == 0


async def test_other_tasks_have_their_own_transactions(data: DataLayer) -> None:
    async def count() -> int:
        async with data.transaction() as tx:
            return await tx.users.count()

    async with data.transaction() as tx:
        tx.add(make_user())
        await tx.flush()
        assert list(await asyncio.gather(count(), count())) == [0, 0]


async def test_a_transaction_is_used_inside_its_block_only(data: DataLayer) -> None:
    transaction = data.transaction()
    with pytest.raises(TransactionClosedError):
        await transaction.users.count()
    async with transaction as tx:
        pass
    with pytest.raises(TransactionClosedError):
        await tx.users.count()
    with pytest.raises(TransactionClosedError):
        await tx.users.get(make_user().id)
    with pytest.raises(TransactionClosedError):
        async with transaction:
            pass
    with pytest.raises(TransactionClosedError):
        tx.add(make_user())


async def test_email_is_unique_and_found_in_any_letter_case(data: DataLayer) -> None:
    user = make_user(email="Ada@Example.com")
    async with data.transaction() as tx:
        tx.add(user)
    async with data.transaction() as tx:
        found = await tx.users.find_one(email="aDA@eXAMPLE.COM")
    assert found is not None
    assert found.email == "ada@example.com"
    with pytest.raises(DuplicateError, match="email is already taken") as caught:
        async with data.transaction() as tx:
            tx.add(make_user(email="ada@example.com"))
    assert (caught.value.code, caught.value.field) == ("duplicate", "email")


async def test_versions_are_numbered_without_gaps_under_concurrency(data: DataLayer) -> None:
    user, project = make_user(), make_project()
    project.user_id = user.id
    async with data.transaction() as tx:
        tx.add(user)
        tx.add(project)

    async def save(number: int) -> None:
        async with data.transaction() as tx:
            tx.add(make_code(project, code=str(number)))
            await tx.flush()
            if number % 3 == 0:
                raise KeyError(number)

    results = await asyncio.gather(*(save(number) for number in range(30)), return_exceptions=True)
    assert sum(isinstance(result, KeyError) for result in results) == 10
    async with data.transaction() as tx:
        versions = [summary.version for summary in await tx.codes.summaries(project.id)]
        stored = await tx.projects.get(project.id)
    assert versions == list(range(1, 21))
    assert stored.generation_count == 20
    assert stored.last_generated_at is not None


async def test_a_parent_is_a_version_of_the_same_project(data: DataLayer) -> None:
    user, one, other = make_user(), make_project(), make_project()
    one.user_id = other.user_id = user.id
    first = make_code(one)
    async with data.transaction() as tx:
        for row in (user, one, other, first):
            tx.add(row)
    with pytest.raises(MissingReferenceError) as caught:
        async with data.transaction() as tx:
            tx.add(make_code(other, parent_id=first.id))
    assert caught.value.field == "parent_id"
    with pytest.raises(MissingReferenceError) as caught:
        async with data.transaction() as tx:
            tx.add(GeneratedCode(project_id=user.id, code="", provider=GenerationProvider.CLAUDE, model="m"))
    assert caught.value.field == "project_id"


async def test_a_version_with_children_is_not_removed_alone(data: DataLayer) -> None:
    project, first = await _project_with_code(data)
    async with data.transaction() as tx:
        tx.add(make_code(project, parent_id=first.id))
    with pytest.raises(StillReferencedError, match="remove those first"):
        async with data.transaction() as tx:
            await tx.codes.delete(await tx.codes.get(first.id))
    async with data.transaction() as tx:
        await tx.projects.delete(await tx.projects.get(project.id))
    async with data.transaction() as tx:
        assert await tx.codes.count() == 0


async def test_status_moves_only_as_allowed(data: DataLayer) -> None:
    _, code = await _project_with_code(data)
    async with data.transaction() as tx:
        stored = await tx.codes.get(code.id)
        with pytest.raises(IllegalStatusMoveError, match="pending may go to cancelled, failed, processing"):
            stored.status = GenerationStatus.COMPLETED
        stored.status = GenerationStatus.PROCESSING
        stored.status = GenerationStatus.COMPLETED
    with pytest.raises(IllegalStatusMoveError):
        async with data.transaction() as tx:
            (await tx.codes.get(code.id)).status = GenerationStatus.FAILED


async def test_the_database_refuses_a_move_from_what_another_transaction_made_final(data: DataLayer) -> None:
    _, code = await _project_with_code(data)
    with pytest.raises(IllegalStatusMoveError, match="from cancelled to processing"):
        async with data.transaction() as slow:
            stale = await slow.codes.get(code.id)
            await asyncio.create_task(_set_status(data, code, GenerationStatus.CANCELLED))
            stale.status = GenerationStatus.PROCESSING


async def test_counters_change_in_sql_and_lose_nothing(data: DataLayer) -> None:
    project, _ = await _project_with_code(data)

    async def look() -> None:
        async with data.transaction() as tx:
            await tx.projects.increment(project.id, "view_count")

    await asyncio.gather(*(look() for _ in range(25)))
    async with data.transaction() as tx:
        stored = await tx.projects.get(project.id)
        assert stored.view_count == 25
        await tx.projects.increment(project.id, "view_count", amount=5)
        assert stored.view_count == 30
        changed = stored.updated_at
    async with data.transaction() as tx:
        assert (await tx.projects.get(project.id)).updated_at == changed
        with pytest.raises(InvalidValueError, match="is not a counter"):
            await tx.projects.increment(project.id, "name")
        with pytest.raises(NotFoundError):
            await tx.projects.increment(make_user().id, "view_count")
    with pytest.raises(InvalidValueError, match="increment"):
        stored.view_count = 7


async def test_what_does_not_exist_is_said_so(data: DataLayer) -> None:
    async with data.transaction() as tx:
        with pytest.raises(NotFoundError, match="users has no row"):
            await tx.users.get(make_user().id)
        assert await tx.users.find_one(email="nobody@example.com") is None
        with pytest.raises(InvalidValueError, match="users has no column 'mail'"):
            await tx.users.list(mail="x")
        with pytest.raises(NotFoundError):
            await tx.users.delete(make_user())


async def test_lists_are_filtered_ordered_and_paged(data: DataLayer) -> None:
    users = [make_user(first_name=f"Name {number}") for number in range(5)]
    async with data.transaction() as tx:
        for user in users:
            tx.add(user)
    async with data.transaction() as tx:
        ids = [user.id for user in users]
        assert [user.id for user in await tx.users.list(limit=2)] == ids[:2]
        assert [user.id for user in await tx.users.list(limit=2, after=ids[1])] == ids[2:4]
        assert [user.id for user in await tx.users.list(order_by="-id", after=ids[2])] == ids[1::-1]
        assert [user.first_name for user in await tx.users.list(order_by="-first_name", limit=1)] == ["Name 4"]
        assert await tx.users.count(id=ids[:2]) == 2
        assert await tx.users.count(display_name=None) == 5
        for wrong in ({"limit": 0}, {"limit": 1001}, {"after": ids[0], "order_by": "email"}, {"order_by": "nothing"}):
            with pytest.raises(InvalidValueError):
                await tx.users.list(**wrong)  # Wrong on purpose.


async def test_locked_rows_wait_for_each_other(data: DataLayer) -> None:
    project, _ = await _project_with_code(data)

    async def append(word: str) -> None:
        async with data.transaction() as tx:
            stored = await tx.projects.get(project.id, lock=True)
            await asyncio.sleep(0.01)
            stored.tags = [*stored.tags, word]

    await asyncio.gather(*(append(str(number)) for number in range(8)))
    async with data.transaction() as tx:
        assert sorted((await tx.projects.get(project.id)).tags) == [str(number) for number in range(8)]


@pytest.mark.parametrize(
    ("make", "kind", "field"),
    [
        (lambda: make_user(first_name="x" * 101), ValueTooLongError, "first_name"),
        (lambda: make_user(email=f"{'x' * 250}@example.com"), ValueTooLongError, "email"),
        (lambda: make_user(email="not an address"), InvalidValueError, "email"),
        (lambda: make_user(last_name="a\0b"), InvalidTextError, "last_name"),
        (lambda: make_user(last_name="\ud800"), InvalidTextError, "last_name"),
        (lambda: make_user(preferences={"a": ["\0"]}), InvalidTextError, "preferences"),
        (lambda: make_user(preferences={"a": "\ud800"}), InvalidTextError, "preferences"),
        (lambda: make_user(preferences={"a": float("nan")}), InvalidValueError, "preferences"),
        (lambda: make_user(preferences={"a": object()}), InvalidValueError, "preferences"),
        (lambda: make_user(role="king"), InvalidValueError, "role"),
        (lambda: make_user(last_login_ip="999.1.1.1"), InvalidValueError, "last_login_ip"),
        (lambda: make_code(make_project(), code="x" * 100_000_000), ValueTooLongError, "code"),
        (lambda: make_code(make_project(), rating=6), InvalidValueError, "rating"),
        (lambda: Project(user_id=make_user().id, name="x", original_image="data:image/png;base64,AAAA"),
         InvalidValueError, "original_image"),
    ],
)  # fmt: skip
def test_a_bad_value_is_refused_where_it_is_assigned(make: Any, kind: type[InvalidValueError], field: str) -> None:
    with pytest.raises(kind) as caught:
        make()
    assert caught.value.field == field
    assert len(str(caught.value)) < 300


def test_harmless_look_alikes_of_bad_values_are_accepted() -> None:
    assert make_user(preferences={"a": "\\u0000 and \\\\u0000"}).preferences == {"a": "\\u0000 and \\\\u0000"}
    assert make_user(first_name="\N{GRINNING FACE}" * 100).first_name == "\N{GRINNING FACE}" * 100


async def test_bad_values_that_python_cannot_see_leave_nothing_behind(data: DataLayer) -> None:
    user, project = make_user(), make_project()
    project.user_id = user.id
    with pytest.raises(InvalidValueError):
        async with data.transaction() as tx:
            tx.add(user)
            tx.add(project)
            tx.add(make_code(project, max_tokens=10**12))
    with pytest.raises(InvalidTextError):
        async with data.transaction() as tx:
            tx.add(user)
            await tx.users.find_one(first_name="a\0b")
    async with data.transaction() as tx:
        assert await tx.users.count() == 0


async def test_a_statement_that_fails_is_told_in_our_words(data: DataLayer) -> None:
    with pytest.raises(SchemaMismatchError, match="db check"):
        async with data.transaction() as tx:
            await tx.execute(text("SELECT * FROM nowhere"))
    with pytest.raises(SchemaMismatchError):
        async with data.transaction() as tx:
            session = await tx.orm()
            await session.execute(text("SELECT nothing FROM users"))


async def test_the_orm_session_belongs_to_the_transaction(data: DataLayer) -> None:
    user = make_user()
    async with data.transaction() as tx:
        tx.add(user)
        session = await tx.orm()
        found = (await session.execute(select(User).where(User.email == user.email))).scalar_one()
        assert found is user
        found.first_name = "Through the ORM"
    async with data.transaction() as tx:
        assert (await tx.users.get(user.id)).first_name == "Through the ORM"


async def test_audit_entries_have_no_way_to_be_changed(data: DataLayer) -> None:
    entry = AuditLog.system_event(AuditAction.SYSTEM_STARTUP, "Started")
    async with data.transaction() as tx:
        tx.add(entry)
        assert not hasattr(tx.audit, "delete")
        assert not hasattr(tx.audit, "increment")


async def _project_with_code(data: DataLayer) -> tuple[Project, GeneratedCode]:
    user, project = make_user(), make_project()
    project.user_id = user.id
    code = make_code(project)
    async with data.transaction() as tx:
        for row in (user, project, code):
            tx.add(row)
    return project, code


async def _set_status(data: DataLayer, code: GeneratedCode, status: GenerationStatus) -> None:
    async with data.transaction() as tx:
        (await tx.codes.get(code.id)).status = status


@pytest.mark.parametrize("before", range(8))
async def test_a_save_that_fails_leaves_its_connection_usable(settings: Settings, before: int) -> None:
    """The driver prepares a statement at its sixth use, which may be one that PostgreSQL skips after an error."""
    few = settings.replaced(db_max_connections=1, db_min_connections=1)
    async with DataLayer(few) as data:
        user = make_user()
        async with data.transaction() as tx:
            tx.add(user)
        for _ in range(before):
            async with data.transaction() as tx:
                tx.add(make_project(user))
        with pytest.raises(MissingReferenceError):
            async with data.transaction() as tx:
                for _ in range(3):
                    tx.add(make_project())
        with pytest.raises(MissingReferenceError):
            async with data.transaction() as tx:
                tx.add(make_project())
        for _ in range(3):
            async with data.transaction() as tx:
                tx.add(make_project(user))
        async with data.transaction() as tx:
            assert await tx.projects.count(user_id=user.id) == before + 3
