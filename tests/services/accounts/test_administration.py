"""What moderators and administrators do to accounts, and what nobody may."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from data_layer import DataLayer
from data_layer.entities.enums import UserRole, UserStatus
from data_layer.errors import (
    ConflictError,
    InvalidValueError,
    LastAdminError,
    NotFoundError,
    PermissionDeniedError,
)
from data_layer.schemas.actors import SYSTEM, Actor
from tests.services.accounts.support import PASSWORD, acting, make_account, trail, try_to_log_in
from tests.services.accounts.test_password_changes import begin_session, open_sessions


async def test_suspending_ends_the_sessions_and_keeps_out(data: DataLayer) -> None:
    user = await make_account(data)
    moderator = await make_account(data, "mod@example.com", role=UserRole.MODERATOR)
    await begin_session(data, user.id, "session")
    suspended = await data.accounts.suspend(acting(moderator), user.id, reason="posts spam")
    assert suspended.status is UserStatus.SUSPENDED
    assert await open_sessions(data, user.id) == set()
    entry = (await trail(data))[-1]
    assert (entry.action, entry.user_id, entry.details) == ("admin_user_suspend", moderator.id, "posts spam")
    assert (entry.old_values, entry.new_values) == ({"status": "active"}, {"status": "suspended"})
    again = await data.accounts.suspend(acting(moderator), user.id, reason="again")
    assert again.updated_at == suspended.updated_at
    with pytest.raises(InvalidValueError):
        await data.accounts.deactivate(SYSTEM, user.id)
    assert (await data.accounts.unsuspend(acting(moderator), user.id)).status is UserStatus.ACTIVE
    assert await try_to_log_in(data, "ann@example.com", PASSWORD) == "in"
    with pytest.raises(ConflictError):
        await data.accounts.unsuspend(acting(moderator), user.id)


async def test_a_suspension_verifies_no_address(data: DataLayer) -> None:
    pending = await data.accounts.register(
        email="ann@example.com", password=PASSWORD, first_name="Ann", last_name="Other"
    )
    await data.accounts.suspend(SYSTEM, pending.user.id, reason="tests")
    await data.accounts.verify_email(pending.verification.token, proof=pending.proof)
    assert await try_to_log_in(data, "ann@example.com", PASSWORD) == "account_suspended"
    other = await data.accounts.register(
        email="bob@example.com", password=PASSWORD, first_name="Bob", last_name="Other"
    )
    await data.accounts.suspend(SYSTEM, other.user.id, reason="tests")
    assert (await data.accounts.unsuspend(SYSTEM, other.user.id)).status is UserStatus.PENDING


async def test_moderators_act_on_users_only(data: DataLayer) -> None:
    moderator = await make_account(data, "mod@example.com", role=UserRole.MODERATOR)
    for role in (UserRole.MODERATOR, UserRole.ADMIN):
        other = await make_account(data, f"{role}@example.com", role=role)
        for act in (
            data.accounts.suspend(acting(moderator), other.id, reason="coup"),
            data.accounts.unlock(acting(moderator), other.id),
        ):
            with pytest.raises(PermissionDeniedError):
                await act
        with pytest.raises(PermissionDeniedError):
            await data.accounts.set_role(acting(moderator), moderator.id, UserRole.ADMIN)


async def test_the_role_in_a_session_may_be_out_of_date(data: DataLayer) -> None:
    """What counts is the role that the account has now, and that it is active."""
    user = await make_account(data)
    admin = await make_account(data, "root@example.com", role=UserRole.ADMIN)
    await make_account(data, "root2@example.com", role=UserRole.ADMIN)
    stale = acting(admin)
    await data.accounts.set_role(SYSTEM, admin.id, UserRole.USER)
    for actor in (stale, Actor.user(user.id, UserRole.ADMIN), Actor.user(user.id, UserRole.MODERATOR)):
        with pytest.raises(PermissionDeniedError):
            await data.accounts.suspend(actor, admin.id, reason="tests")
        with pytest.raises(PermissionDeniedError):
            await data.accounts.list(actor)
        with pytest.raises(PermissionDeniedError):
            await data.accounts.create(actor, email="x@example.com", first_name="X", last_name="X")
    await data.accounts.suspend(SYSTEM, admin.id, reason="tests")
    with pytest.raises(PermissionDeniedError):
        await data.accounts.deactivate(stale, admin.id)


async def test_another_role_ends_the_sessions(data: DataLayer) -> None:
    user = await make_account(data)
    await begin_session(data, user.id, "session")
    assert (await data.accounts.set_role(SYSTEM, user.id, UserRole.USER)).role is UserRole.USER
    assert len(await open_sessions(data, user.id)) == 1, "nothing has changed"
    assert (await data.accounts.set_role(SYSTEM, user.id, UserRole.MODERATOR)).role is UserRole.MODERATOR
    assert await open_sessions(data, user.id) == set()


ENDINGS: dict[str, Callable[[DataLayer, Actor, object], Awaitable[object]]] = {
    "demote": lambda data, actor, user_id: data.accounts.set_role(actor, user_id, UserRole.MODERATOR),  # type: ignore[arg-type]
    "suspend": lambda data, actor, user_id: data.accounts.suspend(actor, user_id, reason="tests"),  # type: ignore[arg-type]
    "deactivate": lambda data, actor, user_id: data.accounts.deactivate(actor, user_id),  # type: ignore[arg-type]
    "delete": lambda data, actor, user_id: data.accounts.delete(actor, user_id, password=PASSWORD),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("ending", ENDINGS)
async def test_the_last_active_administrator_stays(data: DataLayer, ending: str) -> None:
    admin = await make_account(data, "root@example.com", role=UserRole.ADMIN)
    former = await make_account(data, "former@example.com", role=UserRole.ADMIN)
    await data.accounts.deactivate(acting(former), former.id)
    for actor in (acting(admin), SYSTEM):
        with pytest.raises(LastAdminError):
            await ENDINGS[ending](data, actor, admin.id)
    await make_account(data, "next@example.com", role=UserRole.ADMIN)
    await ENDINGS[ending](data, SYSTEM, admin.id)


async def test_five_administrators_cannot_all_leave_at_once(data: DataLayer) -> None:
    admins = [await make_account(data, f"root{n}@example.com", role=UserRole.ADMIN) for n in range(5)]
    endings = [*ENDINGS.values(), ENDINGS["demote"]]
    answers = await asyncio.gather(
        *(end(data, acting(admin), admin.id) for end, admin in zip(endings, admins, strict=True)),
        return_exceptions=True,
    )
    assert [type(answer) for answer in answers if isinstance(answer, Exception)] == [LastAdminError]
    assert len(await data.accounts.list(SYSTEM, role=UserRole.ADMIN, status=UserStatus.ACTIVE)) == 1


async def test_administrators_cannot_demote_each_other_at_once(data: DataLayer) -> None:
    one, two = [await make_account(data, f"root{n}@example.com", role=UserRole.ADMIN) for n in range(2)]
    answers = await asyncio.gather(
        data.accounts.set_role(acting(one), two.id, UserRole.USER),
        data.accounts.set_role(acting(two), one.id, UserRole.USER),
        return_exceptions=True,
    )
    assert sum(isinstance(answer, PermissionDeniedError | LastAdminError) for answer in answers) == 1


async def test_reactivating(data: DataLayer) -> None:
    user = await make_account(data)
    await data.accounts.deactivate(acting(user), user.id)
    assert (await data.accounts.reactivate(SYSTEM, user.id)).status is UserStatus.ACTIVE
    with pytest.raises(ConflictError):
        await data.accounts.reactivate(SYSTEM, user.id)


async def test_pages_of_accounts(data: DataLayer) -> None:
    users = [await make_account(data, f"user{n}@example.com") for n in range(5)]
    moderator = await make_account(data, "mod@example.com", role=UserRole.MODERATOR)
    first = await data.accounts.list(acting(moderator), limit=4)
    second = await data.accounts.list(acting(moderator), limit=4, after=first[-1].id)
    assert [user.id for user in (*first, *second)] == [*(user.id for user in users), moderator.id]
    assert [user.email for user in await data.accounts.list(SYSTEM, role=UserRole.MODERATOR)] == ["mod@example.com"]
    assert await data.accounts.list(SYSTEM, status=UserStatus.SUSPENDED) == []
    for limit in (0, 1001):
        with pytest.raises(InvalidValueError):
            await data.accounts.list(SYSTEM, limit=limit)
    with pytest.raises(PermissionDeniedError):
        await data.accounts.list(acting(users[0]))


async def test_finding(data: DataLayer) -> None:
    user = await make_account(data)
    for spelling in (str(user.id), str(user.id).upper(), "ANN@example.com"):
        assert (await data.accounts.find(SYSTEM, spelling)).id == user.id
    for unknown in ("nobody@example.com", "nonsense", "019b76da-0000-7000-8000-000000000000"):
        with pytest.raises(NotFoundError):
            await data.accounts.find(SYSTEM, unknown)
    with pytest.raises(PermissionDeniedError):
        await data.accounts.find(acting(user), "ann@example.com")


async def test_nobody_but_an_operator_sets_a_password(data: DataLayer) -> None:
    user = await make_account(data)
    admin = await make_account(data, "admin@example.com", role=UserRole.ADMIN)
    for actor in (acting(user), acting(admin)):
        with pytest.raises(PermissionDeniedError):
            await data.accounts.set_password(actor, user.id, "another horse and battery")
    with pytest.raises(PermissionDeniedError):
        await data.accounts.verify(acting(user), user.id)
