"""Each method that asks who acts goes by the role and status of now, not by those in the ``Actor``."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from uuid_utils.compat import uuid7

from data_layer import DataLayer
from data_layer.entities.enums import ApiScope, AuthProvider, UserRole
from data_layer.errors import NotFoundError, PermissionDeniedError
from data_layer.schemas.actors import SYSTEM, Actor
from data_layer.schemas.audit import AuditFilter, AuditView
from data_layer.schemas.designs import DesignSystemChanges
from data_layer.schemas.operations import LogLevel
from data_layer.schemas.users import ExternalIdentity, ProfileChanges, UserFull
from data_layer.services.audit import service as audit_service
from tests.services.accounts.support import PASSWORD, make_account

Call = Callable[[DataLayer, Actor, UserFull, Any], Awaitable[object]]
MINUTE = timedelta(minutes=1)
IDENTITY = ExternalIdentity(provider=AuthProvider.GITHUB, subject="x")


async def export(data: DataLayer, actor: Actor, *_: object) -> None:
    async for _piece in data.audit.export(actor, AuditFilter()):
        pass


async def export_person(data: DataLayer, actor: Actor, user: UserFull, _: object) -> None:
    async for _piece in data.personal_data.export(actor, user.id):
        pass


async def open_export(data: DataLayer, actor: Actor, _: UserFull, things: Any) -> None:
    async with data.exports.open(actor, things["export"]):
        pass


CALLS: dict[str, Call] = {
    "accounts.change_password": lambda d, a, u, _: d.accounts.change_password(a, u.id, current=PASSWORD, new="x" * 20),
    "accounts.create": lambda d, a, _u, _: d.accounts.create(a, email="n@x.org", first_name="A", last_name="B"),
    "accounts.deactivate": lambda d, a, u, _: d.accounts.deactivate(a, u.id),
    "accounts.delete": lambda d, a, u, _: d.accounts.delete(a, u.id, password=PASSWORD),
    "accounts.find": lambda d, a, u, _: d.accounts.find(a, u.email),
    "accounts.get": lambda d, a, u, _: d.accounts.get(a, u.id),
    "accounts.link": lambda d, a, u, _: d.accounts.link(a, u.id, IDENTITY),
    "accounts.list_identities": lambda d, a, u, _: d.accounts.list_identities(a, u.id),
    "accounts.confirm_link": lambda d, a, u, _: d.accounts.confirm_link(a, u.id, password=PASSWORD),
    "accounts.list": lambda d, a, _u, _: d.accounts.list(a),
    "accounts.mail_password_reset": lambda d, a, u, _: d.accounts.mail_password_reset(a, u.id),
    "accounts.reactivate": lambda d, a, u, _: d.accounts.reactivate(a, u.id),
    "accounts.set_role": lambda d, a, u, _: d.accounts.set_role(a, u.id, UserRole.ADMIN),
    "accounts.set_password": lambda d, a, u, _: d.accounts.set_password(a, u.id, "another horse and battery"),
    "accounts.suspend": lambda d, a, u, _: d.accounts.suspend(a, u.id, reason="x"),
    "accounts.unlink": lambda d, a, u, _: d.accounts.unlink(a, u.id, AuthProvider.GITHUB),
    "accounts.unlock": lambda d, a, u, _: d.accounts.unlock(a, u.id),
    "accounts.unsuspend": lambda d, a, u, _: d.accounts.unsuspend(a, u.id),
    "accounts.update_preferences": lambda d, a, u, _: d.accounts.update_preferences(a, u.id, {"x": 1}),
    "accounts.update_profile": lambda d, a, u, _: d.accounts.update_profile(a, u.id, ProfileChanges(first_name="X")),
    "accounts.list_factors": lambda d, a, u, _: d.accounts.list_factors(a, u.id),
    "accounts.begin_totp": lambda d, a, u, _: d.accounts.begin_totp(a, u.id, password=PASSWORD),
    "accounts.confirm_totp": lambda d, a, _u, things: d.accounts.confirm_totp(a, things["factor"], "000000"),
    "accounts.begin_passkey": lambda d, a, u, _: d.accounts.begin_passkey(a, u.id, password=PASSWORD),
    "accounts.add_passkey": lambda d, a, u, _: d.accounts.add_passkey(a, u.id, challenge="x", answer={}),
    "accounts.begin_confirmation": lambda d, a, u, _: d.accounts.begin_confirmation(a, u.id),
    "accounts.remove_factor": lambda d, a, _u, things: d.accounts.remove_factor(a, things["factor"], password=PASSWORD),
    "accounts.renew_recovery_codes": lambda d, a, u, _: d.accounts.renew_recovery_codes(a, u.id, password=PASSWORD),
    "accounts.reset_factors": lambda d, a, u, _: d.accounts.reset_factors(a, u.id),
    "api_keys.create": lambda d, a, u, _: d.api_keys.create(a, name="x", scopes=[ApiScope.READ], owner_id=u.id),
    "api_keys.list": lambda d, a, u, _: d.api_keys.list(a, u.id),
    "api_keys.revoke": lambda d, a, _u, things: d.api_keys.revoke(a, things["key"]),
    "audit.export": export,
    "audit.list": lambda d, a, u, _: d.audit.list(a, AuditFilter(user_id=u.id)),
    "designs.create": lambda d, a, u, _: d.designs.create(a, name="x", content="x", owner_id=u.id),
    "designs.delete": lambda d, a, _u, things: d.designs.delete(a, things["design"]),
    "designs.get": lambda d, a, _u, things: d.designs.get(a, things["design"]),
    "designs.list": lambda d, a, u, _: d.designs.list(a, owner_id=u.id),
    "designs.update": lambda d, a, _u, things: d.designs.update(a, things["design"], DesignSystemChanges(name="y")),
    "exports.delete": lambda d, a, _u, things: d.exports.delete(a, things["export"]),
    "exports.get": lambda d, a, _u, things: d.exports.get(a, things["export"]),
    "exports.list": lambda d, a, u, _: d.exports.list(a, u.id),
    "exports.open": open_export,
    "exports.signed_url": lambda d, a, _u, things: d.exports.signed_url(a, things["export"], expires_in=MINUTE),
    "exports.start": lambda d, a, u, _: d.exports.start(a, u.id),
    "file_maintenance.check": lambda d, a, _u, _: d.file_maintenance.check(a, repair=True),
    "file_maintenance.cleanup": lambda d, a, _u, _: d.file_maintenance.cleanup(a, apply=True),
    "file_maintenance.usage": lambda d, a, _u, _: d.file_maintenance.usage(a),
    "maintenance.run": lambda d, a, _u, _: d.maintenance.run(a),
    "personal_data.export": export_person,
    "sessions.list": lambda d, a, u, _: d.sessions.list(a, u.id),
    "sessions.list_all": lambda d, a, _u, _: d.sessions.list_all(a),
    "sessions.revoke": lambda d, a, _u, things: d.sessions.revoke(a, things["session"]),
    "sessions.revoke_all": lambda d, a, u, _: d.sessions.revoke_all(a, u.id),
    "sessions.revoke_everything": lambda d, a, _u, _: d.sessions.revoke_everything(a, reason="x"),
    "usage.budget": lambda d, a, u, _: d.usage.budget(a, user_id=u.id),
    "usage.entries": lambda d, a, u, _: d.usage.entries(a, user_id=u.id),
    "usage.set_budget": lambda d, a, u, _: d.usage.set_budget(a, u.id, Decimal(1)),
    "accounts.verify": lambda d, a, u, _: d.accounts.verify(a, u.id),
    "figure_history.recent": lambda d, a, _u, _: d.figure_history.recent(a),
    "operations.change_log_level": lambda d, a, _u, _: d.operations.change_log_level(
        a, LogLevel.WARN, timedelta(minutes=1)
    ),
    "operations.examine": lambda d, a, _u, _: d.operations.examine(a),
    "operations.reset_log_levels": lambda d, a, _u, _: d.operations.reset_log_levels(a),
    "operations.state": lambda d, a, _u, _: d.operations.state(a),
    "mails.list": lambda d, a, u, _: d.mails.list(a, user_id=u.id),
    "mails.get": lambda d, a, u, _: d.mails.get(a, u.id),
    "mails.retry": lambda d, a, u, _: d.mails.retry(a, u.id),
    "mails.link": lambda d, a, u, _: d.mails.link(a, u.id),
    "usage.sums": lambda d, a, u, _: d.usage.sums(a, user_id=u.id),
}

# No role allows others these; the tests of usage try them.
OWNERS_ALONE = {f"usage.{name}" for name in ("record", "reserve", "extend", "set_aside", "settle", "release")}
OWNERS_ALONE |= {"openid.begin_link"}  # It always concerns the account that asks.


# Their own tests try every method in every role.
TRIED_WITH_THEIR_SERVICE = {"generations", "images", "pages", "previews", "projects", "shares"}


def methods(data: DataLayer) -> set[str]:
    """The public methods of all services that are asked by somebody."""
    found = set()
    for name in dir(type(data)):
        service = None if name.startswith("_") else getattr(data, name)
        if not any(kind.__module__.startswith("data_layer.services") for kind in type(service).__mro__):
            continue
        for method, function in inspect.getmembers(type(service), inspect.isfunction):
            if not method.startswith("_") and "actor" in inspect.signature(function).parameters:
                found.add(f"{name}.{method}")
    return found


def test_every_method_is_tried(data: DataLayer) -> None:
    here = {name for name in methods(data) if name.partition(".")[0] not in TRIED_WITH_THEIR_SERVICE}
    assert here - OWNERS_ALONE == CALLS.keys()


async def everything(data: DataLayer) -> dict[str, list[Any]]:
    """What is stored, but for what time changes."""
    queries = {
        "users": "SELECT id, email, role, status, first_name, preferences, github_id, password_hash FROM users",
        "sessions": "SELECT id, status FROM sessions",
        "api_keys": "SELECT id, revoked_at FROM api_keys",
        "designs": "SELECT id, name FROM design_systems",
        "exports": "SELECT id, status FROM exports",
        "audit_logs": "SELECT id FROM audit_logs",
    }
    async with data.transaction() as tx:
        return {
            name: sorted(map(str, (await tx.execute(text(f"{query} ORDER BY id"))).all()))
            for name, query in queries.items()
        }


@pytest.fixture
async def victim(data: DataLayer) -> UserFull:
    return await make_account(data, "victim@example.com")


ALLOWED_TO_MODERATORS = {
    "accounts.find",
    "accounts.get",
    "accounts.list",
    "accounts.list_factors",
    "accounts.mail_password_reset",
    "accounts.suspend",
    "accounts.unlock",
    "accounts.unsuspend",
    "api_keys.list",
    "api_keys.revoke",
    "audit.list",
    "sessions.list",
    "sessions.list_all",
    "sessions.revoke",
    "sessions.revoke_all",
}


class Things:
    """What the calls are about, and somebody who was an administrator."""

    def __init__(self, data: DataLayer, victim: UserFull) -> None:
        self.data = data
        self.victim = victim
        self.ids: dict[str, UUID] = {}

    async def make(self) -> UUID:
        """Make them; the id of the administrator."""
        actor = await make_account(self.data, "actor@example.com", role=UserRole.ADMIN)
        await make_account(self.data, "other@example.com", role=UserRole.ADMIN)
        session = (await self.data.accounts.log_in("victim@example.com", PASSWORD)).session
        victim = Actor.user(self.victim.id)
        factor = await self.data.accounts.begin_totp(victim, self.victim.id, password=PASSWORD)
        key = await self.data.api_keys.create(Actor.user(self.victim.id), name="x", scopes=[ApiScope.READ])
        design = await self.data.designs.create(Actor.user(self.victim.id), name="x", content="y")
        export = await self.data.exports.start(victim, self.victim.id)
        await self.data.exports.make_due()
        self.ids = {"session": session.id, "key": key.key.id, "factor": factor.id, "design": design.id}
        self.ids["export"] = export.id
        return actor.id

    async def call(self, name: str, actor: Actor) -> None:
        await CALLS[name](self.data, actor, self.victim, self.ids)

    async def must_be_refused(self, name: str, actor: Actor) -> None:
        """The call is refused, and changes nothing."""
        await self.data.audit.flush()
        before = await everything(self.data)
        try:
            await self.call(name, actor)
        except (PermissionDeniedError, NotFoundError):
            await self.data.audit.flush()
            assert await everything(self.data) == before, name
        else:
            pytest.fail(f"{name} was allowed")


@pytest.fixture
def things(data: DataLayer, victim: UserFull) -> Things:
    return Things(data, victim)


@pytest.mark.parametrize("taken", ["role", "to moderator", "suspended", "deleted", "never was"])
async def test_what_an_old_actor_may_no_more(data: DataLayer, victim: UserFull, things: Things, taken: str) -> None:
    """All calls meet the same things, because none of them changes anything."""
    actor_id = await things.make()
    old = Actor.user(actor_id, UserRole.ADMIN)
    match taken:
        case "role":
            await data.accounts.set_role(SYSTEM, actor_id, UserRole.USER)
        case "to moderator":
            await data.accounts.set_role(SYSTEM, actor_id, UserRole.MODERATOR)
        case "suspended":
            await data.accounts.suspend(SYSTEM, actor_id, reason="tests")
        case "deleted":
            await data.accounts.delete(SYSTEM, actor_id)
        case _:
            old = Actor.user(uuid7(), UserRole.ADMIN)
    refused = CALLS.keys() - (ALLOWED_TO_MODERATORS if taken == "to moderator" else set())
    for name in sorted(refused - {"accounts.unsuspend"}):
        await things.must_be_refused(name, old)
    if "accounts.unsuspend" in refused:
        await data.accounts.suspend(SYSTEM, victim.id, reason="tests")
        await things.must_be_refused("accounts.unsuspend", old)


@pytest.mark.parametrize("name", sorted(ALLOWED_TO_MODERATORS))
async def test_what_a_former_administrator_may_as_moderator(
    data: DataLayer, victim: UserFull, things: Things, name: str
) -> None:
    actor_id = await things.make()
    if name == "accounts.unsuspend":
        await data.accounts.suspend(SYSTEM, victim.id, reason="tests")
    await data.accounts.set_role(SYSTEM, actor_id, UserRole.MODERATOR)
    await things.call(name, Actor.user(actor_id, UserRole.ADMIN))


async def test_details_of_the_trail_need_the_role_of_now(data: DataLayer) -> None:
    actor = await make_account(data, role=UserRole.ADMIN)
    await make_account(data, "other@example.com", role=UserRole.ADMIN)
    old = Actor.user(actor.id, UserRole.ADMIN)
    await data.audit.list(old, view=AuditView.FULL)
    await data.accounts.set_role(SYSTEM, actor.id, UserRole.MODERATOR)
    for view in (AuditView.COMPLIANCE, AuditView.FULL):
        with pytest.raises(PermissionDeniedError):
            await data.audit.list(old, view=view)


async def test_an_export_ends_when_the_role_is_taken_away(data: DataLayer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_service, "_BATCH", 1)
    actor = await make_account(data, role=UserRole.ADMIN)
    await make_account(data, "other@example.com", role=UserRole.ADMIN)
    await make_account(data, "bob@example.com")
    pieces = data.audit.export(Actor.user(actor.id, UserRole.ADMIN))
    assert await anext(pieces)
    await data.accounts.set_role(SYSTEM, actor.id, UserRole.USER)
    with pytest.raises(PermissionDeniedError):
        await anext(pieces)
