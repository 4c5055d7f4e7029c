"""External identities: what opens an account, and what never takes one over."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from data_layer import DataLayer
from data_layer.entities.enums import AuthProvider, UserRole, UserStatus
from data_layer.errors import (
    AccountSuspendedError,
    ConflictError,
    DuplicateError,
    InvalidCredentialsError,
    InvalidSessionError,
    InvalidValueError,
    LastLoginMethodError,
    PermissionDeniedError,
    UnverifiedIdentityError,
)
from data_layer.schemas.actors import SYSTEM, Actor
from data_layer.schemas.users import ExternalIdentity
from tests.services.accounts.support import PASSWORD, acting, make_account, stored_hash, trail, try_to_log_in
from tests.services.accounts.test_password_changes import begin_session, open_sessions


def google(subject: str = "g-1", **values: Any) -> ExternalIdentity:
    given = {"email": "ann@example.com", "email_verified": True, "display_name": "Ann Other"} | values
    return ExternalIdentity(provider="google", subject=subject, **given)


async def test_the_first_login_registers_and_the_next_finds(data: DataLayer) -> None:
    first = await data.accounts.authenticate_external(google(email="Ann@Example.com"))
    assert first.is_new
    user = first.user
    assert (user.email, user.first_name, user.last_name) == ("ann@example.com", "Ann", "Other")
    assert (user.status, user.email_verified, user.auth_provider) == (UserStatus.ACTIVE, True, AuthProvider.GOOGLE)
    changed = google(email="moved@example.com", email_verified=False)
    again = await data.accounts.authenticate_external(changed)
    assert (again.is_new, again.user.id, again.user.email) == (False, user.id, "ann@example.com")
    assert (await data.accounts.find(SYSTEM, "ann@example.com")).login_count == 2


@pytest.mark.parametrize("values", [{"email_verified": False}, {"email": None}])
@pytest.mark.parametrize("exists", [True, False])
async def test_an_address_that_nobody_verified_opens_nothing(
    data: DataLayer, *, values: dict[str, Any], exists: bool
) -> None:
    if exists:
        await make_account(data)
    with pytest.raises(UnverifiedIdentityError) as caught:
        await data.accounts.authenticate_external(google(**values))
    assert "google vouches for no address" in str(caught.value), "the same whether the account exists"
    assert len(await data.accounts.list(SYSTEM)) == exists


async def test_a_verified_address_finds_the_account_that_has_it(data: DataLayer) -> None:
    user = await make_account(data)
    entered = await data.accounts.authenticate_external(google())
    assert (entered.is_new, entered.user.id) == (False, user.id)
    assert await try_to_log_in(data, "ann@example.com", PASSWORD) == "in", "the password still works"


async def test_whoever_registered_the_address_before_its_owner_is_out(data: DataLayer) -> None:
    registered = await data.accounts.register(
        email="ann@example.com", password=PASSWORD, first_name="Mallory", last_name="M"
    )
    user = registered.user
    await begin_session(data, user.id, "mallory's")
    entered = await data.accounts.authenticate_external(google())
    assert (entered.user.id, entered.user.first_name, entered.user.email_verified) == (user.id, "Ann", True)
    assert await stored_hash(data, user) is None
    assert await open_sessions(data, user.id) == set()
    assert await try_to_log_in(data, "ann@example.com", PASSWORD) == "invalid_credentials"
    seen = await data.accounts.find(SYSTEM, "ann@example.com")
    assert (seen.google_id, seen.github_id) == ("g-1", None)


async def test_an_open_account_whose_address_nobody_verified_is_not_linked(data: DataLayer) -> None:
    user = await make_account(data, email_verified=False)
    with pytest.raises(UnverifiedIdentityError, match="nobody has verified"):
        await data.accounts.authenticate_external(google())
    assert (await data.accounts.find(SYSTEM, "ann@example.com")).google_id is None
    assert await try_to_log_in(data, "ann@example.com", PASSWORD) == "in", "nothing was taken from it"
    mailed = await data.accounts.request_email_verification(user.email)
    assert mailed is not None
    await data.accounts.verify_email(mailed.token)
    assert (await data.accounts.authenticate_external(google())).user.id == user.id


async def test_the_same_subject_of_two_issuers_is_two_people(data: DataLayer) -> None:
    def of(issuer: str, **values: Any) -> ExternalIdentity:
        given = {"email": "ann@example.com", "email_verified": True} | values
        return ExternalIdentity(provider="oidc", issuer=f"https://{issuer}.example", subject="1", **given)

    tabs = await asyncio.gather(*(data.accounts.log_in_external(of("one")) for _ in range(5)))
    assert [tab.is_new for tab in tabs].count(True) == 1
    [ann] = {tab.user.id for tab in tabs}
    assert all(tab.session is not None and tab.session.session.user_id == ann for tab in tabs)
    bob = (await data.accounts.authenticate_external(of("two", email="bob@example.com"))).user
    assert bob.auth_provider is AuthProvider.OIDC
    assert (await data.accounts.authenticate_external(of("one", email=None))).user.id == ann
    assert (await data.accounts.authenticate_external(of("two", email=None))).user.id == bob.id
    with pytest.raises(UnverifiedIdentityError):
        await data.accounts.authenticate_external(of("three", email=None))
    with pytest.raises(DuplicateError):
        await data.accounts.link(Actor.user(bob.id), bob.id, of("one"))
    with pytest.raises(LastLoginMethodError):
        await data.accounts.unlink(Actor.user(ann), ann, AuthProvider.OIDC)
    await data.accounts.link(Actor.user(ann), ann, google())
    unlinked = await data.accounts.unlink(Actor.user(ann), ann, AuthProvider.OIDC)
    assert unlinked.auth_provider is AuthProvider.GOOGLE
    with pytest.raises(UnverifiedIdentityError):
        await data.accounts.authenticate_external(of("one", email=None))
    await data.accounts.delete(SYSTEM, bob.id)
    assert (await data.accounts.authenticate_external(of("two", email="b@example.com"))).is_new, "erased with bob"


@pytest.mark.parametrize("values", [{"provider": "oidc"}, {"provider": "google", "issuer": "https://one.example"}])
def test_an_issuer_belongs_to_identities_of_oidc(values: dict[str, str]) -> None:
    with pytest.raises(InvalidValueError, match="issuer belongs to"):
        ExternalIdentity(subject="1", **values)


async def test_an_address_that_the_provider_gave_to_somebody_else_takes_nothing_over(data: DataLayer) -> None:
    await data.accounts.authenticate_external(google("first owner"))
    with pytest.raises(UnverifiedIdentityError):
        await data.accounts.authenticate_external(google("second owner"))


async def test_a_suspended_account_stays_shut(data: DataLayer) -> None:
    user = await make_account(data)
    await data.accounts.suspend(SYSTEM, user.id, reason="tests")
    for _ in range(2):
        with pytest.raises(AccountSuspendedError):
            await data.accounts.authenticate_external(google())
    assert (await data.accounts.find(SYSTEM, "ann@example.com")).google_id is None
    assert [entry.error_message for entry in await trail(data) if not entry.is_success] == ["account_suspended"] * 2


async def test_ten_tabs_at_once_make_one_account(data: DataLayer) -> None:
    logins = await asyncio.gather(*(data.accounts.authenticate_external(google()) for _ in range(10)))
    assert [login.is_new for login in logins].count(True) == 1
    assert len({login.user.id for login in logins}) == 1
    assert len(await data.accounts.list(SYSTEM)) == 1


async def test_linking_and_unlinking(data: DataLayer) -> None:
    user, other = await make_account(data), await make_account(data, "bob@example.com")
    github = ExternalIdentity(provider="github", subject="42")
    await data.accounts.link(acting(user), user.id, github)
    await data.accounts.link(acting(user), user.id, github)
    assert (await data.accounts.authenticate_external(github)).user.id == user.id, "no address is needed"
    with pytest.raises(DuplicateError):
        await data.accounts.link(acting(other), other.id, github)
    with pytest.raises(ConflictError):
        await data.accounts.link(acting(user), user.id, ExternalIdentity(provider="github", subject="43"))
    with pytest.raises(PermissionDeniedError):
        await data.accounts.link(acting(other), user.id, google())
    await data.accounts.unlink(acting(user), user.id, AuthProvider.GITHUB, password=PASSWORD)
    with pytest.raises(UnverifiedIdentityError):
        await data.accounts.authenticate_external(github)
    for provider in (AuthProvider.GITHUB, AuthProvider.LOCAL):
        with pytest.raises(ConflictError):
            await data.accounts.unlink(acting(user), user.id, provider, password=PASSWORD)


async def test_who_finds_a_session_unlinks_nothing(data: DataLayer) -> None:
    user, admin = await make_account(data), await make_account(data, "root@example.com", role=UserRole.ADMIN)
    await data.accounts.link(acting(user), user.id, google())
    issuer = ExternalIdentity(provider="oidc", issuer="https://one.example", subject="1")
    await data.accounts.link(acting(user), user.id, issuer)
    listed = await data.accounts.list_identities(acting(user), user.id)
    found = [(each.provider, each.issuer, each.subject) for each in listed.identities]
    assert found == [(AuthProvider.GOOGLE, None, google().subject), (AuthProvider.OIDC, "https://one.example", "1")]
    assert listed.has_password
    with pytest.raises(InvalidValueError, match="once more"):
        await data.accounts.unlink(acting(user), user.id, AuthProvider.GOOGLE)
    with pytest.raises(InvalidCredentialsError):
        await data.accounts.unlink(acting(user), user.id, AuthProvider.GOOGLE, password="a wrong horse")
    with pytest.raises(InvalidCredentialsError):
        await data.accounts.confirm_link(acting(user), user.id, password="a wrong horse")
    assert (await data.accounts.find(SYSTEM, user.email)).failed_login_count == 2
    await data.accounts.unlink(acting(admin), user.id, AuthProvider.GOOGLE)
    left = await data.accounts.list_identities(acting(admin), user.id)
    assert [each.provider for each in left.identities] == [AuthProvider.OIDC]
    with pytest.raises(PermissionDeniedError):
        await data.accounts.list_identities(acting(user), admin.id)


async def test_an_identity_is_linked_only_while_the_session_lasts(data: DataLayer) -> None:
    user = await make_account(data)
    session = (await data.sessions.create(user.id)).session
    await data.sessions.revoke(acting(user), session.id)
    with pytest.raises(InvalidSessionError):
        await data.accounts.link(acting(user), user.id, google(), session_id=session.id)
    assert not (await data.accounts.list_identities(acting(user), user.id)).identities


async def test_one_way_to_log_in_is_left(data: DataLayer) -> None:
    user = (await data.accounts.authenticate_external(google())).user
    with pytest.raises(LastLoginMethodError):
        await data.accounts.unlink(acting(user), user.id, AuthProvider.GOOGLE)
    azure = ExternalIdentity(provider="azure_ad", subject="tenant.object")
    await data.accounts.link(acting(user), user.id, azure)
    unlink = [
        data.accounts.unlink(acting(user), user.id, provider)
        for provider in (AuthProvider.GOOGLE, AuthProvider.AZURE_AD)
    ]
    answers = await asyncio.gather(*unlink, return_exceptions=True)
    assert [isinstance(answer, LastLoginMethodError) for answer in answers].count(True) == 1
    seen = await data.accounts.find(SYSTEM, "ann@example.com")
    assert [seen.google_id, seen.azure_id].count(None) == 1
    assert seen.auth_provider == (AuthProvider.AZURE_AD if seen.google_id is None else AuthProvider.GOOGLE)


async def test_names_that_do_not_fit_are_no_reason_to_refuse(data: DataLayer) -> None:
    identity = google(display_name="x" * 300, first_name=None, avatar="javascript:alert(1)")
    user = (await data.accounts.authenticate_external(identity)).user
    assert (len(user.first_name), len(str(user.display_name)), user.avatar) == (100, 255, None)
