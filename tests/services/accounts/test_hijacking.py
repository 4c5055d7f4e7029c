"""An account that somebody made for another person's address, and an actor whose role is no longer what it was."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from data_layer import DataLayer
from data_layer.entities.enums import ApiScope, AuthProvider, UserRole, UserStatus
from data_layer.errors import (
    InvalidApiKeyError,
    InvalidOneTimeTokenError,
    InvalidSessionError,
    NotFoundError,
    PermissionDeniedError,
)
from data_layer.schemas.actors import SYSTEM, Actor
from data_layer.schemas.audit import AuditFilter
from data_layer.schemas.users import ExternalIdentity
from data_layer.services.accounts import Registered

from .support import PASSWORD, acting, make_account, pass_time, stored_hash, try_to_log_in

VICTIM = "victim@example.com"
ATTACKERS = "the attacker knows this one"
OWN = "only the victim knows this one"


NAMES: dict[str, Any] = {"first_name": "Eve", "last_name": "Other"}


async def register(data: DataLayer, password: str = ATTACKERS, email: str = VICTIM) -> Registered:
    return await data.accounts.register(email=email, password=password, **NAMES)


async def test_the_device_that_registers_and_verifies_keeps_the_password(data: DataLayer) -> None:
    registered = await register(data)
    verified = await data.accounts.verify_email(registered.verification.token, proof=registered.proof)
    assert verified.password_choice is None
    assert await try_to_log_in(data, VICTIM, ATTACKERS) == "in"


async def test_it_keeps_it_with_another_mail_too(data: DataLayer) -> None:
    registered = await register(data)
    await pass_time(data, 301)
    mailed = await data.accounts.request_email_verification(VICTIM)
    assert mailed
    assert (await data.accounts.verify_email(mailed.token, proof=registered.proof)).password_choice is None
    assert await try_to_log_in(data, VICTIM, ATTACKERS) == "in"


@pytest.mark.parametrize("mail", ["of the registration", "that was asked for"])
@pytest.mark.parametrize(
    "has", ["nothing", "an empty text", "a guess", "the token", "half a character", "of another account", "of a form"]
)
async def test_the_owner_of_an_address_gets_an_account_that_a_stranger_made(
    data: DataLayer, mail: str, has: str
) -> None:
    """The mail that the stranger's registration sends goes to the owner, who may well open its link."""
    attacker = await register(data)
    token = attacker.verification.token
    if mail == "that was asked for":
        await pass_time(data, 301)
        mailed = await data.accounts.request_email_verification(VICTIM)
        assert mailed
        token = mailed.token
    match has:
        case "nothing":
            proof = None
        case "an empty text":
            proof = ""
        case "a guess":
            proof = "0" * len(attacker.proof)
        case "the token":
            proof = token
        case "half a character":
            proof = attacker.proof[:-1] + "\ud800"
        case "of another account":
            proof = (await register(data, email="other@example.com")).proof
        case _:  # The owner registers too, and is told by mail that the address is taken.
            form = await data.accounts.request_registration(email=VICTIM, password=OWN, **NAMES)
            assert form.verification is None
            proof = form.proof

    verified = await data.accounts.verify_email(token, proof=proof)

    assert verified.user.email_verified
    assert verified.password_choice
    assert await stored_hash(data, verified.user) is None
    assert await try_to_log_in(data, VICTIM, ATTACKERS) == "invalid_credentials"
    for stale in (token, attacker.verification.token):
        with pytest.raises(InvalidOneTimeTokenError):
            await data.accounts.verify_email(stale, proof=attacker.proof)
    await data.accounts.reset_password(verified.password_choice.token, OWN)
    assert await try_to_log_in(data, VICTIM, OWN) == "in"
    assert await try_to_log_in(data, VICTIM, ATTACKERS) == "invalid_credentials"
    with pytest.raises(InvalidOneTimeTokenError):
        await data.accounts.reset_password(verified.password_choice.token, ATTACKERS)


async def test_a_proof_is_good_for_one_password_of_one_account(data: DataLayer) -> None:
    """Of a registration that ended, or of a password that was replaced, it is none any more."""
    first = await register(data)
    await pass_time(data, 24 * 3600 + 1)
    second = await register(data)
    verified = await data.accounts.verify_email(second.verification.token, proof=first.proof)
    assert verified.password_choice
    assert await try_to_log_in(data, VICTIM, ATTACKERS) == "invalid_credentials"


async def test_a_password_can_be_chosen_by_mail_at_once_too(data: DataLayer) -> None:
    """The token that is handed out is no mail, after which another one would have to wait."""
    verified = await data.accounts.verify_email((await register(data)).verification.token)
    assert verified.password_choice
    mailed = await data.accounts.request_password_reset(VICTIM)
    assert mailed
    with pytest.raises(InvalidOneTimeTokenError):
        await data.accounts.reset_password(verified.password_choice.token, OWN)
    await data.accounts.reset_password(mailed.token, OWN)
    assert await try_to_log_in(data, VICTIM, OWN) == "in"


async def test_a_suspended_account_gets_no_password(data: DataLayer) -> None:
    registered = await register(data)
    await data.accounts.suspend(SYSTEM, registered.user.id, reason="tests")
    verified = await data.accounts.verify_email(registered.verification.token)
    assert (verified.user.status, verified.password_choice) == (UserStatus.SUSPENDED, None)


@pytest.mark.parametrize("way", ["verify", "reset"])
async def test_nothing_opens_it_that_did_before(data: DataLayer, way: str) -> None:
    user = await make_account(data, VICTIM, email_verified=False)
    session = await data.accounts.log_in(VICTIM, PASSWORD)
    pair = await data.accounts.log_in_for_tokens(VICTIM, PASSWORD)
    foreign = ExternalIdentity(provider=AuthProvider.GITHUB, subject="attacker")
    await data.accounts.link(acting(user), user.id, foreign)
    key = await data.api_keys.create(acting(user), name="x", scopes=[ApiScope.READ])
    if way == "verify":
        mailed = await data.accounts.request_email_verification(VICTIM)
        assert mailed is not None
        await data.accounts.verify_email(mailed.token)
        assert await stored_hash(data, user) is None
    else:
        mailed = await data.accounts.request_password_reset(VICTIM)
        assert mailed is not None
        await data.accounts.reset_password(mailed.token, OWN)
    assert await try_to_log_in(data, VICTIM, PASSWORD) == "invalid_credentials"
    with pytest.raises(InvalidSessionError):
        await data.sessions.validate(session.token.get_secret_value())
    with pytest.raises(InvalidSessionError):
        await data.sessions.validate_id(pair.session_id)
    found = await data.accounts.find(SYSTEM, VICTIM)
    assert found.github_id is None
    with pytest.raises(InvalidApiKeyError):
        await data.api_keys.authenticate(key.secret.get_secret_value())


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
