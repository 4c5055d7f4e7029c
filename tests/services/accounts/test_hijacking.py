"""An account that somebody made for another person's address, and an actor whose role is no longer what it was."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from data_layer import DataLayer
from data_layer.entities.enums import AuthProvider, UserRole
from data_layer.errors import InvalidSessionError, NotFoundError, PermissionDeniedError
from data_layer.schemas.actors import SYSTEM, Actor
from data_layer.schemas.audit import AuditFilter
from data_layer.schemas.users import ExternalIdentity

from .support import PASSWORD, acting, make_account, stored_hash, try_to_log_in

VICTIM = "victim@example.com"
ATTACKERS = "the attacker knows this one"
OWN = "only the victim knows this one"


async def register(data: DataLayer) -> str:
    names = {"first_name": "Eve", "last_name": "Other"}
    registered = await data.accounts.register(email=VICTIM, password=ATTACKERS, **names)
    return registered.verification.token


async def test_who_registers_and_verifies_keeps_the_password(data: DataLayer) -> None:
    await data.accounts.verify_email(await register(data))
    assert await try_to_log_in(data, VICTIM, ATTACKERS) == "in"


async def test_an_address_that_is_verified_later_has_no_password_of_a_stranger(data: DataLayer) -> None:
    first = await register(data)
    # The owner of the address asks; five minutes after the mail to the one who registered.
    async with data.transaction() as tx:
        user = await tx.users.find_one(email=VICTIM)
        assert user is not None
        user.email_verification_expires_at = None
    mailed = await data.accounts.request_email_verification(VICTIM)
    assert mailed is not None
    assert mailed.token != first
    await data.accounts.verify_email(mailed.token)
    assert await try_to_log_in(data, VICTIM, ATTACKERS) == "invalid_credentials"
    reset = await data.accounts.request_password_reset(VICTIM)
    assert reset is not None
    await data.accounts.reset_password(reset.token, OWN)
    assert await try_to_log_in(data, VICTIM, OWN) == "in"


@pytest.mark.parametrize("way", ["verify", "reset", "identity"])
async def test_nothing_opens_it_that_did_before(data: DataLayer, way: str) -> None:
    user = await make_account(data, VICTIM, email_verified=False)
    session = await data.accounts.log_in(VICTIM, PASSWORD)
    pair = await data.accounts.log_in_for_tokens(VICTIM, PASSWORD)
    foreign = ExternalIdentity(provider=AuthProvider.GITHUB, subject="attacker")
    await data.accounts.link(acting(user), user.id, foreign)
    if way == "verify":
        mailed = await data.accounts.request_email_verification(VICTIM)
        assert mailed is not None
        await data.accounts.verify_email(mailed.token)
        assert await stored_hash(data, user) is None
    elif way == "reset":
        mailed = await data.accounts.request_password_reset(VICTIM)
        assert mailed is not None
        await data.accounts.reset_password(mailed.token, OWN)
    else:
        own = ExternalIdentity(provider=AuthProvider.GOOGLE, subject="own", email=VICTIM, email_verified=True)
        entered = await data.accounts.authenticate_external(own)
        assert (entered.user.id, entered.is_new) == (user.id, False)
    assert await try_to_log_in(data, VICTIM, PASSWORD) == "invalid_credentials"
    with pytest.raises(InvalidSessionError):
        await data.sessions.validate(session.token.get_secret_value())
    with pytest.raises(InvalidSessionError):
        await data.sessions.validate_id(pair.session_id)
    found = await data.accounts.find(SYSTEM, VICTIM)
    assert found.github_id is None
    assert (found.google_id == "own") == (way == "identity")


async def test_a_role_that_was_taken_away_is_believed_nowhere(data: DataLayer) -> None:
    user = await make_account(data, role=UserRole.ADMIN)
    other = await make_account(data, "bob@example.com", role=UserRole.ADMIN)
    victim = await make_account(data, "eve@example.com")
    session = (await data.accounts.log_in("eve@example.com", PASSWORD)).session
    old = Actor.user(user.id, UserRole.ADMIN)
    await data.accounts.set_role(acting(other), user.id, UserRole.USER)
    attempts: dict[str, Callable[[], Awaitable[object]]] = {
        "list": lambda: data.sessions.list(old, victim.id),
        "list_all": lambda: data.sessions.list_all(old),
        "revoke_all": lambda: data.sessions.revoke_all(old, victim.id),
        "revoke_everything": lambda: data.sessions.revoke_everything(old, reason="x"),
        "audit": lambda: data.audit.list(old, AuditFilter(user_id=victim.id)),
    }
    for name, attempt in attempts.items():
        with pytest.raises(PermissionDeniedError):
            await attempt()
            pytest.fail(name)
    with pytest.raises(NotFoundError):
        await data.sessions.revoke(old, session.id)
    with pytest.raises(PermissionDeniedError):
        async for _ in data.audit.export(old, AuditFilter()):
            pytest.fail("exported")
    assert (await data.sessions.list(SYSTEM, victim.id))[0].id == session.id
