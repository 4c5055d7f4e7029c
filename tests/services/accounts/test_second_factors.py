"""Second factors: what logging in asks for, what counts as an answer, and that each answer counts once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any
from uuid import UUID

import pyotp
import pytest
from sqlalchemy import text

from data_layer import DataLayer, Settings
from data_layer.entities import SecondFactor, User
from data_layer.entities.enums import UserRole
from data_layer.errors import (
    AccountInactiveError,
    AuthenticationError,
    ChangedMeanwhileError,
    DataLayerError,
    InvalidCredentialsError,
    InvalidLoginError,
    InvalidSecondFactorError,
    InvalidSessionError,
    InvalidValueError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    SecondFactorRequiredError,
    TooManyAttemptsError,
)
from data_layer.repositories.users import SecondFactorRepository, UserRepository
from data_layer.schemas.actors import SYSTEM
from data_layer.schemas.factors import FactorChallenge, FactorProof, NewTotp, PasskeyChallenge
from data_layer.schemas.users import UserFull
from data_layer.services.accounts import challenges
from data_layer.services.accounts.passkeys import PasskeySite
from data_layer.services.accounts.passwords import PasswordHasher
from tests.authenticator import Passkey
from tests.leaks import LogLines

from .support import ELSEWHERE, HOME, PASSWORD, acting, coming_from, make_account, trail

START = 1_800_000_015.0
"""In the middle of a time step of apps."""


class Clock:
    """Goes on by a millisecond each time that somebody looks at it, and else when a test says so."""

    def __init__(self) -> None:
        self.time = START

    def __call__(self) -> float:
        self.time += 0.001
        return self.time


CLOCK = Clock()


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    CLOCK.time = START
    monkeypatch.setattr(challenges, "now", CLOCK)


class App:
    """An authenticator app; ``shift`` lets its clock be some steps off."""

    def __init__(self, new: NewTotp) -> None:
        self._totp = pyotp.TOTP(new.secret.get_secret_value())

    def code(self, shift: int = 0) -> str:
        return self._totp.generate_otp(int(CLOCK.time) // 30 + shift)


@pytest.fixture
async def ann(data: DataLayer) -> UserFull:
    return await make_account(data)


@pytest.fixture
def passkey(settings: Settings) -> Passkey:
    return Passkey(origin=PasskeySite.of(settings.base_url, None, ()).origins[0])


async def add_app(data: DataLayer, user: UserFull) -> tuple[App, UUID, list[str]]:
    new = await data.accounts.begin_totp(acting(user), user.id, password=PASSWORD)
    app = App(new)
    added = await data.accounts.confirm_totp(acting(user), new.id, app.code(-1))
    return app, new.id, [code.get_secret_value() for code in added.recovery_codes]


async def add_passkey(data: DataLayer, user: UserFull, passkey: Passkey) -> UUID:
    begun = await data.accounts.begin_passkey(acting(user), user.id, password=PASSWORD)
    added = await data.accounts.add_passkey(
        acting(user),
        user.id,
        challenge=begun.challenge.get_secret_value(),
        answer=passkey.make(begun.options),
        name="Key",
    )
    return added.factor.id


async def challenge_of(data: DataLayer, **values: Any) -> FactorChallenge:
    """What logging in with the password asks for."""
    with pytest.raises(SecondFactorRequiredError) as raised:
        await data.accounts.log_in("ann@example.com", PASSWORD, **values)
    challenge: FactorChallenge = raised.value.challenge
    return challenge


async def finish(data: DataLayer, challenge: FactorChallenge, **proof: Any) -> str:
    """The code of the answer, or ``in``."""
    try:
        new = await data.accounts.finish_log_in(challenge.challenge.get_secret_value(), FactorProof(**proof))
    except AuthenticationError as error:
        return error.code
    await data.sessions.validate(new.token.get_secret_value())
    return "in"


async def test_an_app_from_adding_to_removing(data: DataLayer, ann: UserFull) -> None:
    with LogLines() as log:
        new = await data.accounts.begin_totp(acting(ann), ann.id, name="Phone", password=PASSWORD)
        app = App(new)
        assert new.uri.get_secret_value().startswith("otpauth://totp/")
        await data.accounts.log_in("ann@example.com", PASSWORD)  # It does not count yet.
        with pytest.raises(InvalidSecondFactorError):
            await data.accounts.confirm_totp(acting(ann), new.id, "000000")
        added = await data.accounts.confirm_totp(acting(ann), new.id, app.code(-1))
        assert len(added.recovery_codes) == 10
        challenge = await challenge_of(data)
        assert (challenge.methods, challenge.passkey) == (("totp", "recovery_code"), None)
        assert await finish(data, challenge, code=app.code(-1)) == "second_factor_invalid", "the code that confirmed it"
        assert await finish(data, challenge, code=app.code()) == "in"
        assert await finish(data, challenge, code=app.code()) == "second_factor_invalid", "a code works once"
        for log_in in (data.accounts.authenticate, data.accounts.log_in_for_tokens):
            with pytest.raises(SecondFactorRequiredError):
                await log_in("ann@example.com", PASSWORD)
        secret = challenge.challenge.get_secret_value()
        pair = await data.accounts.finish_log_in_for_tokens(secret, FactorProof(code=app.code(1)))
        assert (await data.tokens.verify(pair.access_token.get_secret_value())).user_id == ann.id
        [listed] = (await data.accounts.list_factors(acting(ann), ann.id)).factors
        assert (listed.id, listed.name, listed.last_used_at is None) == (new.id, "Phone", False)
        await data.accounts.remove_factor(acting(ann), new.id, password=PASSWORD)
        assert (await data.accounts.list_factors(acting(ann), ann.id)).recovery_codes_left == 0
        await data.accounts.log_in("ann@example.com", PASSWORD)
    entries = await trail(data)
    assert [entry.action for entry in entries if "factor" in entry.action] == ["user_add_factor", "user_remove_factor"]
    async with data.transaction() as tx:
        rows = (await tx.execute(text("SELECT action, to_jsonb(audit_logs)::text FROM audit_logs"))).all()
    hidden = [new.secret.get_secret_value(), secret, *(code.get_secret_value() for code in added.recovery_codes)]
    assert not [each for each in hidden if any(each in line for line in [*log.lines, str(rows)])]


async def test_the_secret_is_stored_encrypted(data: DataLayer, ann: UserFull) -> None:
    new = await data.accounts.begin_totp(acting(ann), ann.id, password=PASSWORD)
    async with data.transaction() as tx:
        [stored] = (await tx.execute(text("SELECT secret FROM second_factors"))).scalars()
    assert new.secret.get_secret_value().encode() not in bytes(stored)


async def test_one_code_opens_one_of_two_logins_at_once(data: DataLayer, ann: UserFull) -> None:
    app, _, _ = await add_app(data, ann)
    asked = [await challenge_of(data) for _ in range(4)]
    code = app.code()
    answers = await asyncio.gather(*(finish(data, challenge, code=code) for challenge in asked))
    assert sorted(answers) == ["in", *["second_factor_invalid"] * 3]


async def test_recovery_codes_work_once_each(data: DataLayer, ann: UserFull) -> None:
    _, _, codes = await add_app(data, ann)
    challenge = await challenge_of(data)
    assert await finish(data, challenge, recovery_code=codes[0].upper().replace("-", " ")) == "in"
    assert await finish(data, challenge, recovery_code=codes[0]) == "second_factor_invalid"
    bob = await make_account(data, "bob@example.com")
    _, _, of_bob = await add_app(data, bob)
    assert await finish(data, challenge, recovery_code=of_bob[0]) == "second_factor_invalid"
    assert (await data.accounts.list_factors(acting(ann), ann.id)).recovery_codes_left == 9
    renewed = await data.accounts.renew_recovery_codes(acting(ann), ann.id, password=PASSWORD)
    assert len(renewed) == 10
    assert await finish(data, await challenge_of(data), recovery_code=codes[1]) == "second_factor_invalid"
    assert await finish(data, await challenge_of(data), recovery_code=renewed[1].get_secret_value()) == "in"


@pytest.mark.parametrize("counts", [True, False])
async def test_a_passkey_answers_a_challenge_once(
    data: DataLayer, ann: UserFull, passkey: Passkey, *, counts: bool
) -> None:
    passkey.counts = counts
    await add_passkey(data, ann, passkey)
    first, second = await challenge_of(data), await challenge_of(data)
    assert first.methods == ("passkey", "recovery_code")
    assert first.passkey
    assert first.passkey["allowCredentials"][0]["id"] == passkey.answer(first.passkey)["id"]
    answer = passkey.answer(second.passkey)
    assert await finish(data, second, passkey=answer) == "in"
    assert await finish(data, second, passkey=answer) == "second_factor_invalid"
    assert await finish(data, second, passkey=passkey.answer(second.passkey)) == "second_factor_invalid"
    assert await finish(data, first, passkey=passkey.answer(first.passkey)) == "second_factor_invalid", "an older one"
    third = await challenge_of(data)
    assert await finish(data, third, passkey=passkey.answer(third.passkey)) == "in"


WRONG_ANSWERS: dict[str, Callable[[Passkey, FactorChallenge], dict[str, Any]]] = {
    "forged": lambda key, asked: key.answer(asked.passkey, is_forged=True),
    "another challenge": lambda key, asked: key.answer(asked.passkey, challenge="AAAA"),
    "another domain": lambda key, asked: key.answer(asked.passkey, rp_id="evil.example"),
    "another ceremony": lambda key, asked: key.answer(asked.passkey, type="webauthn.create"),
    "empty": lambda _key, _asked: {},
    "nonsense": lambda key, asked: key.answer(asked.passkey) | {"response": {"a": [1]}},
    "another key": lambda key, asked: key.answer(asked.passkey) | {"rawId": "AAAA", "id": "AAAA"},
    "huge": lambda key, asked: key.answer(asked.passkey) | {"a": "x" * 20_000},
}


async def test_answers_of_passkeys_that_are_not_right(data: DataLayer, ann: UserFull, passkey: Passkey) -> None:
    await add_passkey(data, ann, passkey)
    for place, (name, make) in enumerate(WRONG_ANSWERS.items()):
        asked = await challenge_of(data)
        with coming_from(f"203.0.113.{place}"):
            assert await finish(data, asked, passkey=make(passkey, asked)) == "second_factor_invalid", name
    with coming_from("203.0.113.99"):
        passkey.origin = "https://evil.example"
        asked = await challenge_of(data)
        assert await finish(data, asked, passkey=passkey.answer(asked.passkey)) == "second_factor_invalid"
    with coming_from("203.0.113.100"):
        begun = await data.accounts.begin_passkey(acting(ann), ann.id, password=PASSWORD)
        with pytest.raises(InvalidSecondFactorError):
            await data.accounts.add_passkey(
                acting(ann),
                ann.id,
                challenge=begun.challenge.get_secret_value(),
                answer=Passkey(origin="https://evil.example").make(begun.options),
            )


async def test_a_copied_passkey_is_noticed(data: DataLayer, ann: UserFull, passkey: Passkey) -> None:
    await add_passkey(data, ann, passkey)
    passkey.count = 10
    asked = await challenge_of(data)
    assert await finish(data, asked, passkey=passkey.answer(asked.passkey)) == "in"
    passkey.count = 5
    asked = await challenge_of(data)
    assert await finish(data, asked, passkey=passkey.answer(asked.passkey)) == "second_factor_invalid"


async def test_guessing_codes_has_to_wait_and_says_nothing_of_the_password(data: DataLayer, ann: UserFull) -> None:
    app, _, _ = await add_app(data, ann)
    with coming_from(ELSEWHERE):
        asked = await challenge_of(data)
        for _ in range(6):
            assert await finish(data, asked, code="000000") == "second_factor_invalid"
        assert await finish(data, asked, code=app.code()) == "too_many_attempts"
        with pytest.raises(TooManyAttemptsError):
            await data.accounts.log_in("ann@example.com", PASSWORD)
    with coming_from(HOME):
        assert await finish(data, await challenge_of(data), code=app.code()) == "in"
    failed = [entry for entry in await trail(data) if entry.action == "security_login_failed"]
    assert {entry.error_message for entry in failed} == {"second_factor_invalid"}


async def test_a_challenge_ends(data: DataLayer, ann: UserFull) -> None:
    app, _, codes = await add_app(data, ann)
    asked = await challenge_of(data)
    token = asked.challenge.get_secret_value()
    for wrong in (token[:-1] + ("0" if token[-1] != "0" else "1"), "x" + token, "", ".", "a.b", "\ud800", token * 9):
        with pytest.raises(InvalidLoginError):
            await data.accounts.finish_log_in(wrong, FactorProof(code=app.code()))
    confirmation = await data.accounts.begin_confirmation(acting(ann), ann.id)
    assert await finish(data, confirmation, code=app.code()) == "login_invalid", "made for something else"
    await data.accounts.change_password(acting(ann), ann.id, current=PASSWORD, new="another horse and battery")
    assert await finish(data, asked, code=app.code()) == "login_invalid", "the password that was right is gone"
    await data.accounts.change_password(acting(ann), ann.id, current="another horse and battery", new=PASSWORD)
    asked = await challenge_of(data)
    CLOCK.time += 301
    assert await finish(data, asked, recovery_code=codes[0]) == "login_invalid", "it took too long"


async def test_each_change_asks_once_more(data: DataLayer, ann: UserFull, passkey: Passkey) -> None:
    with pytest.raises(InvalidCredentialsError):
        await data.accounts.begin_totp(acting(ann), ann.id, password="wrong horse and battery")
    with pytest.raises(InvalidValueError, match="once more"):
        await data.accounts.begin_totp(acting(ann), ann.id)
    _app, app_id, codes = await add_app(data, ann)
    key_id = await add_passkey(data, ann, passkey)
    for proof in (FactorProof(code="000000"), FactorProof(recovery_code="aaaa"), FactorProof(passkey={})):
        with coming_from(f"203.0.113.{len(str(proof))}"), pytest.raises(InvalidSecondFactorError):
            await data.accounts.remove_factor(acting(ann), app_id, proof=proof)
    with pytest.raises(InvalidValueError):
        await data.accounts.remove_factor(acting(ann), app_id)
    with pytest.raises(InvalidValueError):
        await data.accounts.remove_factor(acting(ann), app_id, proof=FactorProof(code="1", recovery_code="2"))
    asked = await data.accounts.begin_confirmation(acting(ann), ann.id)
    await data.accounts.remove_factor(
        acting(ann),
        app_id,
        proof=FactorProof(passkey=passkey.answer(asked.passkey)),
        challenge=asked.challenge.get_secret_value(),
    )
    assert (await challenge_of(data)).methods == ("passkey", "recovery_code")
    await data.accounts.remove_factor(acting(ann), key_id, proof=FactorProof(recovery_code=codes[0]))
    await data.accounts.log_in("ann@example.com", PASSWORD)
    bob = await make_account(data, "bob@example.com")
    _, of_bob, _ = await add_app(data, bob)
    with pytest.raises(NotFoundError):
        await data.accounts.remove_factor(acting(ann), of_bob, password=PASSWORD)


def change_before_lock(monkeypatch: pytest.MonkeyPatch, data: DataLayer, statement: str) -> None:
    """Let somebody else change something right before the next lock of an account."""
    get, waiting = UserRepository.get, [statement]

    async def change() -> None:
        async with data.transaction() as tx:
            await tx.execute(text(waiting.pop()))

    async def get_later(self: UserRepository, entity_id: UUID, *, lock: bool = False) -> User:
        if lock and waiting:
            await asyncio.create_task(change())
        return await get(self, entity_id, lock=lock)

    monkeypatch.setattr(UserRepository, "get", get_later)


async def failures(data: DataLayer) -> int:
    return (await data.accounts.find(SYSTEM, "ann@example.com")).failed_login_count


async def test_an_account_without_a_password_adds_further_factors_with_one_that_it_has(
    data: DataLayer, passkey: Passkey
) -> None:
    eve = await make_account(data, "eve@example.com", password=None)
    me = acting(eve)
    first = await data.accounts.begin_totp(me, eve.id)
    app = App(first)
    added = await data.accounts.confirm_totp(me, first.id, app.code(-1))
    with pytest.raises(InvalidValueError, match="once more"):
        await data.accounts.begin_totp(me, eve.id)
    with pytest.raises(InvalidSecondFactorError):
        await data.accounts.begin_totp(me, eve.id, proof=FactorProof(code="000000"))
    second = await data.accounts.begin_totp(me, eve.id, name="Tablet", proof=FactorProof(code=app.code()))
    await data.accounts.confirm_totp(me, second.id, App(second).code())
    code = added.recovery_codes[0].get_secret_value()
    begun = await data.accounts.begin_passkey(me, eve.id, proof=FactorProof(recovery_code=code))
    made = passkey.make(begun.options)
    await data.accounts.add_passkey(me, eve.id, challenge=begun.challenge.get_secret_value(), answer=made)
    asked = await data.accounts.begin_confirmation(me, eve.id)
    proof, challenge = FactorProof(passkey=passkey.answer(asked.passkey)), asked.challenge.get_secret_value()
    assert await data.accounts.begin_passkey(me, eve.id, proof=proof, challenge=challenge)
    assert len((await data.accounts.list_factors(me, eve.id)).factors) == 3


async def test_a_confirmation_ends_with_the_password(data: DataLayer, ann: UserFull, passkey: Passkey) -> None:
    key_id = await add_passkey(data, ann, passkey)
    asked = await data.accounts.begin_confirmation(acting(ann), ann.id)
    await data.accounts.change_password(acting(ann), ann.id, current=PASSWORD, new="another horse and battery")
    proof, challenge = FactorProof(passkey=passkey.answer(asked.passkey)), asked.challenge.get_secret_value()
    with pytest.raises(InvalidLoginError):
        await data.accounts.remove_factor(acting(ann), key_id, proof=proof, challenge=challenge)
    bob = await make_account(data, "bob@example.com")
    bobs = Passkey(origin=passkey.origin)
    bobs_id = await add_passkey(data, bob, bobs)
    asked = await data.accounts.begin_confirmation(acting(ann), ann.id)
    with pytest.raises(InvalidLoginError):
        await data.accounts.remove_factor(
            acting(bob),
            bobs_id,
            proof=FactorProof(passkey=bobs.answer(asked.passkey)),
            challenge=asked.challenge.get_secret_value(),
        )


@pytest.mark.parametrize(
    "change", ["UPDATE users SET password_hash = 'another'", "UPDATE second_factors SET confirmed_at = now()"]
)
async def test_a_session_alone_is_enough_only_as_long_as_there_is_nothing_to_show(
    data: DataLayer, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    eve = await make_account(data, "eve@example.com", password=None)
    await data.accounts.begin_totp(acting(eve), eve.id)
    change_before_lock(monkeypatch, data, change)
    with pytest.raises(ChangedMeanwhileError):
        await data.accounts.begin_totp(acting(eve), eve.id, name="Of somebody else")


async def test_a_factor_that_is_added_while_somebody_logs_in_is_asked_for(
    data: DataLayer, ann: UserFull, monkeypatch: pytest.MonkeyPatch
) -> None:
    await data.accounts.begin_totp(acting(ann), ann.id, password=PASSWORD)
    change_before_lock(monkeypatch, data, "UPDATE second_factors SET confirmed_at = now()")
    assert (await challenge_of(data)).methods == ("totp", "recovery_code")


async def test_logging_in_looks_for_factors_once(
    data: DataLayer, ann: UserFull, monkeypatch: pytest.MonkeyPatch
) -> None:
    confirmed, looked = SecondFactorRepository.confirmed, list[UUID]()

    async def counted(self: SecondFactorRepository, user_id: UUID, *, lock: bool = False) -> Sequence[SecondFactor]:
        looked.append(user_id)
        return await confirmed(self, user_id, lock=lock)

    monkeypatch.setattr(SecondFactorRepository, "confirmed", counted)
    await data.accounts.log_in("ann@example.com", PASSWORD)
    assert looked == [ann.id]


async def test_wrong_codes_count_on_the_account_and_right_ones_do_not(data: DataLayer, ann: UserFull) -> None:
    app, factor_id, codes = await add_app(data, ann)
    assert await failures(data) == 0, "the right password, and the code that confirmed the app"
    wrong = FactorProof(code="000000")
    asked = await challenge_of(data)
    for _ in range(2):
        assert await finish(data, asked, code="000000") == "second_factor_invalid"
    for _ in range(3):
        with pytest.raises(InvalidSecondFactorError):
            await data.accounts.renew_recovery_codes(acting(ann), ann.id, proof=wrong)
    assert await failures(data) == 5
    await data.accounts.renew_recovery_codes(acting(ann), ann.id, proof=FactorProof(code=app.code()))
    assert await failures(data) == 5
    with pytest.raises(InvalidSecondFactorError):
        await data.accounts.remove_factor(acting(ann), factor_id, proof=FactorProof(recovery_code=codes[0]))
    assert (await data.accounts.find(SYSTEM, "ann@example.com")).locked_until is not None
    with pytest.raises(TooManyAttemptsError):
        await data.accounts.remove_factor(acting(ann), factor_id, proof=wrong)


async def test_what_says_nothing_of_the_proof_does_not_count(
    data: DataLayer, ann: UserFull, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, factor_id, codes = await add_app(data, ann)
    secret = (await challenge_of(data)).challenge.get_secret_value()
    for proof in (FactorProof(), FactorProof(code=app.code(), recovery_code=codes[0])):
        for _ in range(4):
            with pytest.raises(InvalidValueError):
                await data.accounts.finish_log_in(secret, proof)
            if proof.code:
                with pytest.raises(InvalidValueError):
                    await data.accounts.remove_factor(acting(ann), factor_id, proof=proof)
    hash_of = PasswordHasher.hash

    async def overloaded(_self: PasswordHasher, _password: str) -> str:
        raise OverloadedError("too many passwords wait")

    monkeypatch.setattr(PasswordHasher, "hash", overloaded)
    for _ in range(8):
        with pytest.raises(OverloadedError):
            await data.accounts.change_password(acting(ann), ann.id, current=PASSWORD, new="another horse and battery")
    monkeypatch.setattr(PasswordHasher, "hash", hash_of)
    for _ in range(8):
        with pytest.raises(NotFoundError):
            await data.accounts.confirm_totp(acting(ann), factor_id, app.code())  # It counts already.
    assert await failures(data) == 0
    assert await finish(data, await challenge_of(data), code=app.code()) == "in"


async def test_an_administrator_resets_what_somebody_has_lost(data: DataLayer, ann: UserFull) -> None:
    session = await data.accounts.log_in("ann@example.com", PASSWORD)
    await add_app(data, ann)
    moderator = acting(await make_account(data, "mod@example.com", role=UserRole.MODERATOR))
    with pytest.raises(PermissionDeniedError):
        await data.accounts.reset_factors(moderator, ann.id)
    root = acting(await make_account(data, "root@example.com", role=UserRole.ADMIN))
    assert await data.accounts.reset_factors(root, ann.id) == 1
    assert await data.accounts.reset_factors(SYSTEM, ann.id) == 0
    with pytest.raises(InvalidSessionError):
        await data.sessions.validate(session.token.get_secret_value())
    await data.accounts.log_in("ann@example.com", PASSWORD)
    async with data.transaction() as tx:
        assert (await tx.second_factors.count_codes(ann.id), await tx.second_factors.count()) == (0, 0)
    [entry] = [entry for entry in await trail(data) if entry.description == "Reset the second factors"]
    assert (entry.user_id, entry.resource_id) == (root.user_id, str(ann.id))


async def test_somebody_who_deactivated_the_account_has_it_back_with_both(data: DataLayer, ann: UserFull) -> None:
    app, _, _ = await add_app(data, ann)
    await data.accounts.deactivate(acting(ann), ann.id)
    with pytest.raises(AccountInactiveError):
        await data.accounts.log_in("ann@example.com", PASSWORD)
    asked = await challenge_of(data, reactivate=True)
    assert (await data.accounts.find(SYSTEM, "ann@example.com")).status == "inactive", "the password is not enough"
    assert await finish(data, asked, code=app.code()) == "in"


async def test_another_secret_of_sessions_reads_what_the_one_before_has_sealed(
    data: DataLayer, ann: UserFull, settings: Settings
) -> None:
    app, _, _ = await add_app(data, ann)
    old, new = settings.security.session_secret, "n" * 32

    async def code_is_right(shift: int, **secrets: Any) -> str:
        async with DataLayer(settings.replaced(**secrets)) as other:
            return await finish(other, await challenge_of(other), code=app.code(shift))

    assert await code_is_right(0, session_secret=new) == "second_factor_invalid"
    assert await code_is_right(0, session_secret=new, session_secret_previous=old) == "in"
    assert await code_is_right(1, session_secret=new) == "in", "using it has sealed it again"


async def test_deleting_the_account_is_confirmed_and_takes_all(data: DataLayer, ann: UserFull) -> None:
    app, _, _ = await add_app(data, ann)
    with pytest.raises(InvalidValueError, match="show the password"):
        await data.accounts.delete(acting(ann), ann.id)
    with pytest.raises(AuthenticationError):
        await data.accounts.delete(acting(ann), ann.id, password="a wrong horse")
    with pytest.raises(AuthenticationError):
        await data.accounts.delete(acting(ann), ann.id, proof=FactorProof(code="000000"))
    assert (await data.accounts.get(acting(ann), ann.id)).status == "active", "nothing was deleted"
    failed = [entry for entry in await trail(data) if entry.action == "security_login_failed"]
    assert len(failed) == 2
    await data.accounts.delete(acting(ann), ann.id, proof=FactorProof(code=app.code()))
    async with data.transaction() as tx:
        assert (await tx.second_factors.count_codes(ann.id), await tx.second_factors.count()) == (0, 0)


async def test_names_and_strangers(data: DataLayer, ann: UserFull) -> None:
    for name in ("", " ", "x" * 101):
        with pytest.raises(InvalidValueError) as raised:
            await data.accounts.begin_totp(acting(ann), ann.id, name=name, password=PASSWORD)
        assert raised.value.field == "name"
    bob = acting(await make_account(data, "bob@example.com"))
    for call in (data.accounts.begin_totp, data.accounts.begin_passkey, data.accounts.begin_confirmation):
        with pytest.raises(DataLayerError):
            await call(bob, ann.id)
    with pytest.raises(PermissionDeniedError):
        await data.accounts.list_factors(bob, ann.id)
    assert await data.accounts.list_factors(SYSTEM, ann.id)


def test_the_site_of_passkeys() -> None:
    others = ("https://app.example.com", "https://evil.example", "https://badexample.com")
    site = PasskeySite.of("https://data.example.com", "example.com", others)
    assert site == PasskeySite("example.com", ("https://data.example.com", "https://app.example.com"))
    assert PasskeySite.of("http://localhost:3000", None, ()).domain == "localhost"
    for address in ("http://127.0.0.1:3000", "http://[::1]:3000"):
        site = PasskeySite.of(address, None, ())
        assert site == PasskeySite("localhost", ("http://localhost:3000",)), "no browser makes one for an IP address"
    assert PasskeySite.of("http://127.0.0.1", None, ()).origins == ("http://localhost",)


async def test_a_passkey_that_verifies_its_owner_is_enough(data: DataLayer, ann: UserFull, passkey: Passkey) -> None:
    bob = await make_account(data, "bob@example.com")
    await add_passkey(data, bob, Passkey(origin=passkey.origin))
    await add_passkey(data, ann, passkey)
    _, _, codes = await add_app_and_codes(data, ann)

    async def alone(**proof: Any) -> str:
        begun = await data.accounts.begin_passkey_log_in()
        assert "allowCredentials" not in begun.options or not begun.options["allowCredentials"]
        assert begun.options["userVerification"] == "required"
        given = {name: value(begun.options) if callable(value) else value for name, value in proof.items()}
        return await finish(data, challenge_from(begun), **given)

    assert await alone(passkey=passkey.answer) == "in"
    for changes in ({"is_unverified": True}, {"is_forged": True}, {"user_handle": None}, {"user_handle": "AAAA"}):
        wrong = partial(passkey.answer, **changes)
        assert await alone(passkey=wrong) == "second_factor_invalid", changes
    assert await alone(passkey=Passkey(origin=passkey.origin).answer) == "second_factor_invalid"
    assert await alone(recovery_code=codes[0]) == "second_factor_invalid"
    assert await alone(code="000000") == "second_factor_invalid"
    begun = await data.accounts.begin_passkey_log_in()
    answer = passkey.answer(begun.options)
    assert await finish(data, challenge_from(begun), passkey=answer) == "in"
    assert await finish(data, challenge_from(begun), passkey=answer) == "second_factor_invalid", "it works once"
    # What asks for a second factor takes no answer to something else, and the other way round.
    needed = await challenge_of(data)
    begun = await data.accounts.begin_passkey_log_in()
    assert await finish(data, needed, passkey=passkey.answer(begun.options)) == "second_factor_invalid"
    assert await finish(data, challenge_from(begun), passkey=passkey.answer(needed.passkey)) == "second_factor_invalid"
    assert "Logged in with a passkey" in [entry.description for entry in await trail(data)]
    await data.accounts.deactivate(acting(ann), ann.id)
    assert await alone(passkey=passkey.answer) == "account_inactive"
    begun = await data.accounts.begin_passkey_log_in(reactivate=True)
    assert await finish(data, challenge_from(begun), passkey=passkey.answer(begun.options)) == "in"


async def add_app_and_codes(data: DataLayer, user: UserFull) -> tuple[App, UUID, list[str]]:
    """An app, and other recovery codes."""
    app, factor_id, _ = await add_app(data, user)
    codes = await data.accounts.renew_recovery_codes(acting(user), user.id, password=PASSWORD)
    return app, factor_id, [code.get_secret_value() for code in codes]


def challenge_from(begun: PasskeyChallenge) -> FactorChallenge:
    return FactorChallenge(challenge=begun.challenge, methods=("passkey",), passkey=begun.options, expires_in=300)
