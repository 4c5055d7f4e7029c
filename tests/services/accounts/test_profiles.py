"""What people change of their own accounts, and how they end them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_layer import DataLayer, GeneratedImage
from data_layer.entities.enums import ImageProvider, UserRole, UserStatus
from data_layer.errors import (
    ChangedMeanwhileError,
    FileNotFoundInStorageError,
    InvalidValueError,
    NotFoundError,
    PermissionDeniedError,
    ValueTooLongError,
)
from data_layer.schemas.actors import ANONYMOUS, SYSTEM
from data_layer.schemas.users import ProfileChanges
from data_layer.services.accounts.profiles import merge_patch
from tests.services.accounts.support import PASSWORD, acting, make_account, trail, try_to_log_in
from tests.services.accounts.test_password_changes import begin_session, open_sessions
from tests.support import make_code, make_project

values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)


async def test_a_profile(data: DataLayer) -> None:
    user = await make_account(data)
    changes = ProfileChanges(first_name=" Anna ", display_name="Änne", avatar="https://example.com/a.png")
    changed = await data.accounts.update_profile(acting(user), user.id, changes)
    assert (changed.first_name, changed.last_name, changed.display_name) == ("Anna", "Other", "Änne")
    cleared = await data.accounts.update_profile(acting(user), user.id, ProfileChanges(display_name=None))
    assert (cleared.display_name, cleared.avatar) == (None, "https://example.com/a.png")
    first, second = [entry for entry in await trail(data) if entry.action == "user_update_profile"]
    assert (first.old_values["first_name"], first.new_values["first_name"]) == ("Ann", "Anna")
    assert second.old_values == {"display_name": "Änne"}
    assert second.new_values == {"display_name": None}
    assert (await data.accounts.get(acting(user), user.id)) == cleared
    await data.accounts.update_profile(acting(user), user.id, ProfileChanges(first_name="Anna"))
    assert (await data.accounts.get(acting(user), user.id)).updated_at == cleared.updated_at, "nothing differs"


async def test_who_has_seen_an_older_profile_does_not_overwrite(data: DataLayer) -> None:
    user = await make_account(data)
    tries = [
        data.accounts.update_profile(acting(user), user.id, ProfileChanges(first_name=name), expected=user.updated_at)
        for name in ("Anna", "Anne", "Anka")
    ]
    answers = await asyncio.gather(*tries, return_exceptions=True)
    assert [isinstance(answer, ChangedMeanwhileError) for answer in answers].count(True) == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"first_name": ""},
        {"last_name": "x" * 101},
        {"avatar": "javascript:alert(1)"},
        {"avatar": "data:text/html,x"},
        {"avatar": "http://example.com/a.png"},
        {"email": "new@example.com"},
        {"role": "admin"},
    ],
)
def test_what_no_profile_can_be(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidValueError):
        ProfileChanges(**changes)


async def test_a_name_is_never_empty(data: DataLayer) -> None:
    user = await make_account(data)
    with pytest.raises(InvalidValueError) as caught:
        await data.accounts.update_profile(acting(user), user.id, ProfileChanges(first_name=None))
    assert caught.value.field == "first_name"


async def test_preferences_are_merged_also_at_once(data: DataLayer) -> None:
    user = await make_account(data)
    await data.accounts.update_preferences(
        acting(user), user.id, {"theme": "dark", "editor": {"tabs": 2, "wrap": True}}
    )
    patches: list[dict[str, Any]] = [{"editor": {"tabs": None}}, {"theme": "light"}, *({f"k{n}": n} for n in range(10))]
    await asyncio.gather(*(data.accounts.update_preferences(acting(user), user.id, patch) for patch in patches))
    stored = (await data.accounts.get(acting(user), user.id)).preferences
    assert stored == {"theme": "light", "editor": {"wrap": True}, **{f"k{n}": n for n in range(10)}}


@pytest.mark.parametrize(
    ("patch", "error"),
    [
        ({"a": "x" * 17_000}, ValueTooLongError),
        ({"a": float("nan")}, InvalidValueError),
        ({"a": {1, 2}}, InvalidValueError),
        ({"a": "nul\0"}, InvalidValueError),
        ({"a": "\ud800"}, InvalidValueError),
        ({1: "a"}, InvalidValueError),
    ],
)
async def test_preferences_that_cannot_be(data: DataLayer, patch: dict[str, Any], error: type[Exception]) -> None:
    user = await make_account(data)
    with pytest.raises(error):
        await data.accounts.update_preferences(acting(user), user.id, patch)
    assert (await data.accounts.get(acting(user), user.id)).preferences == {}


@settings(max_examples=200)
@given(values, values)
def test_merging_follows_rfc_7396(target: Any, patch: Any) -> None:
    merged = merge_patch(target, patch)
    if not isinstance(patch, dict):
        assert merged == patch
        return
    before = target if isinstance(target, dict) else {}
    for name in {*before, *patch}:
        if name not in patch:
            assert merged[name] == before[name]
        elif patch[name] is None:
            assert name not in merged
        else:
            assert merged[name] == merge_patch(before.get(name), patch[name])
    assert merge_patch(merged, patch) == merged


async def test_what_others_see(data: DataLayer) -> None:
    user = await make_account(data, display_name="Ann")
    stranger = await make_account(data, "bob@example.com")
    moderator = await make_account(data, "mod@example.com", role=UserRole.MODERATOR)
    assert (await data.accounts.get_public(user.id)).model_dump() == {
        "id": user.id,
        "display_name": "Ann",
        "avatar": None,
    }
    assert (await data.accounts.get(acting(moderator), user.id)).email == "ann@example.com"
    for actor in (acting(stranger), ANONYMOUS):
        for user_id in (user.id, make_project().id):
            with pytest.raises(PermissionDeniedError):
                await data.accounts.get(actor, user_id)


async def test_a_deactivated_account(data: DataLayer) -> None:
    user = await make_account(data)
    await begin_session(data, user.id, "session")
    closed = await data.accounts.deactivate(acting(user), user.id)
    assert closed.status is UserStatus.INACTIVE
    assert await open_sessions(data, user.id) == set()
    with pytest.raises(PermissionDeniedError):
        await data.accounts.update_profile(acting(user), user.id, ProfileChanges(first_name="Old session"))


async def test_deleting_erases_everything_but_the_id_and_the_trail(data: DataLayer) -> None:
    user = await make_account(data, display_name="Ann")
    await try_to_log_in(data, "ann@example.com", PASSWORD)
    await data.accounts.update_preferences(acting(user), user.id, {"theme": "dark"})
    await begin_session(data, user.id, "session")
    key = "images/a.png"
    await data.storage.upload(b"\x89PNG\r\n\x1a\n" + bytes(20), key, "image/png")
    project = make_project()
    project.user_id = user.id
    async with data.transaction() as tx:
        tx.add(project)
        tx.add(make_code(project))
        image: dict[str, Any] = {"prompt": "p", "model": "m", "size": "1024x1024", "storage_key": key}
        tx.add(GeneratedImage(project_id=project.id, provider=ImageProvider.DALLE3, **image))
    before = len(await trail(data))
    await data.accounts.delete(acting(user), user.id, password=PASSWORD)
    async with data.transaction() as tx:
        row = await tx.users.get(user.id)
        assert row.is_erased
        assert (row.display_name, row.last_login_ip, row.preferences) == (None, None, {})
        assert await tx.users.secret(user.id, "password_hash") is None
        counts = [await table.count() for table in (tx.projects, tx.codes, tx.images, tx.sessions)]
        assert counts == [0, 0, 0, 0]
    with pytest.raises(FileNotFoundInStorageError):
        await data.storage.download(key)
    entries = await trail(data)
    assert len(entries) == before + 1
    assert (entries[-1].action, entries[-1].user_id) == ("user_delete_account", user.id)
    assert await try_to_log_in(data, "ann@example.com", PASSWORD) == "invalid_credentials"
    assert await data.accounts.list(SYSTEM) == []
    with pytest.raises(PermissionDeniedError):
        await data.accounts.delete(acting(user), user.id, password=PASSWORD)
    for again in (data.accounts.delete, data.accounts.reactivate, data.accounts.unlock):
        with pytest.raises(NotFoundError):
            await again(SYSTEM, user.id)
    assert (await make_account(data)).id != user.id, "the address is free"


async def test_an_administrator_deletes_others_and_strangers_do_not(data: DataLayer) -> None:
    user, stranger = await make_account(data), await make_account(data, "bob@example.com")
    moderator = await make_account(data, "mod@example.com", role=UserRole.MODERATOR)
    admin = await make_account(data, "root@example.com", role=UserRole.ADMIN)
    for actor in (acting(stranger), acting(moderator), ANONYMOUS):
        with pytest.raises(PermissionDeniedError):
            await data.accounts.delete(actor, user.id)
    await data.accounts.delete(acting(admin), user.id)
    entry = (await trail(data))[-1]
    assert (entry.action, entry.user_id, entry.resource_id) == ("admin_user_delete", admin.id, str(user.id))
