"""What sessions can do, as the applications that use them see it."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta
from functools import cache
from typing import Any
from uuid import UUID

import pytest
from pydantic import SecretStr
from sqlalchemy import text
from uuid_utils.compat import uuid7

from data_layer import DataLayer, Session, Settings, request_context
from data_layer.entities.enums import SessionStatus, SessionType, UserRole, UserStatus
from data_layer.errors import (
    AccountInactiveError,
    ChangedMeanwhileError,
    InvalidSessionError,
    InvalidTextError,
    InvalidValueError,
    NotFoundError,
    PermissionDeniedError,
)
from data_layer.schemas.actors import ANONYMOUS, SYSTEM, Actor
from data_layer.schemas.sessions import GeoLocation, NewSession
from data_layer.services.sessions import service as devices
from data_layer.services.sessions.service import describe_device
from tests.leaks import LogLines
from tests.support import make_user

IPHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
    "Version/17.5 Mobile/15E148 Safari/604.1"
)


async def new_user(data: DataLayer, **values: object) -> UUID:
    user = make_user(**values)
    async with data.transaction() as tx:
        tx.add(user)
    return user.id


def token_of(new: NewSession) -> str:
    return new.token.get_secret_value()


async def stored(data: DataLayer, session_id: UUID) -> Session:
    async with data.transaction() as tx:
        return await tx.sessions.get(session_id)


async def actions(data: DataLayer) -> list[str]:
    async with data.transaction() as tx:
        return [entry.action.value for entry in await tx.audit.list()]


class TestALife:
    async def test_from_its_beginning_to_its_end(self, data: DataLayer) -> None:
        user = await new_user(data, role=UserRole.MODERATOR)
        new = await data.sessions.create(user)
        session = await data.sessions.validate(token_of(new))
        assert session == new.session == await data.sessions.validate_id(new.session.id)
        assert (session.user_id, session.role, session.type) == (user, UserRole.MODERATOR, SessionType.WEB)
        assert session.actor == Actor.user(user, UserRole.MODERATOR)
        assert session.expires_at - session.created_at == timedelta(seconds=3600)
        assert await data.sessions.revoke(session.actor, session.id) == 1
        assert await data.sessions.revoke(session.actor, session.id) == 0
        for asking in (data.sessions.validate(token_of(new)), data.sessions.validate_id(session.id)):
            with pytest.raises(InvalidSessionError):
                await asking
        row = await stored(data, session.id)
        assert (row.status, row.revoked_reason) == (SessionStatus.REVOKED, "logged_out")
        assert row.revoked_at is not None
        assert await actions(data) == ["session_create", "session_revoke"]

    @pytest.mark.parametrize("token", ["", "x", "x" * 43, "\ud800" * 43, "\0" * 43, "x" * 100_000, "é" * 43])
    async def test_tokens_that_nobody_gave_out(self, data: DataLayer, token: str) -> None:
        with pytest.raises(InvalidSessionError):
            await data.sessions.validate(token)

    async def test_two_tokens_have_nothing_in_common(self, data: DataLayer) -> None:
        user = await new_user(data)
        tokens = {token_of(await data.sessions.create(user)) for _ in range(5)}
        assert len(tokens) == 5
        assert {len(token) for token in tokens} == {43}

    @pytest.mark.parametrize("status", [UserStatus.SUSPENDED, UserStatus.INACTIVE, UserStatus.PENDING])
    async def test_accounts_that_are_not_open_get_none(self, data: DataLayer, status: UserStatus) -> None:
        user = await new_user(data, status=status)
        for user_id in (user, uuid7()):
            with pytest.raises(AccountInactiveError):
                await data.sessions.create(user_id)
        assert await actions(data) == []

    async def test_extending_reaches_the_maximum_and_no_further(self, data: DataLayer) -> None:
        new = await data.sessions.create(await new_user(data))
        session_id, began = new.session.id, new.session.created_at
        assert await data.sessions.extend(session_id, timedelta(days=7)) > began + timedelta(days=7)
        assert await data.sessions.extend(session_id, timedelta(hours=1)) > began + timedelta(days=7), "never shorter"
        longest = timedelta(seconds=data.settings.security.session_max_age)
        assert await data.sessions.extend(session_id, timedelta(days=3650)) == began + longest
        assert await data.sessions.touch(session_id) == began + longest
        with pytest.raises(InvalidValueError):
            await data.sessions.extend(session_id, timedelta(0))
        await data.sessions.revoke(SYSTEM, session_id)
        for asking in (data.sessions.touch(session_id), data.sessions.extend(session_id, timedelta(hours=1))):
            with pytest.raises(InvalidSessionError):
                await asking

    async def test_use_extends_to_the_maximum_and_no_further(self, data: DataLayer) -> None:
        new = await data.sessions.create(await new_user(data))
        longest, left = data.settings.security.session_max_age, timedelta(seconds=60)
        async with data.transaction() as tx:
            age = text(
                "UPDATE sessions SET created_at = now() - make_interval(secs => :age), expires_at = now() + :left"
            )
            await tx.execute(age.bindparams(age=longest - left.total_seconds(), left=left / 2))
            began = (await tx.sessions.get(new.session.id)).created_at
        assert await data.sessions.touch(new.session.id) == began + timedelta(seconds=longest)

    async def test_a_changed_secret_logs_nobody_out_while_the_former_is_known(
        self, data: DataLayer, settings: Settings
    ) -> None:
        new = await data.sessions.create(await new_user(data))
        changes = {"session_secret": SecretStr("a" * 40), "session_secret_previous": settings.security.session_secret}
        async with DataLayer(settings.replaced(**changes)) as later:
            assert (await later.sessions.validate(token_of(new))).id == new.session.id
        async with DataLayer(settings.replaced(**changes | {"session_secret_previous": None})) as latest:
            with pytest.raises(InvalidSessionError):
                await latest.sessions.validate(token_of(new))


class TestWhoMayDoWhat:
    async def test_sessions_of_others(self, data: DataLayer) -> None:
        owner, other = await new_user(data), await new_user(data)
        admin = await new_user(data, role=UserRole.ADMIN)
        new = await data.sessions.create(owner)
        for actor in (ANONYMOUS, Actor.user(other)):
            with pytest.raises(PermissionDeniedError):
                await data.sessions.list(actor, owner)
            with pytest.raises(PermissionDeniedError):
                await data.sessions.revoke_all(actor, owner)
            with pytest.raises(NotFoundError):
                await data.sessions.revoke(actor, new.session.id)
        with pytest.raises(PermissionDeniedError):
            await data.sessions.revoke_everything(Actor.user(other, UserRole.MODERATOR), reason="tests")
        assert await data.sessions.revoke_everything(Actor.user(admin, UserRole.ADMIN), reason="tests") == 1

    async def test_a_moderator_does_not_log_an_administrator_out(self, data: DataLayer) -> None:
        admin = await new_user(data, role=UserRole.ADMIN)
        new = await data.sessions.create(admin)
        moderator = Actor.user(await new_user(data, role=UserRole.MODERATOR), UserRole.MODERATOR)
        with pytest.raises(PermissionDeniedError):
            await data.sessions.revoke_all(moderator, admin)
        with pytest.raises(NotFoundError):
            await data.sessions.revoke(moderator, new.session.id)
        assert await data.sessions.validate(token_of(new))

    async def test_all_but_this(self, data: DataLayer) -> None:
        owner, other = await new_user(data), await new_user(data)
        here, there, elsewhere = [await data.sessions.create(owner) for _ in range(3)]
        strangers = await data.sessions.create(other)
        assert await data.sessions.revoke_all(here.session.actor, owner, keep=here.session.id) == 2
        for new in (here, strangers):
            assert await data.sessions.validate(token_of(new))
        for new in (there, elsewhere):
            with pytest.raises(InvalidSessionError):
                await data.sessions.validate(token_of(new))


class TestDevices:
    async def test_the_owner_recognises_them(self, data: DataLayer) -> None:
        user = await new_user(data)
        with request_context(ip_address="192.0.2.7", user_agent=IPHONE):
            phone = await data.sessions.create(
                user, kind=SessionType.MOBILE, device_id="d-1", place=GeoLocation(city="Oslo", country="NO")
            )
        await data.sessions.create(user)
        shown = {session.id: session for session in await data.sessions.list(phone.session.actor, user)}
        assert len(shown) == 2
        session = shown[phone.session.id]
        assert (session.device_type, session.browser, session.browser_version) == ("mobile", "Mobile Safari", "17.5")
        assert (session.operating_system, session.os_version, session.city) == ("iOS", "17.5", "Oslo")
        assert session.ip_address == "192.0.2.7"
        [row] = [row for row in await data.sessions.list_all(SYSTEM, user_id=user) if row.id == session.id]
        assert (row.device_id, row.user_agent) == ("d-1", IPHONE)

    async def test_ended_ones_are_not_shown(self, data: DataLayer) -> None:
        user = await new_user(data)
        ended, expired = [await data.sessions.create(user) for _ in range(2)]
        await data.sessions.revoke(SYSTEM, ended.session.id)
        async with data.transaction() as tx:
            await tx.execute(
                text("UPDATE sessions SET expires_at = now() WHERE id = :id").bindparams(id=expired.session.id)
            )
        assert await data.sessions.list(SYSTEM, user) == []

    @pytest.mark.parametrize(
        ("user_agent", "expected"),
        [
            (IPHONE, "mobile"),
            ("Mozilla/5.0 (iPad; CPU OS 17_5 like Mac OS X) AppleWebKit/605.1.15 Version/17.5 Safari/604.1", "tablet"),
            ("Mozilla/5.0 (Linux; Android 14; SM-X910) AppleWebKit/537.36 Chrome/126.0.0.0 Safari/537.36", "tablet"),
            ("Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 Chrome/126.0 Mobile Safari/537.36", "mobile"),
            ("Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/126.0.0.0 Safari/537.36", "desktop"),
            ("Mozilla/5.0 (X11; Linux x86_64; rv:127.0) Gecko/20100101 Firefox/127.0", "desktop"),
            ("Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)", "bot"),
            ("Mozilla/5.0 (Linux; Android 14; Pixel 8) Chrome/126.0 Mobile (compatible; Googlebot-Mobile/2.1)", "bot"),
            (
                "Mozilla/5.0 (Linux; Android 9; CUBOT_X18) AppleWebKit/537.36 Chrome/126.0 Mobile Safari/537.36",
                "mobile",
            ),
            ("iPad6,3/10.2", "tablet"),
            ("curl/8.5.0", None),
            ("\x00" * 5000, None),
            (None, None),
        ],
    )
    async def test_kinds(self, user_agent: str | None, expected: str | None) -> None:
        assert (await describe_device(user_agent)).device_type == expected

    async def test_their_patterns_are_loaded_once_and_off_the_event_loop(self, monkeypatch: pytest.MonkeyPatch) -> None:
        threads: list[threading.Thread] = []
        load = devices.load_patterns

        @cache
        def load_and_remember() -> object:
            threads.append(threading.current_thread())
            return load()

        monkeypatch.setattr(devices, "load_patterns", load_and_remember)
        for user_agent in (IPHONE, f"{IPHONE} again"):
            await describe_device(user_agent)
        assert len(threads) == 1
        assert threads[0] is not threading.current_thread()

    def test_patterns_that_would_change_nothing_are_not_loaded(self) -> None:
        """They name the makers of phones, and take 14 MiB."""
        found = devices.load_patterns().parse("Mozilla/5.0 (Linux; Android 14; SM-S921B) Mobile").device
        assert found is not None
        assert found.family == "Phone"


class TestData:
    async def test_whoever_comes_second_has_to_look_again(self, data: DataLayer) -> None:
        session_id = (await data.sessions.create(await new_user(data))).session.id
        first = await data.sessions.read_data(session_id)
        assert (first.values, first.version) == ({}, 0)
        written = await data.sessions.write_data(session_id, {"cart": [1]}, version=first.version)
        with pytest.raises(ChangedMeanwhileError):
            await data.sessions.write_data(session_id, {"cart": [2]}, version=first.version)
        assert await data.sessions.read_data(session_id) == written

    async def test_at_the_same_time_one_wins(self, data: DataLayer) -> None:
        session_id = (await data.sessions.create(await new_user(data))).session.id
        writes = (data.sessions.write_data(session_id, {"n": n}, version=0) for n in range(8))
        results = await asyncio.gather(*writes, return_exceptions=True)
        assert sorted(type(result).__name__ for result in results) == ["ChangedMeanwhileError"] * 7 + ["SessionData"]

    async def test_what_cannot_be_kept(self, data: DataLayer) -> None:
        session_id = (await data.sessions.create(await new_user(data))).session.id
        with pytest.raises(InvalidTextError):
            await data.sessions.write_data(session_id, {"a": "\0"}, version=0)
        with pytest.raises(InvalidValueError):
            await data.sessions.write_data(session_id, {"a": float("nan")}, version=0)
        await data.sessions.revoke(SYSTEM, session_id)
        for asking in (data.sessions.read_data(session_id), data.sessions.write_data(session_id, {}, version=0)):
            with pytest.raises(InvalidSessionError):
                await asking


class TestTheLimit:
    async def test_many_at_once_are_never_too_many(self, data: DataLayer, settings: Settings) -> None:
        user = await new_user(data)
        async with DataLayer(settings.replaced(session_limit=3)) as few:
            created = await asyncio.gather(*(few.sessions.create(user) for _ in range(24)))
            accepted = [new for new in created if await is_accepted(few, new)]
            assert len(accepted) == 3
            assert {session.id for session in await few.sessions.list(SYSTEM, user)} == {
                new.session.id for new in accepted
            }
        async with data.transaction() as tx:
            assert await tx.sessions.count(revoked_reason="limit_reached") == 21

    async def test_the_one_longest_without_use_ends(self, data: DataLayer, settings: Settings) -> None:
        user = await new_user(data)
        async with DataLayer(settings.replaced(session_limit=2)) as few:
            first, second = [await few.sessions.create(user) for _ in range(2)]
            await few.sessions.touch(first.session.id)
            third = await few.sessions.create(user)
            assert [await is_accepted(few, new) for new in (first, second, third)] == [True, False, True]


async def is_accepted(data: DataLayer, new: NewSession) -> bool:
    try:
        await data.sessions.validate(token_of(new))
    except InvalidSessionError:
        return False
    return True


class TestActivity:
    async def test_it_is_counted_and_written_at_the_end(self, data: DataLayer, settings: Settings) -> None:
        new = await data.sessions.create(await new_user(data))
        async with DataLayer(settings) as other:
            await asyncio.gather(*(other.sessions.validate(token_of(new)) for _ in range(50)))
            for _ in range(50):
                await other.sessions.validate_id(new.session.id)
            assert (await stored(data, new.session.id)).request_count == 0, "no write per request"
        row = await stored(data, new.session.id)
        assert row.request_count == 100
        assert row.last_active_at > row.created_at

    async def test_requests_of_several_processes_add_up(self, data: DataLayer, settings: Settings) -> None:
        new = await data.sessions.create(await new_user(data))

        async def use() -> None:
            async with DataLayer(settings) as other:
                for _ in range(20):
                    await other.sessions.validate(token_of(new))

        await asyncio.gather(use(), use(), use())
        assert (await stored(data, new.session.id)).request_count == 60

    async def test_a_caller_who_gives_up_disturbs_nobody(self, data: DataLayer) -> None:
        new = await data.sessions.create(await new_user(data))
        first, second = (asyncio.create_task(data.sessions.validate(token_of(new))) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        assert (await second).id == new.session.id
        with pytest.raises(asyncio.CancelledError):
            await first


class TestRemoval:
    async def test_in_small_steps(self, data: DataLayer) -> None:
        user = await new_user(data)
        old = [await data.sessions.create(user) for _ in range(5)]
        for new in old:
            await data.tokens.issue(new.session)
        kept = await data.sessions.create(user)
        async with data.transaction() as tx:
            ids = [new.session.id for new in old]
            await tx.execute(
                text("UPDATE sessions SET expires_at = now() - interval '1 day' WHERE id = ANY(:ids)").bindparams(
                    ids=ids
                )
            )
        async with data.transaction() as tx:
            before = (await tx.execute(text("SELECT now()"))).scalar_one()
            assert await tx.sessions.count_expired(before) == 5
            # A plan that PostgreSQL chooses by itself for some sizes of the table: the subquery within a nested loop.
            for other in ("hashjoin", "mergejoin", "hashagg", "sort", "material", "indexscan", "bitmapscan"):
                await tx.execute(text(f"SET LOCAL enable_{other} = off"))
            assert [await tx.sessions.remove_expired(before, limit=2) for _ in range(4)] == [2, 2, 1, 0]
            assert await tx.refresh_tokens.count() == 0, "they go with their session"
            assert await tx.sessions.count() == 1
            assert await tx.sessions.count_changes(before) == 5
            assert [await tx.sessions.remove_changes(before, limit=3) for _ in range(3)] == [3, 2, 0]
        assert await is_accepted(data, kept)


@pytest.mark.parametrize("attack", ["the copy of somebody else", "a changed copy"])
async def test_who_can_write_to_redis_becomes_nobody_else(data: DataLayer, settings: Settings, attack: str) -> None:
    with LogLines() as log:
        async with DataLayer(settings) as other:
            await other.sessions.validate(token_of(await data.sessions.create(await new_user(data))))
            victim, own = [await data.sessions.create(await new_user(data)) for _ in range(2)]
            for new in (victim, own):
                await data.sessions.validate(token_of(new))
            copies: dict[str, Any] = {}
            async for key in data.cache.keys("session-copy:*"):
                copies[key] = await data.cache.get(key)
            (key_of_victim,) = [key for key, copy in copies.items() if str(victim.session.id) in copy["content"]]
            (key_of_own,) = [key for key, copy in copies.items() if str(own.session.id) in copy["content"]]
            forged = dict(copies[key_of_victim])
            if attack == "a changed copy":
                content = copies[key_of_own]["content"].replace(str(own.session.user_id), str(victim.session.user_id))
                forged = copies[key_of_own] | {"content": content}
            await data.cache.set(key_of_own, forged, 60)
            assert (await other.sessions.validate(token_of(own))).user_id == own.session.user_id
    assert any("session_copy_refused" in line for line in log.lines), "the copy was looked at"
