"""Registering and verifying, also by many at once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from data_layer import DataLayer
from data_layer.entities.enums import UserRole, UserStatus
from data_layer.errors import (
    DuplicateError,
    InvalidOneTimeTokenError,
    InvalidValueError,
    PermissionDeniedError,
    WeakPasswordError,
)
from data_layer.schemas.actors import ANONYMOUS, SYSTEM
from data_layer.services.accounts import Registered
from data_layer.services.accounts.one_time_tokens import make_token
from tests.services.accounts.support import (
    PASSWORD,
    acting,
    actions,
    make_account,
    pass_time,
    trail,
    try_to_log_in,
)

PERSON: dict[str, Any] = {"first_name": "Ann", "last_name": "Other", "password": PASSWORD}


async def test_an_account_is_open_once_its_address_is_verified(data: DataLayer) -> None:
    registered = await data.accounts.register(email="Ann@Example.COM", **PERSON)
    assert registered.user.email == "ann@example.com"
    assert registered.user.status is UserStatus.PENDING
    assert registered.user.role is UserRole.USER
    assert registered.verification.email == "ann@example.com"
    assert registered.verification.token not in repr(registered)
    assert registered.proof not in repr(registered)
    assert await try_to_log_in(data, "ann@example.com", PASSWORD) == "email_not_verified"
    assert await try_to_log_in(data, "ann@example.com", "wrong password") == "invalid_credentials"
    answer = await data.accounts.verify_email(registered.verification.token, proof=registered.proof)
    assert answer.password_choice is None
    verified = answer.user
    assert (verified.status, verified.email_verified) == (UserStatus.ACTIVE, True)
    assert await try_to_log_in(data, "ANN@example.com", PASSWORD) == "in"
    assert {"user_register", "user_verify_email", "user_login"} <= {*await actions(data)}


@pytest.mark.parametrize("change", ["used", "expired", "shortened", "changed", "another", "nothing", "other purpose"])
async def test_a_token_that_does_not_work(data: DataLayer, change: str) -> None:
    registered = await data.accounts.register(email="ann@example.com", **PERSON)
    token = registered.verification.token
    match change:
        case "used":
            await data.accounts.verify_email(token)
        case "expired":
            await pass_time(data, 24 * 3600 + 1)
        case "shortened":
            token = token[:-4]
        case "changed":
            token = token[:40] + ("A" if token[40] != "A" else "B") + token[41:]
        case "another":
            token = make_token(registered.user.id)
        case "nothing":
            token = "é\0"
        case "other purpose":
            mailed = await data.accounts.request_password_reset("ann@example.com")
            assert mailed
            token = mailed.token
    with pytest.raises(InvalidOneTimeTokenError):
        await data.accounts.verify_email(token)


async def test_a_token_works_once_also_at_the_same_moment(data: DataLayer) -> None:
    registered = await data.accounts.register(email="ann@example.com", **PERSON)
    tries = [data.accounts.verify_email(registered.verification.token) for _ in range(10)]
    answers = await asyncio.gather(*tries, return_exceptions=True)
    assert sum(isinstance(answer, InvalidOneTimeTokenError) for answer in answers) == 9


async def test_one_of_twenty_wins_an_address(data: DataLayer) -> None:
    spellings = ["ann@example.com", "Ann@Example.com", "ANN@EXAMPLE.COM", " ann@example.com"]
    tries = [data.accounts.register(email=spellings[number % 4], **PERSON) for number in range(20)]
    answers = await asyncio.gather(*tries, return_exceptions=True)
    assert sum(isinstance(answer, Registered) for answer in answers) == 1
    assert sum(isinstance(answer, DuplicateError) and answer.field == "email" for answer in answers) == 19
    assert (await actions(data)).count("user_register") == 1, "no entry without its account"
    assert len(await data.accounts.list(SYSTEM)) == 1


async def test_a_public_form_tells_nothing(data: DataLayer) -> None:
    """The caller gets a token or none, and answers alike; the work is the same."""
    hasher = data._opened.passwords
    before = hasher.work
    tries = [data.accounts.request_registration(email="ann@example.com", **PERSON) for _ in range(20)]
    answers = await asyncio.gather(*tries)
    assert hasher.work - before == 20 * 2**4
    [token] = [answer.verification for answer in answers if answer.verification is not None]
    assert len({answer.proof for answer in answers}) == 20, "each has one"
    assert {len(answer.proof) for answer in answers} == {64}
    assert (await data.accounts.verify_email(token.token)).user.email == "ann@example.com"
    assert [entry.is_success for entry in await trail(data) if entry.action == "user_register"].count(False) == 19


async def test_an_address_that_nobody_verified_is_free_again(data: DataLayer) -> None:
    squatter = await data.accounts.register(email="ann@example.com", **PERSON)
    with pytest.raises(DuplicateError):
        await data.accounts.register(email="ann@example.com", **PERSON)
    await pass_time(data, 24 * 3600 + 1)
    tries = [data.accounts.register(email="ann@example.com", **PERSON) for _ in range(5)]
    answers = await asyncio.gather(*tries, return_exceptions=True)
    [owner] = [answer for answer in answers if isinstance(answer, Registered)]
    assert all(isinstance(answer, Registered | DuplicateError) for answer in answers)
    with pytest.raises(InvalidOneTimeTokenError):
        await data.accounts.verify_email(squatter.verification.token)
    assert (await data.accounts.verify_email(owner.verification.token)).user.id == owner.user.id != squatter.user.id


async def test_another_mail(data: DataLayer) -> None:
    first = (await data.accounts.register(email="ann@example.com", **PERSON)).verification
    assert await data.accounts.request_email_verification("ann@example.com") is None, "the last mail is too recent"
    await pass_time(data, 301)
    second = await data.accounts.request_email_verification("Ann@example.com")
    assert second
    with pytest.raises(InvalidOneTimeTokenError):
        await data.accounts.verify_email(first.token)
    await data.accounts.verify_email(second.token)
    await pass_time(data, 301)
    assert await data.accounts.request_email_verification("ann@example.com") is None, "it is verified"
    assert await data.accounts.request_email_verification("nobody@example.com") is None
    assert await data.accounts.request_email_verification("nonsense") is None


@pytest.mark.parametrize(
    ("values", "error", "field"),
    [
        ({"email": "nonsense"}, InvalidValueError, "email"),
        ({"email": "x@deleted.invalid"}, InvalidValueError, "email"),
        ({"email": "a\0@example.com"}, InvalidValueError, "email"),
        ({"first_name": "x" * 101}, InvalidValueError, "first_name"),
        ({"password": "short"}, WeakPasswordError, "password"),
        ({"password": "ann@example.com"}, WeakPasswordError, "password"),
        ({"password": "AnnOther1"}, WeakPasswordError, "password"),
    ],
)
async def test_what_cannot_be_registered(
    data: DataLayer, values: dict[str, Any], error: type[InvalidValueError], field: str
) -> None:
    for register in (data.accounts.register, data.accounts.request_registration):
        with pytest.raises(error) as caught:
            await register(**{"email": "ann@example.com"} | PERSON | values)
        assert caught.value.field == field
    assert await data.accounts.list(SYSTEM) == []


async def test_accounts_for_others(data: DataLayer) -> None:
    admin = await make_account(data, "root@example.com", role=UserRole.ADMIN)
    made = await data.accounts.create(
        acting(admin), email="new@example.com", first_name="N", last_name="W", role=UserRole.MODERATOR
    )
    assert (made.status, made.role, made.email_verified) == (UserStatus.ACTIVE, UserRole.MODERATOR, False)
    assert await try_to_log_in(data, "new@example.com", "") == "invalid_credentials", "it has no password"
    [entry] = [entry for entry in await trail(data) if entry.action == "admin_user_create" and entry.user_id]
    assert (entry.resource_id, entry.user_id, entry.new_values["role"]) == (str(made.id), admin.id, "moderator")
    for actor in (ANONYMOUS, acting(made)):
        with pytest.raises(PermissionDeniedError):
            await data.accounts.create(actor, email="b@example.com", first_name="B", last_name="B")
