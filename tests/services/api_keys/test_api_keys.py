"""API keys: what they may do, how they end, and who hears of it."""

from __future__ import annotations

import asyncio
import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from data_layer import ApiScope, DataLayer, Settings
from data_layer.entities.enums import UserRole, UserStatus
from data_layer.errors import (
    InvalidApiKeyError,
    InvalidValueError,
    LimitReachedError,
    NotFoundError,
    PermissionDeniedError,
)
from data_layer.schemas.actors import SYSTEM, Actor
from data_layer.schemas.api_keys import NewApiKey
from data_layer.schemas.projects import ProjectDraft
from data_layer.services import api_keys
from data_layer.services.api_keys import ApiKeyService
from data_layer.services.permissions import RULES, Permission, is_allowed
from tests.leaks import LogLines
from tests.services.accounts.support import actions, trail
from tests.services.sessions.support import Process, World, movable_time, start_process
from tests.support import stored_actor

READ = frozenset({ApiScope.READ})
EVERY = frozenset(ApiScope)


def secret_of(new: NewApiKey) -> str:
    return new.secret.get_secret_value()


async def is_in(keys: ApiKeyService, secret: str) -> bool:
    try:
        await keys.authenticate(secret)
    except InvalidApiKeyError:
        return False
    return True


async def test_a_life(data: DataLayer) -> None:
    ann = await stored_actor(data)
    assert ann.user_id
    with LogLines() as log:
        new = await data.api_keys.create(
            ann, name=" build ", scopes=[ApiScope.GENERATE, ApiScope.READ], expires_in=timedelta(days=30)
        )
        secret = secret_of(new)
        assert secret.startswith("dl_")
        assert len(secret) == 46
        assert (new.key.name, new.key.prefix, new.key.scopes) == (
            "build",
            secret[:8],
            (ApiScope.READ, ApiScope.GENERATE),
        )
        assert secret not in repr(new)
        async with data.transaction() as tx:
            [row] = (await tx.execute(text("SELECT to_jsonb(api_keys) FROM api_keys"))).scalars()
        assert row["key_hash"] == hashlib.sha256(secret.encode()).hexdigest()
        assert secret[8:] not in str(row)

        active = await data.api_keys.authenticate(secret)
        assert active.actor == Actor.user(ann.user_id, UserRole.USER, frozenset({ApiScope.READ, ApiScope.GENERATE}))
        await data.api_keys.uses.flush()
        [listed] = await data.api_keys.list(ann, ann.user_id)
        assert listed.last_used_at is not None
        assert abs(listed.last_used_at - datetime.now(UTC)) < timedelta(minutes=1)

        assert await data.api_keys.revoke(ann, new.key.id) is True
        assert await data.api_keys.revoke(ann, new.key.id) is False
        assert not await is_in(data.api_keys, secret), "at once in the process that has revoked it"
        [listed] = await data.api_keys.list(ann, ann.user_id)
        assert listed.revoked_at is not None
        assert await actions(data) == ["user_create_api_key", "user_revoke_api_key"]
    shown = [str(vars(entry)) for entry in await trail(data)]
    assert not any(secret[8:] in each or row["key_hash"] in each for each in [*shown, *log.lines])


async def test_what_cannot_be_a_key(data: DataLayer) -> None:
    ann = await stored_actor(data)
    wrong_values: dict[str, dict[str, Any]] = {
        "name": {"name": "  "},
        "scopes": {"scopes": []},
        "expires_in": {"expires_in": timedelta(days=3651)},
    }
    for field, values in wrong_values.items():
        with pytest.raises(InvalidValueError) as raised:
            await data.api_keys.create(ann, **{"name": "x", "scopes": [ApiScope.READ]} | values)
        assert raised.value.field == field
    with pytest.raises(InvalidValueError, match="owner_id"):
        await data.api_keys.create(SYSTEM, name="x", scopes=[ApiScope.READ])
    good = secret_of(await data.api_keys.create(ann, name="x", scopes=[ApiScope.READ]))
    other = "A" if good[-1] != "A" else "B"
    for wrong in (good[:-1] + other, good[:-1], good + "a", good.upper(), "", "dl_", "\0" * 46, "dl_" + "\ud800" * 43):
        assert not await is_in(data.api_keys, wrong), wrong


async def test_administration_is_for_keys_of_administrators(data: DataLayer) -> None:
    for role in (UserRole.USER, UserRole.MODERATOR):
        actor = await stored_actor(data, role=role)
        with pytest.raises(PermissionDeniedError, match="only an administrator"):
            await data.api_keys.create(actor, name="x", scopes=[ApiScope.ADMIN])
    root = await stored_actor(data, role=UserRole.ADMIN)
    ann = await stored_actor(data)
    assert root.user_id
    assert ann.user_id
    with pytest.raises(PermissionDeniedError):
        await data.api_keys.create(root, name="x", scopes=[ApiScope.READ], owner_id=ann.user_id)
    plain = secret_of(await data.api_keys.create(root, name="x", scopes=[ApiScope.READ, ApiScope.WRITE]))
    whole = secret_of(await data.api_keys.create(root, name="x", scopes=[ApiScope.ADMIN]))
    project = await data.projects.create(ann, ProjectDraft(name="Shop"))
    actor = (await data.api_keys.authenticate(plain)).actor
    with pytest.raises(PermissionDeniedError):
        await data.accounts.list(actor)
    with pytest.raises((PermissionDeniedError, NotFoundError)):
        await data.projects.open(actor, project.id, reason="because")
    actor = (await data.api_keys.authenticate(whole)).actor
    assert len(await data.accounts.list(actor)) == 4
    with pytest.raises(PermissionDeniedError):
        await data.projects.create(actor, ProjectDraft(name="Shop"))
    await data.accounts.set_role(
        SYSTEM, (await stored_actor(data, role=UserRole.ADMIN)).user_id or uuid4(), UserRole.ADMIN
    )
    await data.accounts.set_role(SYSTEM, root.user_id, UserRole.USER)
    with pytest.raises(PermissionDeniedError):
        await data.accounts.list(actor)


NEVER = {
    *(Permission.CREATE_API_KEY, Permission.LIST_API_KEYS, Permission.REVOKE_API_KEY, Permission.CHANGE_PASSWORD),
    *(Permission.SET_PASSWORD, Permission.DELETE_ACCOUNT, Permission.DEACTIVATE_ACCOUNT, Permission.LINK_IDENTITY),
    Permission.EXPORT_ACCOUNT,
    *(Permission.LIST_FACTORS, Permission.CHANGE_FACTORS, Permission.RESET_FACTORS),
    *(Permission.UNLINK_IDENTITY, Permission.UPDATE_PROFILE, Permission.UPDATE_PREFERENCES),
}


def test_what_no_key_may_do() -> None:
    """A new permission is for people alone until somebody says otherwise."""
    owner = uuid4()
    everything = Actor.user(owner, UserRole.ADMIN, EVERY)
    assert {each for each in Permission if not is_allowed(everything, each, owner=owner)} == NEVER
    nothing = Actor.user(owner, UserRole.ADMIN, frozenset())
    assert not any(is_allowed(nothing, each, owner=owner) for each in Permission)
    reading = Actor.user(owner, UserRole.ADMIN, READ)
    assert {each for each in Permission if is_allowed(reading, each, owner=owner)} == {
        each for each, rule in RULES.items() if ApiScope.READ in rule.scopes
    }
    assert not any(is_allowed(reading, each, owner=uuid4()) for each in Permission), "nothing of others without admin"


async def test_a_limit_holds_when_keys_are_made_at_once(data: DataLayer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_keys, "MOST_KEYS", 3)
    ann = await stored_actor(data)

    async def create() -> UUID | None:
        try:
            return (await data.api_keys.create(ann, name="x", scopes=[ApiScope.READ])).key.id
        except LimitReachedError:
            return None

    made = [each for each in await asyncio.gather(*(create() for _ in range(6))) if each]
    assert len(made) == 3
    await data.api_keys.revoke(ann, made[0])
    assert await create(), "one that has ended does not count"


async def test_deleting_the_account_takes_its_keys(data: DataLayer) -> None:
    ann = await stored_actor(data)
    assert ann.user_id
    secret = secret_of(await data.api_keys.create(ann, name="x", scopes=[ApiScope.READ]))
    await data.accounts.delete(ann, ann.user_id)
    async with data.transaction() as tx:
        assert await tx.api_keys.count() == 0
    assert not await is_in(data.api_keys, secret)


async def test_keys_that_ended_long_ago_are_removed(data: DataLayer) -> None:
    ann = await stored_actor(data)
    ids = [(await data.api_keys.create(ann, name="x", scopes=[ApiScope.READ])).key.id for _ in range(4)]
    ages = {ids[0]: ("revoked_at", 91), ids[1]: ("revoked_at", 89), ids[2]: ("expires_at", 91)}
    async with data.transaction() as tx:
        for key_id, (column, days) in ages.items():
            change = text(f"UPDATE api_keys SET {column} = now() - make_interval(days => :days) WHERE id = :id")
            await tx.execute(change.bindparams(days=days, id=key_id))
    assert (await data.maintenance.run(SYSTEM, dry_run=True)).api_keys_removed == 2
    assert (await data.maintenance.run(SYSTEM)).api_keys_removed == 2
    assert {key.id for key in await data.api_keys.list(ann, ann.user_id or uuid4())} == {ids[1], ids[3]}


def keys_of(world: World, process: Process) -> ApiKeyService:
    """The service as this process has it; tests say when it reads the journal."""
    process.sessions.follow_changes = lambda: None  # type: ignore[method-assign]
    return ApiKeyService(process.transactions, process.sessions, process.copies, clock=world.clock)


@pytest.mark.parametrize("way", ["revoked", "by hand", "suspended", "shortened", "fewer scopes"])
async def test_every_process_hears_of_it_within_two_seconds(settings: Settings, way: str) -> None:
    async with movable_time(settings) as world:
        process = await start_process(world)
        keys, user_id = keys_of(world, process), await world.new_user()
        new = await world.data.api_keys.create(Actor.user(user_id), name="x", scopes=[ApiScope.READ, ApiScope.WRITE])
        secret, key_id = secret_of(new), new.key.id
        for _ in range(2):  # A process that has just started believes copies from its second reading on.
            await process.catch_up()
        found = await keys.authenticate(secret)
        assert (await keys.authenticate(secret)) is found, "answered from the copy"
        match way:
            case "revoked":
                await world.data.api_keys.revoke(SYSTEM, key_id)
            case "by hand":
                await world.sql("DELETE FROM api_keys WHERE id = :id", id=key_id)
            case "suspended":
                await world.set_status(user_id, UserStatus.SUSPENDED)
            case "shortened":
                await world.sql("UPDATE api_keys SET expires_at = now() WHERE id = :id", id=key_id)
            case _:
                await world.sql("UPDATE api_keys SET scopes = '[\"read\"]' WHERE id = :id", id=key_id)
        assert (await keys.authenticate(secret)) is found, "nothing has been heard yet"
        await process.catch_up()
        if way == "fewer scopes":
            assert (await keys.authenticate(secret)).scopes == READ
        else:
            assert not await is_in(keys, secret)
        await keys.close()
        await process.stop()


async def test_without_the_journal_the_database_is_asked(settings: Settings) -> None:
    async with movable_time(settings) as world:
        process = await start_process(world)
        keys, user_id = keys_of(world, process), await world.new_user()
        new = await world.data.api_keys.create(
            Actor.user(user_id), name="x", scopes=[ApiScope.READ], expires_in=timedelta(seconds=60)
        )
        for _ in range(2):
            await process.catch_up()
        found = await keys.authenticate(secret_of(new))
        await process.cut_off()
        assert (await keys.authenticate(secret_of(new))) is found
        await world.pass_time(1.6)
        assert (await keys.authenticate(secret_of(new))) is not found
        process.is_cut_off = False
        await process.catch_up()
        await process.catch_up()
        found = await keys.authenticate(secret_of(new))
        await world.pass_time(60)
        await process.catch_up()
        assert not await is_in(keys, secret_of(new)), "a copy does not outlive its key"
        await keys.close()
        await process.stop()
