"""Identities that are linked and unlinked by people who are logged in, as a browser does it."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx

from data_layer import DataLayer
from data_layer.schemas.actors import SYSTEM, Actor
from data_layer.web.authentication import COOKIE
from tests.services.accounts.support import PASSWORD, actions, make_account

from .issuer import log_in_at
from .test_login import code_of, come_back

IDENTITIES = "/v1/accounts/me/identities"
BEGIN = f"{IDENTITIES}/oidc/link"


async def log_in(browser: httpx.AsyncClient, email: str) -> None:
    answer = await browser.post("/v1/sessions", json={"email": email, "password": PASSWORD, "cookie": True})
    assert answer.status_code == 201, answer.text


async def prove(browser: httpx.AsyncClient, **body: Any) -> str:
    """Where the issuer sends the browser back to, after somebody has begun to link an identity and proved it there."""
    begun = await browser.post(BEGIN, json={"password": PASSWORD} | body)
    assert begun.status_code == 200, begun.text
    assert begun.headers["set-cookie"].startswith("__Host-oidc-")
    return await asyncio.to_thread(log_in_at, begun.json()["url"])


async def test_an_identity_is_linked_used_and_unlinked(browser: httpx.AsyncClient, data: DataLayer) -> None:
    eve = await make_account(data, "eve@example.com")
    await log_in(browser, eve.email)
    token = browser.cookies[COOKIE]
    assert (await browser.get(IDENTITIES)).json() == {"has_password": True, "identities": []}
    assert code_of(await browser.post(BEGIN, json={})) == (422, "invalid_value")
    assert code_of(await browser.post(BEGIN, json={"password": "a wrong horse"})) == (401, "invalid_credentials")
    foreign = {"password": PASSWORD, "next": "//evil.example"}
    assert code_of(await browser.post(BEGIN, json=foreign)) == (422, "invalid_value")
    assert code_of(await browser.post(BEGIN, json={}, headers={"origin": "https://evil.example"}))[0] == 403
    unknown = await browser.post(f"{IDENTITIES}/github/link", json={"password": PASSWORD})
    assert code_of(unknown) == (404, "not_found")

    done = await browser.get(await prove(browser, next="/console/account"))
    assert (done.status_code, done.headers["location"]) == (303, "/console/account"), done.text
    assert dict(browser.cookies) == {COOKIE: token}, "the session goes on, and the cookie of linking is gone"
    [identity] = (await browser.get(IDENTITIES)).json()["identities"]
    assert (identity["provider"], identity["subject"]) == ("oidc", "ann-1")
    assert "user_update_profile" in await actions(data)

    browser.cookies.clear()
    assert (await browser.get(await come_back(browser))).status_code == 303
    assert (await browser.get("/v1/accounts/me")).json()["email"] == "eve@example.com", "her address does not matter"
    unlink = f"{IDENTITIES}/oidc/unlink"
    assert code_of(await browser.post(unlink, json={})) == (422, "invalid_value")
    left = await browser.post(unlink, json={"password": PASSWORD})
    assert (left.status_code, left.json()) == (200, {"has_password": True, "identities": []})
    assert code_of(await browser.post(unlink, json={"password": PASSWORD})) == (409, "conflict")


async def test_the_last_way_in_is_kept(browser: httpx.AsyncClient, data: DataLayer) -> None:
    await browser.get(await come_back(browser))
    listed = (await browser.get(IDENTITIES)).json()
    assert (listed["has_password"], len(listed["identities"])) == (False, 1)
    refused = await browser.post(f"{IDENTITIES}/oidc/unlink", json={})
    assert code_of(refused) == (409, "last_login_method")
    assert (await data.accounts.find(SYSTEM, "ann@example.com")).login_count == 1


async def test_nothing_is_linked_to_whoever_is_not_there_any_more(browser: httpx.AsyncClient, data: DataLayer) -> None:
    eve, bob = await make_account(data, "eve@example.com"), await make_account(data, "bob@example.com")
    await log_in(browser, eve.email)
    back = await prove(browser)
    linking = {name: value for name, value in browser.cookies.items() if name != COOKIE}
    assert (await browser.delete("/v1/sessions/current")).status_code == 204
    await log_in(browser, bob.email)
    assert code_of(await browser.get(back)) == (401, "session_invalid"), "the session of eve has ended"
    # Another browser has no cookie; a login that was begun is not taken for linking.
    async with httpx.AsyncClient(transport=browser._transport, base_url=browser.base_url) as another:
        assert code_of(await another.get(back)) == (400, "login_invalid")
        [(name, value)] = linking.items()
        cut = value.partition(".")[0]
        answer = await another.get(back, headers={"cookie": f"{name}={cut}.{'0' * 64}"})
        assert code_of(answer) == (400, "login_invalid")
    for user in (eve, bob):
        assert not (await data.accounts.list_identities(Actor.user(user.id), user.id)).identities

    # An identity of somebody else stays theirs.
    async with httpx.AsyncClient(transport=browser._transport, base_url=browser.base_url) as another:
        assert (await another.get(await come_back(another))).status_code == 303
    assert code_of(await browser.get(await prove(browser))) == (409, "duplicate")
