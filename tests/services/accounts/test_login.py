"""Logging in: equal answers after equal work, whatever is wrong."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import pytest

from data_layer import DataLayer, Settings
from data_layer.entities.enums import UserStatus
from data_layer.errors import (
    AccountInactiveError,
    InvalidCredentialsError,
    InvalidSessionError,
    TooManyAttemptsError,
)
from data_layer.repositories.unit_of_work import UnitOfWork
from data_layer.schemas.actors import SYSTEM
from data_layer.schemas.sessions import GeoLocation, NewSession
from data_layer.schemas.users import ExternalIdentity
from data_layer.services.accounts.passwords import PasswordHasher
from data_layer.services.sessions import SessionService
from tests.services.accounts.support import (
    CAFE,
    FIRST_WAIT,
    HOME,
    PASSWORD,
    acting,
    coming_from,
    make_account,
    stored_hash,
    trail,
    try_to_log_in,
)


async def test_what_a_login_leaves_behind(data: DataLayer) -> None:
    user = await make_account(data)
    assert await try_to_log_in(data, "ann@example.com", "wrong password") == "invalid_credentials"
    with coming_from(CAFE, "Browser/1"):
        entered = await data.accounts.authenticate("Ann@Example.com ", PASSWORD)
    assert (entered.id, entered.updated_at) == (user.id, user.updated_at)
    seen = await data.accounts.find(SYSTEM, str(user.id))
    assert (seen.login_count, seen.failed_login_count, seen.locked_until) == (1, 0, None)
    assert (seen.last_login_ip, seen.last_login_user_agent) == (CAFE, "Browser/1")
    assert seen.last_login_at is not None
    [failed] = [entry for entry in await trail(data) if entry.action == "security_login_failed"]
    [succeeded] = [entry for entry in await trail(data) if entry.action == "user_login"]
    assert (failed.action, failed.is_success, failed.ip_address) == ("security_login_failed", False, HOME)
    assert (failed.user_id, failed.error_message) == (user.id, "invalid_credentials")
    assert (succeeded.action, succeeded.user_id, succeeded.ip_address) == ("user_login", user.id, CAFE)


async def test_everything_that_is_wrong_gets_the_same_answer_after_the_same_work(data: DataLayer) -> None:
    await make_account(data)
    await make_account(data, "without@example.com", password=None)
    for status in ("suspended", "deactivated"):
        user = await make_account(data, f"{status}@example.com")
        if status == "suspended":
            await data.accounts.suspend(SYSTEM, user.id, reason="tests")
        else:
            await data.accounts.deactivate(acting(user), user.id)
    await data.accounts.register(email="pending@example.com", password=PASSWORD, first_name="P", last_name="P")
    deleted = await make_account(data, "deleted@example.com")
    await data.accounts.delete(SYSTEM, deleted.id)
    names = ("ann", "without", "suspended", "deactivated", "pending", "deleted", "nobody")
    addresses = [
        *(f"{name}@example.com" for name in names),
        f"{deleted.id}@deleted.invalid",
        "nonsense",
        "",
        "a\0\ud800",
    ]
    hasher = data._opened.passwords
    for number, address in enumerate(addresses):
        before = hasher.work
        with coming_from(f"192.0.2.{number}"), pytest.raises(InvalidCredentialsError) as caught:
            await data.accounts.authenticate(address, "wrong password")
        assert str(caught.value) == "the address or the password is wrong"
        assert hasher.work - before == 2**hasher.rounds, address


async def test_only_the_right_password_is_told_more(data: DataLayer) -> None:
    user = await make_account(data)
    await data.accounts.suspend(SYSTEM, user.id, reason="tests")
    assert await try_to_log_in(data, "ann@example.com", PASSWORD) == "account_suspended"
    await data.accounts.unsuspend(SYSTEM, user.id)
    assert await try_to_log_in(data, "ann@example.com", PASSWORD) == "in"


async def test_a_deactivated_account_comes_back_if_its_owner_wants_it(data: DataLayer) -> None:
    user = await make_account(data)
    await data.accounts.deactivate(acting(user), user.id)
    with pytest.raises(AccountInactiveError):
        await data.accounts.authenticate("ann@example.com", PASSWORD)
    with pytest.raises(InvalidCredentialsError):
        await data.accounts.authenticate("ann@example.com", "wrong password", reactivate=True)
    back = await data.accounts.authenticate("ann@example.com", PASSWORD, reactivate=True)
    assert back.status is UserStatus.ACTIVE


@pytest.mark.usefixtures("data")
@pytest.mark.parametrize(("before", "after"), [(4, 6), (6, 4)])
async def test_a_hash_of_other_rounds_is_made_anew_at_login(settings: Settings, before: int, after: int) -> None:
    async with DataLayer(settings.replaced(bcrypt_rounds=before)) as old:
        user = await make_account(old)
    async with DataLayer(settings.replaced(bcrypt_rounds=after)) as new:
        assert f"${before:02}$" in str(await stored_hash(new, user))
        assert await try_to_log_in(new, "ann@example.com", "wrong password") == "invalid_credentials"
        assert f"${before:02}$" in str(await stored_hash(new, user))
        assert await try_to_log_in(new, "ann@example.com", PASSWORD) == "in"
        assert f"${after:02}$" in str(await stored_hash(new, user))
        assert await try_to_log_in(new, "ann@example.com", PASSWORD) == "in"


async def test_a_password_that_is_changed_while_it_is_compared_is_refused(
    data: DataLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = await make_account(data)
    compared, go_on = asyncio.Event(), asyncio.Event()
    verify = PasswordHasher.verify

    async def slow(self: PasswordHasher, password: str, stored: str | None) -> bool:
        answer = await verify(self, password, stored)
        compared.set()
        await go_on.wait()
        return answer

    monkeypatch.setattr(PasswordHasher, "verify", slow)
    entering = asyncio.create_task(try_to_log_in(data, "ann@example.com", PASSWORD))
    await compared.wait()
    token = await data.accounts.request_password_reset("ann@example.com")
    assert token
    await data.accounts.reset_password(token.token, "another horse and battery")
    go_on.set()
    assert await entering == "invalid_credentials"
    assert (await data.accounts.find(SYSTEM, str(user.id))).login_count == 0


async def test_a_suspension_while_the_password_is_compared_holds(
    data: DataLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = await make_account(data)
    verify = PasswordHasher.verify

    async def suspended_meanwhile(self: PasswordHasher, password: str, stored: str | None) -> bool:
        await data.accounts.suspend(SYSTEM, user.id, reason="tests")
        return await verify(self, password, stored)

    monkeypatch.setattr(PasswordHasher, "verify", suspended_meanwhile)
    assert await try_to_log_in(data, "ann@example.com", PASSWORD) == "account_suspended"


async def test_no_session_begins_by_a_password_that_was_replaced(
    data: DataLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Proving the password and beginning the session are one transaction: replacing it ends both, or neither."""
    user = await make_account(data)
    entered, go_on = asyncio.Event(), asyncio.Event()
    begin = SessionService.begin

    async def slow(self: SessionService, tx: UnitOfWork, user_id: UUID, **values: Any) -> NewSession:
        entered.set()
        await go_on.wait()
        return await begin(self, tx, user_id, **values)

    monkeypatch.setattr(SessionService, "begin", slow)
    entering = asyncio.create_task(data.accounts.log_in("ann@example.com", PASSWORD))
    await entered.wait()
    changing = asyncio.create_task(
        data.accounts.change_password(acting(user), user.id, current=PASSWORD, new="another horse and battery")
    )
    await asyncio.sleep(0)
    go_on.set()
    begun = await entering
    await changing
    with pytest.raises(InvalidSessionError):
        await data.sessions.validate(begun.token.get_secret_value())
    assert await data.sessions.list(SYSTEM, user.id) == []


async def test_logging_in_begins_a_session_or_gives_tokens(data: DataLayer) -> None:
    user = await make_account(data)
    with coming_from(CAFE, "Browser/1"):
        begun = await data.accounts.log_in("ann@example.com", PASSWORD, place=GeoLocation(city="Bern"))
        pair = await data.accounts.log_in_for_tokens("ann@example.com", PASSWORD)
    assert await data.sessions.validate(begun.token.get_secret_value()) == begun.session
    assert (await data.tokens.verify(pair.access_token.get_secret_value())).id == pair.session_id
    listed = {session.id: session for session in await data.sessions.list(acting(user), user.id)}
    assert (listed[begun.session.id].city, listed[begun.session.id].ip_address) == ("Bern", CAFE)
    assert listed[pair.session_id].type == "api"
    for log_in in (data.accounts.log_in, data.accounts.log_in_for_tokens):
        with pytest.raises(InvalidCredentialsError):
            await log_in("ann@example.com", "wrong password")
    assert len(await data.sessions.list(acting(user), user.id)) == 2


async def test_many_right_logins_at_once(data: DataLayer) -> None:
    """Whoever has the password is let in, also by thirty tabs at once, and every login is counted."""
    user = await make_account(data)
    assert await try_to_log_in(data, "ann@example.com", PASSWORD) == "in"
    answers = await asyncio.gather(*(try_to_log_in(data, "ann@example.com", PASSWORD) for _ in range(5)))
    assert answers == ["in"] * 5
    assert (await data.accounts.find(SYSTEM, str(user.id))).login_count == 6


async def test_an_account_of_an_external_identity_has_no_password_to_guess(data: DataLayer) -> None:
    identity = ExternalIdentity(provider="google", subject="1", email="ann@example.com", email_verified=True)
    await data.accounts.authenticate_external(identity)
    for password in ("", "None", PASSWORD):
        assert await try_to_log_in(data, "ann@example.com", password) == "invalid_credentials"


async def test_waiting_says_how_long(data: DataLayer) -> None:
    with coming_from(HOME):
        for _ in range(6):
            with pytest.raises(InvalidCredentialsError):
                await data.accounts.authenticate("nobody@example.com", "guess")
        with pytest.raises(TooManyAttemptsError) as caught:
            await data.accounts.authenticate("nobody@example.com", "guess")
    assert 0 < caught.value.retry_after <= FIRST_WAIT
    assert f"{caught.value.retry_after} s" in str(caught.value)
