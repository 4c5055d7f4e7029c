"""Identities that are linked and unlinked by people who are logged in, as a browser does it."""

from __future__ import annotations

import asyncio
import re
from html import unescape
from typing import Any

import httpx
from sqlalchemy import text

from data_layer import DataLayer
from data_layer.schemas.actors import SYSTEM, Actor
from data_layer.server.faces import whole_application
from data_layer.web.authentication import COOKIE
from tests.services.accounts.support import PASSWORD, actions, make_account

from .issuer import PUBLIC_URL, log_in_at
from .test_login import code_of, come_back

IDENTITIES = "/v1/accounts/me/identities"
BEGIN = f"{IDENTITIES}/oidc/link"
CONSOLE = "/console/account/identities/oidc"


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


async def test_a_browser_gets_failures_as_pages(browser: httpx.AsyncClient, data: DataLayer) -> None:
    as_browser = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
    async with httpx.AsyncClient(transport=browser._transport, base_url=browser.base_url) as another:
        assert (await another.get(await come_back(another))).status_code == 303
    await make_account(data, "eve@example.com")
    await log_in(browser, "eve@example.com")
    token = browser.cookies[COOKIE]
    back = await prove(browser, next="/console/account?done=identity_linked&x=<b>")
    page = await browser.get(back, headers=as_browser)
    assert (page.status_code, page.headers["content-type"]) == (409, "text/html; charset=utf-8")
    assert "<h1>Linking did not work</h1>" in page.text
    assert re.search(r'<p role="alert">[A-Z][^<]{20,}</p>', page.text)
    assert '<a href="/console/account">Back</a>' in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert (page.headers["referrer-policy"], page.headers["cache-control"]) == ("no-referrer", "no-store")
    assert dict(browser.cookies) == {COOKIE: token}, "the cookie of linking is gone"

    again = await browser.get(back, headers=as_browser)
    assert (again.status_code, "<h1>Logging in did not work</h1>" in again.text) == (400, True)
    assert 'href="/console/account"' in again.text
    denied = (await come_back(browser)).replace("code=", "error=access_denied&was=")
    page = await browser.get(denied, headers=as_browser)
    assert (page.status_code, "<h1>Logging in did not work</h1>" in page.text) == (403, True)
    assert '<a href="/">Back</a>' in page.text


async def test_in_the_console(data: DataLayer) -> None:
    await make_account(data, "eve@example.com")
    transport = httpx.ASGITransport(whole_application(data), client=("192.0.2.1", 4711))
    async with httpx.AsyncClient(transport=transport, base_url=PUBLIC_URL) as eve:
        await eve.post("/console/login", data={"email": "eve@example.com", "password": PASSWORD})
        wrong = await eve.post(f"{CONSOLE}/link", data={"password": "a wrong horse"})
        assert (wrong.status_code, 'role="alert"' in wrong.text) == (422, True)
        assert (
            await eve.post("/console/account/identities/github/link", data={"password": PASSWORD})
        ).status_code == 404
        page = await eve.post(f"{CONSOLE}/link", data={"password": PASSWORD})
        assert page.status_code == 200, page.text
        [away] = re.findall(r'<a class="button primary" href="(http[^"]+)"', page.text)
        done = await eve.get(await asyncio.to_thread(log_in_at, unescape(away)))
        assert done.headers["location"] == "/console/account?done=identity_linked"
        page = await eve.get(done.headers["location"])
        assert "You can log in that way now" in page.text
        assert (f"{CONSOLE}/unlink" in page.text, f"{CONSOLE}/link" in page.text) == (True, False)

        # Without a password it is the last way in.
        async with data.transaction() as tx:
            await tx.execute(text("UPDATE users SET password_hash = NULL"))
        kept = await eve.post(f"{CONSOLE}/unlink", data={})
        assert (kept.status_code, "the only way to log in" in kept.text) == (422, True)
        async with data.transaction() as tx:
            await tx.execute(text("UPDATE users SET google_id = '1'"))
        gone = await eve.post(f"{CONSOLE}/unlink", data={})
        assert (gone.status_code, gone.headers["location"]) == (303, "/console/account?done=identity_unlinked")
