"""Failed logins slow down the next ones, and lock nobody out for good."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import Counter

import pytest
from sqlalchemy import text

from data_layer import DataLayer, Settings
from data_layer.errors import InvalidOneTimeTokenError, OverloadedError
from data_layer.schemas.actors import SYSTEM
from data_layer.services.accounts.one_time_tokens import make_token
from data_layer.services.accounts.passwords import PasswordHasher
from data_layer.services.accounts.throttle import LoginThrottle
from tests.services.accounts.support import (
    CAFE,
    ELSEWHERE,
    FIRST_WAIT,
    HOME,
    PASSWORD,
    actions,
    coming_from,
    make_account,
    pass_time,
    try_to_log_in,
)

ANN = "ann@example.com"


async def guess(data: DataLayer, times: int, *, email: str = ANN, ip_address: str = ELSEWHERE) -> Counter[str]:
    return Counter([await try_to_log_in(data, email, "guess", ip_address=ip_address) for _ in range(times)])


async def attack(data: DataLayer, networks: int, *, first: int = 0) -> Counter[str]:
    """Five guesses from each of many networks."""
    answers = Counter[str]()
    for number in range(first, first + networks):
        answers += await guess(data, 5, ip_address=f"2001:db8:{number:x}::1")
    return answers


@pytest.mark.parametrize("email", [ANN, "nobody@example.com"])
async def test_waiting_times_double_up_to_a_quarter_of_an_hour(data: DataLayer, email: str) -> None:
    """The same for an address that has no account."""
    await make_account(data)
    assert await guess(data, 5, email=email) == {"invalid_credentials": 5}
    waits = []
    for _ in range(12):
        assert await try_to_log_in(data, email, "guess", ip_address=ELSEWHERE) == "invalid_credentials"
        assert await try_to_log_in(data, email, "guess", ip_address=ELSEWHERE) == "too_many_attempts"
        waits.append(await longest_wait(data))
        await pass_time(data, waits[-1])
    assert waits[:5] == pytest.approx([30, 60, 120, 240, 480], abs=15)
    assert all(465 <= wait <= 900 for wait in waits[5:]), "as fast as failures are forgiven"


def test_waiting_begins_with_a_second() -> None:
    """The allowances that the fixture replaces."""
    found = subprocess.run(
        [sys.executable, "-c", "from data_layer.services.accounts.throttle import *; print(PAIR, NETWORK, ACCOUNT)"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert found.count("first_wait=1,") == 3


async def longest_wait(data: DataLayer) -> float:
    query = "SELECT max(extract(epoch FROM blocked_until - clock_timestamp())) FROM login_attempts"
    async with data.transaction() as tx:
        return float((await tx.execute(text(query))).scalar_one())


async def test_the_right_password_waits_too_and_then_gets_in(data: DataLayer) -> None:
    await make_account(data)
    await guess(data, 8, ip_address=HOME)
    assert await try_to_log_in(data, ANN, PASSWORD) == "too_many_attempts", "or waiting would be an oracle"
    await pass_time(data, FIRST_WAIT)
    assert await try_to_log_in(data, ANN, PASSWORD) == "in"
    assert await guess(data, 5, ip_address=HOME) == {"invalid_credentials": 5}, "the failures before are forgotten"


async def test_refused_attempts_make_nobody_wait_longer(data: DataLayer) -> None:
    await make_account(data)
    await guess(data, 6)
    assert await guess(data, 40) == {"too_many_attempts": 40}
    await pass_time(data, FIRST_WAIT)
    assert await guess(data, 1) == {"invalid_credentials": 1}


async def test_failures_are_forgiven_with_time(data: DataLayer) -> None:
    await make_account(data)
    await guess(data, 5)
    await pass_time(data, 3 * 600)
    assert await guess(data, 3) == {"invalid_credentials": 3}
    assert await guess(data, 3) == {"invalid_credentials": 1, "too_many_attempts": 2}


async def test_what_one_does_elsewhere_does_not_reach_the_owner(data: DataLayer) -> None:
    """From a single network an attacker cannot make the owner wait, however long it goes on, wherever the owner is."""
    await make_account(data)
    for hour in range(3):
        for _ in range(30):
            await guess(data, 1)
            await pass_time(data, 120)
        assert await try_to_log_in(data, ANN, PASSWORD, ip_address=f"192.0.2.{hour}") == "in"


async def test_a_botnet_is_slowed_down_but_does_not_lock_the_owner_out(data: DataLayer) -> None:
    await make_account(data)
    assert await try_to_log_in(data, ANN, PASSWORD, ip_address=HOME) == "in"
    answers = await attack(data, 20)
    assert answers["invalid_credentials"] <= 52
    assert await try_to_log_in(data, ANN, "guess", ip_address=CAFE) == "too_many_attempts", "an unknown network"
    assert await try_to_log_in(data, ANN, PASSWORD, ip_address=HOME) == "in", "a known one is not reached"
    assert (await attack(data, 5, first=100))["invalid_credentials"] <= 2, "and that login did not help the attacker"


async def test_resetting_the_password_lets_the_owner_in_from_anywhere(data: DataLayer) -> None:
    await make_account(data)
    await attack(data, 11)
    assert await try_to_log_in(data, ANN, PASSWORD, ip_address=CAFE) == "too_many_attempts"
    token = await data.accounts.request_password_reset(ANN)
    assert token
    await data.accounts.reset_password(token.token, "another horse and battery")
    assert await try_to_log_in(data, ANN, "another horse and battery", ip_address=CAFE) == "in"


async def test_an_administrator_can_end_the_waiting(data: DataLayer) -> None:
    user = await make_account(data)
    await guess(data, 8, ip_address=HOME)
    seen = await data.accounts.find(SYSTEM, ANN)
    assert seen.failed_login_count == 6
    assert seen.locked_until is not None
    await data.accounts.unlock(SYSTEM, user.id)
    assert await try_to_log_in(data, ANN, PASSWORD, ip_address=HOME) == "in"
    assert (await actions(data)).count("security_account_locked") == 1
    assert (await actions(data)).count("security_account_unlocked") == 1


async def test_one_password_on_many_accounts(data: DataLayer) -> None:
    answers = [await try_to_log_in(data, f"user{n}@example.com", "guess", ip_address=ELSEWHERE) for n in range(40)]
    assert Counter(answers)["invalid_credentials"] == 31
    assert await try_to_log_in(data, "user99@example.com", "guess", ip_address=HOME) == "invalid_credentials"


async def spray(data: DataLayer, *, ip_address: str) -> None:
    """Fill the level of a network."""
    for number in range(40):
        answer = await try_to_log_in(data, f"victim{number}@example.com", "guess", ip_address=ip_address)
    assert answer == "too_many_attempts"


async def test_an_attacker_locks_out_nobody_who_shares_the_address(data: DataLayer) -> None:
    """Ten others are behind the same NAT, or the same proxy that nobody trusts."""
    person = {"first_name": "I", "last_name": "N", "password": PASSWORD}
    regular, waiting, away = ([f"{kind}{number}@example.com" for number in range(3)] for kind in ("r", "w", "a"))
    for email in (*regular, *away):
        await make_account(data, email)
    for email in regular:
        assert await try_to_log_in(data, email, PASSWORD, ip_address=CAFE) == "in"
    with coming_from(CAFE):
        registered = [await data.accounts.register(email=email, **person) for email in waiting]
    await spray(data, ip_address=CAFE)

    for email in regular:  # Who was there before logs in.
        assert await try_to_log_in(data, email, PASSWORD, ip_address=CAFE) == "in"
    with coming_from(CAFE):
        # Who registered, or registers now, verifies and logs in.
        registered.append(await data.accounts.register(email="new@example.com", **person))
        for each in registered:
            await data.accounts.verify_email(each.verification.token, proof=each.proof)
    for email in (*waiting, "new@example.com"):
        assert await try_to_log_in(data, email, PASSWORD, ip_address=CAFE) == "in"
    for email in away:  # Who was never there resets the password, and logs in.
        assert await try_to_log_in(data, email, PASSWORD, ip_address=CAFE) == "too_many_attempts"
        with coming_from(CAFE):
            mailed = await data.accounts.request_password_reset(email)
            assert mailed
            await data.accounts.reset_password(mailed.token, f"{PASSWORD} 2")
        assert await try_to_log_in(data, email, f"{PASSWORD} 2", ip_address=CAFE) == "in"
    assert await try_to_log_in(data, "victim99@example.com", "guess", ip_address=CAFE) == "too_many_attempts"


async def test_a_network_is_known_to_the_account_that_showed_a_token_alone(data: DataLayer) -> None:
    await make_account(data)
    await make_account(data, "bob@example.com")
    mailed = await data.accounts.request_password_reset(ANN)
    assert mailed
    with coming_from(CAFE):
        await data.accounts.reset_password(mailed.token, f"{PASSWORD} 2")
        with pytest.raises(InvalidOneTimeTokenError):
            await data.accounts.reset_password(mailed.token, PASSWORD)
        wrong = make_token((await data.accounts.find(SYSTEM, "bob@example.com")).id)
        with pytest.raises(InvalidOneTimeTokenError):
            await data.accounts.verify_email(wrong)
    for email, ip_address, known in [
        (ANN, CAFE, True),
        (ANN.upper(), CAFE, True),
        (ANN, HOME, False),
        ("bob@example.com", CAFE, False),
        ("nobody@example.com", CAFE, False),
    ]:
        with coming_from(ip_address):
            assert await data.accounts.knows_network(email) is known, (email, ip_address)
    await pass_time(data, 90 * 86_400 + 1)
    with coming_from(CAFE):
        assert not await data.accounts.knows_network(ANN)


async def test_a_known_network_has_a_level_of_its_own(data: DataLayer) -> None:
    """To be known is no licence to guess."""
    await make_account(data)
    assert await try_to_log_in(data, ANN, PASSWORD, ip_address=CAFE) == "in"
    await spray(data, ip_address=CAFE)
    assert await guess(data, 8, ip_address=CAFE) == {"invalid_credentials": 6, "too_many_attempts": 2}


async def test_moving_inside_of_a_network_helps_nobody(data: DataLayer) -> None:
    addresses = [f"2001:db8:1:2::{number}" for number in range(8)]
    answers = [await try_to_log_in(data, ANN, "guess", ip_address=address) for address in addresses]
    assert Counter(answers) == {"invalid_credentials": 6, "too_many_attempts": 2}


async def test_callers_without_an_address_are_counted_too(data: DataLayer) -> None:
    await make_account(data)
    answers = []
    for _ in range(7):
        try:
            await data.accounts.authenticate(ANN, "guess")
        except Exception as error:  # noqa: BLE001  (its kind is what counts)
            answers.append(type(error).__name__)
    assert Counter(answers) == {"InvalidCredentialsError": 6, "TooManyAttemptsError": 1}


async def test_attempts_that_arrive_together_do_not_slip_through_together(settings: Settings, data: DataLayer) -> None:
    """Fifty at once, at two processes: as many passwords are compared as if they came one after the other."""
    await make_account(data)
    async with DataLayer(settings) as other:
        layers = [data, other] * 25
        before = data._opened.passwords.work + other._opened.passwords.work
        answers = Counter(await asyncio.gather(*(try_to_log_in(layer, ANN, "guess") for layer in layers)))
        compared = data._opened.passwords.work + other._opened.passwords.work - before
    assert answers == {"invalid_credentials": 6, "too_many_attempts": 44}
    assert compared == 6 * 2**4
    assert (await data.accounts.find(SYSTEM, ANN)).failed_login_count == 6
    assert (await actions(data)).count("security_login_failed") == 6


async def test_many_accounts_and_networks_at_once_never_wait_for_each_other_in_a_circle(data: DataLayer) -> None:
    for number in range(4):
        await make_account(data, f"user{number}@example.com")
    tries = [
        try_to_log_in(data, f"user{n % 4}@example.com", PASSWORD if n % 3 else "guess", ip_address=f"192.0.2.{n % 5}")
        for n in range(60)
    ]
    resets = [data.accounts.unlock(SYSTEM, user.id) for user in await data.accounts.list(SYSTEM)]
    answers = await asyncio.gather(*tries, *resets)
    assert {*answers} <= {"in", "invalid_credentials", "too_many_attempts", None}


async def test_levels_that_were_forgotten_are_locked_in_the_same_order(data: DataLayer) -> None:
    """Somebody unlocks the account while one attempt is given back and another one from there is counted."""
    throttle = LoginThrottle(b"a secret of the tests")
    async with data.transaction() as tx:
        admission = await throttle.admit(tx, ANN, HOME)
    async with data.transaction() as tx:
        await throttle.forget(tx, ANN)

    async def count_another() -> None:
        async with data.transaction() as tx:
            await throttle.admit(tx, ANN, HOME)

    async with data.transaction() as tx:
        await throttle.give_back(tx, admission)
        another = asyncio.create_task(count_another())
        await until_somebody_waits_for_a_lock(data)
        await throttle.succeed(tx, admission)
    await another


async def until_somebody_waits_for_a_lock(data: DataLayer) -> None:
    """Wait for a statement that the server has not granted a lock, in the database of this test."""

    async def look() -> None:
        count = text(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        while True:
            async with data.transaction() as tx:
                if (await tx.execute(count)).scalar_one():
                    return
            await asyncio.sleep(0.02)

    # In a task of its own: a transaction is open in this one.
    await asyncio.create_task(look())


async def test_an_attempt_that_could_not_be_decided_does_not_count(
    data: DataLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await make_account(data)

    async def overloaded(*_: object) -> bool:
        raise OverloadedError("tests")

    with monkeypatch.context() as patch:
        patch.setattr(PasswordHasher, "verify", overloaded)
        for _ in range(20):
            with coming_from(HOME), pytest.raises(OverloadedError):
                await data.accounts.authenticate(ANN, PASSWORD)
    assert await try_to_log_in(data, ANN, PASSWORD) == "in"


async def test_the_table_holds_no_addresses_and_does_not_grow_for_ever(data: DataLayer) -> None:
    await make_account(data)
    assert await try_to_log_in(data, ANN, PASSWORD, ip_address=HOME) == "in"
    await guess(data, 3)
    await guess(data, 3, email="nobody@example.com")

    async def count() -> int:
        async with data.transaction() as tx:
            return int((await tx.execute(text("SELECT count(*) FROM login_attempts"))).scalar_one())

    assert await count() == 7
    async with data.transaction() as tx:
        assert await tx.login_attempts.remove_stale() == 0
    await pass_time(data, 25 * 3600)
    async with data.transaction() as tx:
        assert await tx.login_attempts.remove_stale(limit=4) == 4
        assert await tx.login_attempts.remove_stale() == 2
    assert await count() == 1, "the network that the account knows"
    await pass_time(data, 91 * 24 * 3600)
    async with data.transaction() as tx:
        assert await tx.login_attempts.remove_stale() == 1
