"""After a long story no password and no token is to be found anywhere but with the person it belongs to."""

from __future__ import annotations

import logging

import pytest
from sqlalchemy import text

from data_layer import DataLayer, Settings
from data_layer.errors import DataLayerError
from data_layer.schemas.actors import SYSTEM
from data_layer.schemas.users import ExternalIdentity
from tests.leaks import LogLines, places_of
from tests.services.accounts.support import HOME, acting, coming_from, make_account, pass_time, try_to_log_in

FIRST, SECOND, THIRD, WRONG, TYPO = (
    "first-secret horse battery",
    "second-secret horse battery",
    "third-secret horse battery",
    "wrong-secret horse battery",
    "typed into the field of the address",
)


async def test_after_a_long_story(data: DataLayer, settings: Settings) -> None:
    talkative = settings.replaced(db_logging=True, log_level="debug")
    with LogLines() as log, coming_from(HOME, "Browser/1"):
        async with DataLayer(talkative) as talking:
            tokens = await do_everything(talking)
        assert await places_of(data, [FIRST, SECOND, THIRD, WRONG, TYPO, *tokens], log.lines) == []
    logged = "\n".join(log.lines)
    assert all(event in logged for event in ("login_failed", "login_delayed", "password_replaced", "UPDATE users"))


async def do_everything(data: DataLayer) -> list[str]:
    accounts = data.accounts
    registered = await accounts.register(email="ann@example.com", password=FIRST, first_name="Ann", last_name="Other")
    second_try = await accounts.request_registration(
        email="ann@example.com", password=WRONG, first_name="Eve", last_name="Other"
    )
    assert second_try.verification is None
    await pass_time(data, 400)
    second = await accounts.request_email_verification("ann@example.com")
    assert second
    choice = (await accounts.verify_email(second.token)).password_choice
    assert choice
    chosen = await accounts.request_password_reset("ann@example.com")
    assert chosen
    user = await accounts.reset_password(chosen.token, FIRST)
    for email, password in [("ann@example.com", WRONG), (TYPO, WRONG), ("ann@example.com", FIRST)]:
        await try_to_log_in(data, email, password)
    await accounts.change_password(acting(user), user.id, current=FIRST, new=SECOND)
    unused = await accounts.request_password_reset("ann@example.com")
    await pass_time(data, 400)
    reset = await accounts.request_password_reset("ann@example.com")
    assert unused
    assert reset
    await accounts.reset_password(reset.token, THIRD)
    await accounts.link(acting(user), user.id, ExternalIdentity(provider="github", subject="42"))
    for wrong in (registered.verification.token, reset.token, "nonsense"):
        with pytest.raises(DataLayerError) as caught:
            await accounts.reset_password(wrong, WRONG)
        assert wrong not in str(caught.value)
    for _ in range(7):
        await try_to_log_in(data, "ann@example.com", WRONG)
    waiting = await make_account(data, "bob@example.com", password=FIRST)
    pending = await accounts.request_password_reset("bob@example.com")
    assert pending
    await accounts.suspend(SYSTEM, waiting.id, reason="tests")
    tokens = (registered.verification, second, choice, chosen, unused, reset, pending)
    return [registered.proof, second_try.proof, *(token.token for token in tokens)]


async def test_the_search_would_find_one(data: DataLayer) -> None:
    """Plain or as a fast hash, in a row, in Redis, or in the log."""
    await make_account(data, display_name=FIRST)
    await data.cache.set("key", {"token": SECOND}, ttl=60)
    with LogLines() as log:
        async with data.transaction() as tx:
            await tx.execute(
                text("UPDATE users SET avatar = encode(sha256(:secret), 'hex')").bindparams(secret=THIRD.encode())
            )
        logging.getLogger("data_layer.tests").debug("with %s", WRONG)
    for secret, place in [(FIRST, "users"), (SECOND, "Redis"), (THIRD, "users"), (WRONG, "the log")]:
        assert any(found.startswith(place) for found in await places_of(data, [secret], log.lines))
