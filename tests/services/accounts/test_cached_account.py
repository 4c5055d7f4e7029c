"""What the cache has of an account is what the database has, after every way of changing it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from sqlalchemy import text

from data_layer import DataLayer, Settings
from data_layer.entities import User
from data_layer.entities.enums import UserRole, UserStatus
from data_layer.errors import PermissionDeniedError
from data_layer.schemas.actors import SYSTEM
from data_layer.schemas.users import ProfileChanges, UserFull
from tests.services.accounts.support import PASSWORD, acting, make_account

Change = Callable[[DataLayer, UserFull], Awaitable[object]]


async def change_profile(data: DataLayer, user: UserFull) -> None:
    await data.accounts.update_profile(acting(user), user.id, ProfileChanges(first_name="Bea"))


async def change_preferences(data: DataLayer, user: UserFull) -> None:
    await data.accounts.update_preferences(acting(user), user.id, {"theme": "dark"})


async def change_password(data: DataLayer, user: UserFull) -> None:
    await data.accounts.change_password(acting(user), user.id, current=PASSWORD, new="another horse and battery")


async def log_in(data: DataLayer, user: UserFull) -> None:
    await data.accounts.log_in(user.email, PASSWORD)


async def set_role(data: DataLayer, user: UserFull) -> None:
    await data.accounts.set_role(SYSTEM, user.id, UserRole.MODERATOR)


async def assign(data: DataLayer, user: UserFull) -> None:
    """As applications do that use the library's transactions."""
    async with data.transaction() as tx:
        (await tx.users.get(user.id)).display_name = "Somebody"


async def assign_and_flush(data: DataLayer, user: UserFull) -> None:
    async with data.transaction() as tx:
        (await tx.users.get(user.id)).display_name = "Somebody"
        await tx.flush()


async def add_changed(data: DataLayer, user: UserFull) -> None:
    async with data.transaction() as tx:
        row = await tx.users.get(user.id)
    row.display_name = "Somebody"
    async with data.transaction() as tx:
        tx.add(row)


@pytest.mark.parametrize(
    "change",
    [
        change_profile,
        change_preferences,
        change_password,
        log_in,
        set_role,
        assign,
        assign_and_flush,
        add_changed,
    ],
)
async def test_a_change_is_seen_at_once(data: DataLayer, settings: Settings, change: Change) -> None:
    user = await make_account(data)
    async with DataLayer(settings) as other_process:
        for each in (data, other_process):
            await each.accounts.get(acting(user), user.id)
            await each.accounts.get(acting(user), user.id)
        await change(other_process, user)
        async with data.transaction() as tx:
            stored = UserFull.model_validate(await tx.users.get(user.id))
        assert stored != user
        assert await other_process.accounts.get(acting(user), user.id) == stored


async def test_an_account_that_ends_is_refused_at_once(data: DataLayer) -> None:
    user = await make_account(data)
    await data.accounts.get(acting(user), user.id)
    await data.accounts.suspend(SYSTEM, user.id, reason="tests")
    with pytest.raises(PermissionDeniedError):
        await data.accounts.get(acting(user), user.id)
    await data.accounts.unsuspend(SYSTEM, user.id)
    assert (await data.accounts.get(acting(user), user.id)).status is UserStatus.ACTIVE
    await data.accounts.delete(SYSTEM, user.id)
    with pytest.raises(PermissionDeniedError):
        await data.accounts.get(acting(user), user.id)


async def test_a_change_that_is_rolled_back_leaves_what_was(data: DataLayer) -> None:
    user = await make_account(data)
    await data.accounts.get(acting(user), user.id)
    with pytest.raises(ZeroDivisionError):
        async with data.transaction() as tx:
            row: User = await tx.users.get(user.id)
            row.display_name = "Somebody"
            await tx.flush()
            raise ZeroDivisionError
    assert (await data.accounts.get(acting(user), user.id)).display_name is None


async def test_its_owner_gets_it_without_the_database(data: DataLayer) -> None:
    user = await make_account(data)
    first = await data.accounts.get(acting(user), user.id)
    async with data.transaction() as tx:  # SQL that nobody announces shows where an answer comes from.
        await tx.execute(text("UPDATE users SET display_name = 'Somebody'"))
    assert await data.accounts.get(acting(user), user.id) == first
    assert (await data.accounts.get(SYSTEM, user.id)).display_name == "Somebody"
