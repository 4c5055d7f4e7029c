"""Tokens of the issuer as bearer: what is believed, for how long, and what it costs."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from typing import Any

import httpx
import pytest
from fastapi import Request
from sqlalchemy import text

from data_layer import DataLayer
from data_layer.api.app import create_app
from data_layer.errors import ExpiredTokenError, PermissionDeniedError
from data_layer.schemas.actors import SYSTEM
from data_layer.web.authentication import Caller, reauthenticate
from tests.services.accounts.support import actions

from .issuer import Issuer, encoded, make_key, sign


async def ask(browser: httpx.AsyncClient, token: str, path: str = "/v1/accounts/me") -> httpx.Response:
    return await browser.get(path, headers={"authorization": f"Bearer {token}"})


async def code_of(browser: httpx.AsyncClient, token: str) -> tuple[int, str]:
    answer = await ask(browser, token)
    return answer.status_code, answer.json().get("code", "in")


def with_address(issuer: Issuer, **claims: Any) -> str:
    return issuer.token(email="ann@example.com", email_verified=True, **claims)


async def test_a_token_of_a_minute_is_enough(browser: httpx.AsyncClient, data: DataLayer, issuer: Issuer) -> None:
    tabs = await asyncio.gather(*(ask(browser, with_address(issuer, sid=str(tab))) for tab in range(5)))
    assert {tab.status_code for tab in tabs} == {200}
    [ann] = {tab.json()["id"] for tab in tabs}
    bare = issuer.token()
    assert (await ask(browser, bare)).json()["id"] == ann, "known by its subject: no address is needed any more"
    assert len(await data.accounts.list(SYSTEM)) == 1
    assert (await ask(browser, bare, "/v1/sessions")).json() == {"current": None, "sessions": []}
    refused = await browser.delete("/v1/sessions/current", headers={"authorization": f"Bearer {bare}"})
    assert (refused.status_code, refused.json()["code"]) == (403, "permission_denied")
    assert (await actions(data)).count("user_login") == 1, "a request is no login"
    issuer.steer()
    for _ in range(5):
        await ask(browser, bare)
    assert issuer.steer() == {}, "the issuer is not asked for each request"


async def test_only_what_was_made_for_us_is_believed(
    browser: httpx.AsyncClient, data: DataLayer, issuer: Issuer
) -> None:
    now = int(time.time())
    assert await code_of(browser, with_address(issuer)) == (200, "in")
    good = issuer.token()
    header, payload, signature = good.split(".")

    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    public = issuer.key.as_pem(private=False)
    wrong = {
        "another issuer": issuer.token(iss="https://other.example"),
        "expired": issuer.token(exp=now - 6),
        "not yet": issuer.token(nbf=now + 30),
        "made in the future": issuer.token(iat=now + 30),
        "for ever": issuer.token(without=("exp",)),
        "a text as time": issuer.token(exp="never"),
        "endless": issuer.token(exp=10**400),
        "another audience": issuer.token(aud="another"),
        "another audience among strangers": issuer.token(aud=["another", "third"]),
        "another party": issuer.token(azp="https://evil.example"),
        "no party": issuer.token(without=("azp",)),
        "an object as party": issuer.token(azp={"a": 1}),
        "nobody": issuer.token(without=("sub",)),
        "a number": issuer.token(sub=7),
        "NUL": issuer.token(sub="ann-1\0"),
        "a long name": issuer.token(sub="a" * 256),
        "bound to a key": issuer.token(cnf={"jkt": "x"}),
        "a logout token": issuer.token(header={"typ": "logout+jwt"}),
        "critical": issuer.token(header={"crit": ["exp"], "exp": 1}),
        "a stranger's key": issuer.token(key=make_key("stranger")),
        "a stranger's key of the same name": issuer.token(key=make_key("first")),
        "tampered": f"{header}.{encoded(claims | {'sub': 'bob'})}.{signature}",
        "none": f"{encoded({'alg': 'none'})}.{payload}.",
        "None": f"{encoded({'alg': 'None'})}.{payload}.{signature}",
        "no algorithm": f"{encoded({})}.{payload}.{signature}",
        "the public key as secret": issuer.token(key=public, header={"alg": "HS256"}),
        "the public key as another secret": issuer.token(key=public, header={"alg": "HS512"}),
        "an address of keys": issuer.token(key=make_key("x"), header={"jku": "https://evil.example/keys"}),
        "its own key": issuer.token(key=(own := make_key("y")), header={"jwk": own.as_dict(private=False)}),
        "an array": f"{encoded([1])}.{payload}.{signature}",
        "four parts": f"{good}.x",
        "nothing": "..",
        "large": f"{header}.{payload}.{'A' * 20_000}",
    }
    right = {
        "our audience": issuer.token(aud="data-layer"),
        "ours among others": issuer.token(aud=["data-layer", "other"]),
        "we are the party": issuer.token(azp="data-layer"),
        "a clock that is ahead": issuer.token(nbf=now + 4, iat=now + 4),
        "an access token": issuer.token(header={"typ": "at+jwt"}),
        "without the name of a key": sign({"alg": "RS256"}, claims, issuer.key),
    }
    # However long the requests take.
    data.openid._bearer._provider.verifier._clock = lambda: now  # type: ignore[union-attr]
    for name, token in wrong.items():
        status, code = await code_of(browser, token)
        assert (status, code) in {(401, "token_invalid"), (401, "token_expired")}, (name, status, code)
    for name, token in right.items():
        assert await code_of(browser, token) == (200, "in"), name
    # Signed last: what is written above may take longer than the leeway on a busy machine.
    behind = issuer.token(exp=int(time.time()) - 1)
    assert await code_of(browser, behind) == (200, "in"), "a clock that is behind"


async def test_keys_change(browser: httpx.AsyncClient, data: DataLayer, issuer: Issuer) -> None:
    assert await code_of(browser, with_address(issuer)) == (200, "in")
    old = issuer.token()
    assert await code_of(browser, old) == (200, "in")
    keys = data.openid._bearer._provider._keys  # type: ignore[union-attr]
    issuer.rotate("second")
    issuer.steer()
    # A key that nobody knows makes us ask, once for all, and not again at once.
    keys._tried_at = float("-inf")
    answers = await asyncio.gather(*(code_of(browser, issuer.token(sid=str(each))) for each in range(5)))
    assert set(answers) == {(200, "in")}
    strangers = [issuer.token(key=make_key("third"), sid=str(each)) for each in range(3)]
    assert {await code_of(browser, each) for each in strangers} == {(401, "token_invalid")}
    assert issuer.steer()["/jwks"] == 1
    assert await code_of(browser, old) == (401, "token_invalid"), "verified before, but its key is gone"
    issuer.steer(mode="down")
    keys._tried_at = keys._loaded_at = float("-inf")
    assert await code_of(browser, issuer.token(sid="x")) == (200, "in"), "known keys stay in force"


async def test_an_account_that_is_suspended_is_refused_soon(
    browser: httpx.AsyncClient, data: DataLayer, issuer: Issuer
) -> None:
    token = with_address(issuer)
    ann = (await ask(browser, token)).json()["id"]
    assert await code_of(browser, token) == (200, "in")

    async def refused_soon(*expected: tuple[int, str]) -> None:
        async with asyncio.timeout(20):
            while (answer := await code_of(browser, token)) == (200, "in"):
                await asyncio.sleep(0.02)
        assert answer in expected

    # By hand, so that no cache is told.
    async with data.transaction() as tx:
        await tx.execute(text("UPDATE users SET status = 'suspended'"))
    await refused_soon((403, "account_suspended"))
    async with data.transaction() as tx:
        await tx.execute(text("UPDATE users SET status = 'active'"))
    await data.cache.flush()
    assert await code_of(browser, token) == (200, "in")
    async with data.transaction() as tx:
        await tx.execute(text("DELETE FROM user_identities"))
    async with asyncio.timeout(20):
        while (await data.openid.authenticate(token)).user_id is not None:  # Linked again, by its verified address.
            async with data.transaction() as tx:
                if await tx.identities.count():
                    break
            await asyncio.sleep(0.02)
    assert (await ask(browser, token)).json()["id"] == ann


async def test_what_takes_long_outlives_the_token(
    data: DataLayer, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = with_address(issuer)
    caller = Caller(await data.openid.authenticate(token))
    scope = {"type": "http", "method": "GET", "headers": [(b"authorization", b"Bearer " + token.encode())]}
    request = Request(scope | {"app": create_app(data)})
    await reauthenticate(request, caller)
    bearer = data.openid._bearer
    assert bearer is not None
    monkeypatch.setattr(bearer._provider.verifier, "_clock", lambda: time.time() + 3600)
    with pytest.raises(ExpiredTokenError):
        await data.openid.authenticate(token)
    await reauthenticate(request, caller)
    await data.accounts.suspend(SYSTEM, caller.user_id, reason="tests")
    with pytest.raises(PermissionDeniedError):
        await reauthenticate(request, caller)


async def test_the_address_comes_from_somewhere_else(
    browser: httpx.AsyncClient, data: DataLayer, issuer: Issuer
) -> None:
    token = issuer.token()
    assert await code_of(browser, token) == (403, "identity_unverified"), "userinfo does not know this token"
    issuer.steer()
    assert await code_of(browser, token) == (403, "identity_unverified")
    assert issuer.steer() == {}, "a refusal holds for a while"
    assert await data.accounts.list(SYSTEM) == []
