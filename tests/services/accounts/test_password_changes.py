"""Changing and resetting passwords, and what becomes of sessions."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from data_layer import DataLayer, Session, request_context
from data_layer.entities.enums import AuditAction, SessionStatus, UserRole
from data_layer.errors import (
    ChangedMeanwhileError,
    InvalidCredentialsError,
    InvalidOneTimeTokenError,
    PermissionDeniedError,
    TooManyAttemptsError,
    WeakPasswordError,
)
from data_layer.schemas.actors import ANONYMOUS, SYSTEM
from tests.services.accounts.support import (
    PASSWORD,
    acting,
    make_account,
    pass_time,
    stored_hash,
    trail,
    try_to_log_in,
)

NEW = "a new horse and a battery"


async def begin_session(data: DataLayer, user_id: UUID, name: str) -> UUID:
    session = Session(session_id=name, user_id=user_id, expires_at=datetime.now(UTC) + timedelta(hours=1))
    async with data.transaction() as tx:
        tx.add(session)
    return session.id


async def open_sessions(data: DataLayer, user_id: UUID) -> set[UUID]:
    async with data.transaction() as tx:
        return {session.id for session in await tx.sessions.list(user_id=user_id, status=SessionStatus.ACTIVE)}


async def test_the_owner_changes_the_password(data: DataLayer) -> None:
    user = await make_account(data)
    here, _ = [await begin_session(data, user.id, name) for name in ("here", "there")]
    stranger = await make_account(data, "bob@example.com")
    his = await begin_session(data, stranger.id, "his")
    with request_context(session_id=here):
        await data.accounts.change_password(acting(user), user.id, current=PASSWORD, new=NEW)
    assert await open_sessions(data, user.id) == {here}, "all others end"
    assert await open_sessions(data, stranger.id) == {his}
    assert await try_to_log_in(data, "ann@example.com", PASSWORD) == "invalid_credentials"
    assert await try_to_log_in(data, "ann@example.com", NEW) == "in"
    [entry] = [entry for entry in await trail(data) if entry.action == "user_change_password"]
    assert entry.new_values["password_hash"] == "***"


async def test_nobody_else_changes_it(data: DataLayer) -> None:
    user = await make_account(data)
    other = await make_account(data, "bob@example.com", role="admin")
    for actor in (ANONYMOUS, acting(other)):
        with pytest.raises(PermissionDeniedError):
            await data.accounts.change_password(actor, user.id, current=PASSWORD, new=NEW)
    with pytest.raises(WeakPasswordError):
        await data.accounts.change_password(acting(user), user.id, current=PASSWORD, new="short")
    assert await try_to_log_in(data, "ann@example.com", PASSWORD) == "in"


async def test_an_open_session_is_no_place_to_guess(data: DataLayer) -> None:
    user = await make_account(data)
    for _ in range(6):
        with pytest.raises(InvalidCredentialsError):
            await data.accounts.change_password(acting(user), user.id, current="guess", new=NEW)
    with pytest.raises(TooManyAttemptsError):
        await data.accounts.change_password(acting(user), user.id, current=PASSWORD, new=NEW)
    assert [entry.action for entry in await trail(data)].count(AuditAction.SECURITY_LOGIN_FAILED) == 6


async def test_one_of_several_changes_at_once_wins(data: DataLayer) -> None:
    user = await make_account(data)
    news = [f"{NEW} {number}" for number in range(4)]
    changes = [data.accounts.change_password(acting(user), user.id, current=PASSWORD, new=new) for new in news]
    answers = await asyncio.gather(*changes, return_exceptions=True)
    won = [new for new, answer in zip(news, answers, strict=True) if answer is None]
    assert len(won) == 1
    assert {type(answer) for answer in answers if answer} <= {ChangedMeanwhileError, InvalidCredentialsError}
    assert await try_to_log_in(data, "ann@example.com", won[0]) == "in"


async def test_resetting_by_mail(data: DataLayer) -> None:
    user = await make_account(data, email_verified=False)
    await begin_session(data, user.id, "somebody's")
    mailed = await data.accounts.request_password_reset("ANN@example.com")
    assert mailed
    assert (mailed.user_id, mailed.email) == (user.id, "ann@example.com")
    assert mailed.token not in repr(mailed)
    with pytest.raises(WeakPasswordError):
        await data.accounts.reset_password(mailed.token, "short")
    reset = await data.accounts.reset_password(mailed.token, NEW)
    assert reset.email_verified, "the mail has arrived"
    assert await open_sessions(data, user.id) == set()
    assert await try_to_log_in(data, "ann@example.com", PASSWORD) == "invalid_credentials"
    assert await try_to_log_in(data, "ann@example.com", NEW) == "in"
    with pytest.raises(InvalidOneTimeTokenError):
        await data.accounts.reset_password(mailed.token, f"{NEW}!")


async def test_a_token_works_once_also_at_the_same_moment(data: DataLayer) -> None:
    await make_account(data)
    mailed = await data.accounts.request_password_reset("ann@example.com")
    assert mailed
    news = [f"{NEW} {number}" for number in range(8)]
    answers = await asyncio.gather(
        *(data.accounts.reset_password(mailed.token, new) for new in news), return_exceptions=True
    )
    [won] = [new for new, answer in zip(news, answers, strict=True) if not isinstance(answer, Exception)]
    assert sum(isinstance(answer, InvalidOneTimeTokenError) for answer in answers) == 7
    assert await try_to_log_in(data, "ann@example.com", won) == "in"


async def test_who_gets_no_mail(data: DataLayer) -> None:
    user = await make_account(data)
    assert await data.accounts.request_password_reset("nobody@example.com") is None
    assert await data.accounts.request_password_reset("nonsense") is None
    assert await data.accounts.request_password_reset("ann@example.com")
    assert await data.accounts.request_password_reset("ann@example.com") is None, "the last mail is too recent"
    await pass_time(data, 301)
    mailed = await data.accounts.request_password_reset("ann@example.com")
    assert mailed
    await data.accounts.suspend(SYSTEM, user.id, reason="tests")
    with pytest.raises(InvalidOneTimeTokenError):
        await data.accounts.reset_password(mailed.token, NEW)
    await pass_time(data, 301)
    assert await data.accounts.request_password_reset("ann@example.com") is None
    assert await data.accounts.request_password_reset(f"{user.id}@deleted.invalid") is None


async def test_a_late_token(data: DataLayer) -> None:
    user = await make_account(data)
    mailed = await data.accounts.request_password_reset("ann@example.com")
    assert mailed
    before = await stored_hash(data, user)
    await pass_time(data, 3601)
    with pytest.raises(InvalidOneTimeTokenError):
        await data.accounts.reset_password(mailed.token, NEW)
    assert await stored_hash(data, user) == before


async def test_a_pending_account_is_opened_by_whoever_reads_its_mail(data: DataLayer) -> None:
    """Somebody else has registered the address; its owner resets the password and is the only one who knows it."""
    await data.accounts.register(email="ann@example.com", password=PASSWORD, first_name="Mallory", last_name="M")
    mailed = await data.accounts.request_password_reset("ann@example.com")
    assert mailed
    await data.accounts.reset_password(mailed.token, NEW)
    assert await try_to_log_in(data, "ann@example.com", PASSWORD) == "invalid_credentials"
    assert await try_to_log_in(data, "ann@example.com", NEW) == "in"


async def test_an_account_without_a_password_gets_its_first_one_by_mail(data: DataLayer) -> None:
    user = await make_account(data, password=None)
    with pytest.raises(InvalidCredentialsError):
        await data.accounts.change_password(acting(user), user.id, current="", new=NEW)
    mailed = await data.accounts.request_password_reset("ann@example.com")
    assert mailed
    await data.accounts.reset_password(mailed.token, NEW)
    assert await try_to_log_in(data, "ann@example.com", NEW) == "in"


async def test_a_moderator_has_a_link_mailed(data: DataLayer) -> None:
    ann = await make_account(data)
    moderator = acting(await make_account(data, "mod@example.com", role=UserRole.MODERATOR))
    for _ in range(2):
        assert (await data.accounts.mail_password_reset(moderator, ann.id)).email == "ann@example.com"
    assert [mail.kind for mail in await data.mails.list(SYSTEM)] == ["reset_password"], "one in five minutes"
    [entry] = [each for each in await trail(data) if each.action == AuditAction.USER_RESET_PASSWORD]
    assert (entry.user_id, entry.resource_id) == (moderator.user_id, str(ann.id))
    await data.accounts.suspend(SYSTEM, ann.id, reason="tests")
    await pass_time(data, 301)
    await data.accounts.mail_password_reset(moderator, ann.id)
    assert len(await data.mails.list(SYSTEM)) == 1, "a suspended account gets none"
    with pytest.raises(PermissionDeniedError):
        await data.accounts.mail_password_reset(acting(ann), ann.id)
