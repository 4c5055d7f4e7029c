"""Logging in by a certified issuer, as a browser does it."""

from __future__ import annotations

import asyncio
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from data_layer import DataLayer, Settings
from data_layer.config import ExaminedSettings
from data_layer.entities.enums import AuthProvider
from data_layer.layer.doctor import open_doctor
from data_layer.schemas.actors import SYSTEM
from data_layer.schemas.doctor import Finding, Outcome
from data_layer.web.authentication import COOKIE
from tests.services.accounts.support import PASSWORD, actions, make_account

from .issuer import ANN, Issuer, log_in_at

LOGIN, CALLBACK = "/v1/oidc/oidc/login", "/v1/oidc/oidc/callback"


async def begin(browser: httpx.AsyncClient, **query: str) -> str:
    """Where the button leads."""
    answer = await browser.get(LOGIN, params=query)
    assert answer.status_code == 303, answer.text
    return answer.headers["location"]


async def come_back(browser: httpx.AsyncClient, **query: str) -> str:
    """Where the issuer sends the browser back to, after somebody has logged in there."""
    return await asyncio.to_thread(log_in_at, await begin(browser, **query))


def code_of(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


async def test_a_person_logs_in_with_a_button(browser: httpx.AsyncClient, data: DataLayer) -> None:
    [button] = (await browser.get("/v1/oidc")).json()["providers"]
    assert button == {"name": "oidc", "label": "Single sign-on", "login_url": LOGIN}
    answer = await browser.get(LOGIN, params={"next": "/projects?page=2#top"})
    away = parse_qs(urlsplit(answer.headers["location"]).query)
    assert away["redirect_uri"] == ["https://service.example/v1/oidc/oidc/callback"]
    assert (away["code_challenge_method"], away["response_type"]) == (["S256"], ["code"])
    for part in ("Secure", "HttpOnly", "SameSite=lax", "Path=/", "Max-Age=600"):
        assert part in answer.headers["set-cookie"]
    assert answer.headers["set-cookie"].startswith("__Host-oidc-")
    assert away["nonce"][0] not in answer.headers["set-cookie"]

    back = await asyncio.to_thread(log_in_at, answer.headers["location"])
    done = await browser.get(back)
    assert done.status_code == 303, done.text
    assert (done.status_code, done.headers["location"]) == (303, "/projects?page=2#top")
    assert (done.headers["cache-control"], done.headers["referrer-policy"]) == ("no-store", "no-referrer")
    assert [cookie.name for cookie in browser.cookies.jar] == [COOKIE], "that of the login is gone"
    me = (await browser.get("/v1/accounts/me")).json()
    assert (me["email"], me["first_name"], me["auth_provider"]) == ("ann@example.com", "Ann", "oidc")
    assert me["email_verified"]
    assert {"user_register", "user_login", "session_create"} <= set(await actions(data))

    replayed = await browser.get(back)
    assert code_of(replayed) == (400, "login_invalid"), "its cookie is gone"
    assert (await browser.get(await come_back(browser))).headers["location"] == "/"
    assert (await data.accounts.find(SYSTEM, "ann@example.com")).login_count == 2
    # A Host header is anybody's; the redirect URI comes from PUBLIC_URL.
    elsewhere = await browser.get(LOGIN, headers={"host": "evil.example"})
    assert "evil.example" not in elsewhere.headers["location"]


async def test_what_is_not_of_this_browser_opens_nothing(browser: httpx.AsyncClient, data: DataLayer) -> None:
    stolen = await come_back(browser)
    cookies = dict(browser.cookies)
    browser.cookies.clear()
    assert code_of(await browser.get(stolen)) == (400, "login_invalid"), "another browser has no cookie"
    [(name, value)] = cookies.items()
    for wrong in (value[:-1] + ("0" if value[-1] != "0" else "1"), "x", value.replace(".", "A."), "." + value):
        answer = await browser.get(stolen, headers={"cookie": f"{name}={wrong}"})
        assert code_of(answer) == (400, "login_invalid"), wrong
    query = dict(parse.split("=", 1) for parse in urlsplit(stolen).query.split("&"))
    own = await come_back(browser)
    # The victim's browser is made to finish the login of somebody else, with that one's code.
    theirs = own.replace(dict(p.split("=", 1) for p in urlsplit(own).query.split("&"))["code"], query["code"])
    assert code_of(await browser.get(theirs)) == (400, "login_invalid"), "PKCE: the code is of another login"
    for state in ("", "x" * 43, "%00", "x" * 5000, "\N{SNOWMAN}"):
        answer = await browser.get(CALLBACK, params={"state": state, "code": query["code"]})
        assert answer.status_code in {400, 422}
    answer = await browser.get(own.replace("iss=http", "iss=https"))
    assert code_of(answer) == (400, "login_invalid"), "it says that it is of another issuer"
    assert code_of(await browser.get(own.replace("/oidc/callback", "/google/callback"))) == (404, "not_found")
    assert await data.accounts.list(SYSTEM) == []


async def test_a_code_is_used_once(browser: httpx.AsyncClient) -> None:
    back = await come_back(browser)
    cookies = dict(browser.cookies)
    assert (await browser.get(back)).status_code == 303
    browser.cookies.clear()
    browser.cookies.update(cookies)
    again = await browser.get(back)
    assert code_of(again) == (400, "login_invalid")
    assert "used before" in again.json()["detail"]


@pytest.mark.parametrize(
    "path",
    [
        "//evil.example",
        "https://evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "javascript:alert(1)",
        "",
        "x",
        "/a\nb",
        "/\t/evil.example",
        "/" + "a" * 2000,
        "/\N{SNOWMAN}",
        " /x",
    ],
)
async def test_next_is_a_path_of_this_host(browser: httpx.AsyncClient, path: str) -> None:
    answer = await browser.get(LOGIN, params={"next": path})
    assert code_of(answer) == (422, "invalid_value")
    assert not browser.cookies


async def test_refusals_and_failures_are_told_apart(
    browser: httpx.AsyncClient, data: DataLayer, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    issuer.steer(person=ANN | {"denies": True})
    assert code_of(await browser.get(await come_back(browser))) == (403, "login_denied")
    issuer.steer(person=ANN | {"email_verified": False})
    unverified = await browser.get(await come_back(browser))
    assert code_of(unverified) == (403, "identity_unverified")
    issuer.steer(person=ANN)
    back = await come_back(browser)
    issuer.steer(mode="down")
    down = await browser.get(back)
    assert (code_of(down), down.headers["retry-after"]) == ((503, "issuer_unavailable"), "5")
    assert "127.0.0.1" not in down.text
    issuer.steer(mode="silent")
    monkeypatch.setattr(data.openid._calls, "_time_limit", 0.2)
    assert code_of(await browser.get(back)) == (503, "issuer_unavailable"), "within OIDC_TIMEOUT"
    issuer.steer(mode="up")
    monkeypatch.undo()
    assert (await browser.get(back)).status_code == 303, "nothing was used up"
    ann = await data.accounts.find(SYSTEM, "ann@example.com")
    await data.accounts.suspend(SYSTEM, ann.id, reason="tests")
    assert code_of(await browser.get(await come_back(browser))) == (403, "account_suspended")
    assert code_of(await browser.get("/v1/oidc/github/login")) == (404, "not_found")


async def test_an_account_is_linked_where_both_sides_have_verified_the_address(
    browser: httpx.AsyncClient, data: DataLayer, issuer: Issuer
) -> None:
    ann = await make_account(data)
    await make_account(data, "bob@example.com", email_verified=False)
    assert (await browser.get(await come_back(browser))).status_code == 303
    assert (await browser.get("/v1/accounts/me")).json()["id"] == str(ann.id)
    assert (await data.accounts.find(SYSTEM, "ann@example.com")).auth_provider is AuthProvider.LOCAL
    assert (await data.accounts.authenticate("ann@example.com", PASSWORD)).id == ann.id
    issuer.steer(person=ANN | {"sub": "bob-1", "email": "bob@example.com"})
    refused = await browser.get(await come_back(browser))
    assert code_of(refused) == (403, "identity_unverified")
    assert "nobody has verified" in refused.json()["detail"]


async def test_two_tabs_at_the_first_visit_make_one_account(browser: httpx.AsyncClient, data: DataLayer) -> None:
    backs = [await come_back(browser) for _ in range(4)]
    answers = await asyncio.gather(*map(browser.get, backs))
    assert [answer.status_code for answer in answers] == [303] * 4
    assert len(await data.accounts.list(SYSTEM)) == 1


async def test_the_doctor_asks_the_issuer(settings: Settings, issuer: Issuer) -> None:
    async def findings() -> dict[str, Finding]:
        async with open_doctor(ExaminedSettings(settings), time_limit=5) as doctor:
            return {finding.check: finding async for finding in doctor.findings() if finding.part == "openid"}

    found = (await findings())["oidc"]
    assert found.outcome is Outcome.OK
    assert "register the redirect URI https://service.example/v1/oidc/oidc/callback" in str(found.meaning)
    issuer.steer(mode="down")
    found = (await findings())["oidc"]
    assert (found.outcome, "answered with the status 503" in str(found.meaning)) == (Outcome.FAILED, True)
