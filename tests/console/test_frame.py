"""The frame of all pages: coming in, going out, errors, headers, languages, static files."""

from __future__ import annotations

import re
import runpy
from contextlib import aclosing
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from data_layer import DataLayer
from data_layer.entities.enums import UserRole
from data_layer.web.authentication import COOKIE
from tests.console.conftest import LOGIN, Visitor, browser, visit
from tests.services.accounts.support import PASSWORD, make_account


async def test_a_person_logs_in_comes_back_and_logs_out(data: DataLayer, app: FastAPI) -> None:
    await make_account(data, "ann@example.com")
    async with browser(app) as client:
        start = await client.get("/")
        assert (start.status_code, start.headers["location"]) == (307, "/console")
        asked = await client.get("/console/projects?view=trash")
        assert (asked.status_code, asked.headers["location"]) == (
            303,
            "/console/login?next=%2Fconsole%2Fprojects%3Fview%3Dtrash",
        )
        form = await client.get(asked.headers["location"])
        assert 'name="next" value="/console/projects?view=trash"' in form.text
        target = {"next": "/console/projects?view=trash"}
        wrong = await client.post(LOGIN, data={"email": "ann@example.com", "password": "wrong"} | target)
        assert wrong.status_code == 401
        assert "do not fit together" in wrong.text
        assert 'value="ann@example.com"' in wrong.text
        assert PASSWORD not in wrong.text
        right = await client.post(LOGIN, data={"email": "ann@example.com", "password": PASSWORD} | target)
        assert (right.status_code, right.headers["location"]) == (303, "/console/projects?view=trash")
        cookie = right.headers["set-cookie"]
        assert cookie.startswith(f"{COOKIE}=")
        assert all(each in cookie for each in ("HttpOnly", "Secure", "SameSite=lax", "Path=/"))
        assert (await client.get("/console/projects")).status_code == 200
        again = await client.get(LOGIN)
        assert (again.status_code, again.headers["location"]) == (303, "/console/projects")
        token = client.cookies[COOKIE]
        out = await client.post("/console/logout")
        assert out.headers["location"] == "/console/login?done=logged_out"
        client.cookies.set(COOKIE, token, domain="service")
        assert (await client.get("/console/projects")).status_code == 303


@pytest.mark.parametrize(
    "target",
    [
        "https://elsewhere.example/",
        "//elsewhere.example",
        "/\\elsewhere",
        "",
        "/a\nb",
        "/ü",
        "javascript:alert(1)",
        "/console/a b",
        "/" + "a" * 1024,
    ],
)
async def test_nobody_is_led_away_after_logging_in(data: DataLayer, app: FastAPI, target: str) -> None:
    await make_account(data, "ann@example.com")
    async with browser(app) as client:
        fields = {"email": "ann@example.com", "password": PASSWORD, "next": target}
        answer = await client.post(LOGIN, data=fields)
    assert answer.status_code == 303
    assert answer.headers["location"] == "/console/projects"


async def test_other_sites_send_nothing_for_a_person(app: FastAPI, ann: Visitor) -> None:
    project = (await ann.send("/console/projects", name="Shop")).partition("?")[0]
    for headers in ({"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"}):
        refused = await ann.client.post(f"{project}/delete", headers=headers)
        assert refused.status_code == 403
        assert "text/html" in refused.headers["content-type"]
        forged = await ann.client.post(LOGIN, data={"email": "a@b.example", "password": "x"}, headers=headers)
        assert forged.status_code == 403
        assert "set-cookie" not in forged.headers
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="https://service", cookies=ann.client.cookies) as client:
        assert (await client.post(f"{project}/delete", headers={"origin": "null"})).status_code == 403
    assert "Shop" in await ann.look("/console/projects")


async def test_errors_are_pages(data: DataLayer, ann: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = "/console/projects/01970000-0000-7000-8000-000000000000"
    for path in ("/console/nowhere", "/console/projects/x/page", "/console/static/x.css", f"{missing}/delete"):
        page = await ann.look(path, 404)
        assert "There is nothing here" in page
    assert ">Log out<" in re.sub(r"<svg.*?</svg>\s*", "", await ann.look("/console/nowhere", 404)), "and a way on"
    gone = await ann.client.post(f"{missing}/delete")
    assert (gone.status_code, "There is nothing here" in gone.text) == (404, True)
    for size in (70_000, 700_000):
        large = await ann.client.post("/console/projects", data={"name": "x" * size})
        assert large.status_code == 413
    other = await ann.client.post("/console/projects", json={"name": "x"})
    assert other.status_code == 415
    assert (await ann.client.get("/console/projects?after=nonsense")).status_code == 422

    async def crash(*_: object, **__: object) -> None:
        raise RuntimeError("secret inside")

    monkeypatch.setattr(type(data.projects), "list", crash)
    crashed = await ann.client.get("/console/projects")
    assert crashed.status_code == 500
    assert crashed.headers["x-request-id"] in crashed.text
    assert "secret inside" not in crashed.text


async def test_pages_may_load_nothing_from_elsewhere_and_run_no_script_of_a_text(ann: Visitor, app: FastAPI) -> None:
    async with browser(app) as nobody:
        answers = [
            await nobody.get(LOGIN),
            await ann.client.get("/console/projects"),
            await ann.client.get("/console/x"),
        ]
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert (answer.headers["cache-control"], answer.headers["x-content-type-options"]) == ("no-store", "nosniff")
        assert not re.search(r"<script(?![^>]* src=\"/console/static/)|\sstyle=|\son\w+=|<style", answer.text)
        assert not re.search(r"(?:src|href)=\"(?:https?:)?//", answer.text)


async def test_static_files_are_kept_for_a_year(app: FastAPI) -> None:
    async with browser(app) as client:
        page = (await client.get(LOGIN)).text
        (address,) = re.findall(r'href="(/console/static/console\.[0-9a-f]{16}\.css)"', page)
        answer = await client.get(address)
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert answer.headers["content-type"] == "text/css; charset=utf-8"
    assert "--accent" in answer.text


async def test_the_language_is_that_of_the_browser_or_the_chosen_one(app: FastAPI) -> None:
    async with browser(app) as client:
        english = await client.get(LOGIN, headers={"accept-language": "fr, en;q=0.5"})
        assert '<html lang="en">' in english.text
        german = await client.get(LOGIN, headers={"accept-language": "de-AT, en;q=0.5"})
        assert '<html lang="de">' in german.text
        assert "Anmelden" in german.text
        chosen = await client.post("/console/language", data={"language": "de", "back": LOGIN})
        assert chosen.headers["location"] == LOGIN
        assert "Anmelden" in (await client.get(LOGIN)).text
        unknown = await client.post("/console/language", data={"language": "../../x", "back": "//x.example"})
        assert (unknown.headers["location"], "set-cookie" in unknown.headers) == ("/console/projects", False)


def test_every_text_is_translated() -> None:
    """After a change: make translations, and write what is missing into the files."""
    tool = runpy.run_path(str(Path(__file__).parents[2] / "tools" / "update_translations.py"))
    wanted = {message.id for message in tool["extracted"]() if message.id}
    for path in tool["files"]():
        catalog = tool["read"](path)
        assert {message.id for message in catalog if message.id} == wanted, path
        for message in catalog:
            if message.id:
                strings = message.string if isinstance(message.string, tuple) else (message.string,)
                assert all(strings), f"{path}: {message.id}"
                assert not message.fuzzy
                assert not list(message.check(catalog)), f"{path}: {message.id}"


async def test_who_may_not_log_in_learns_why(data: DataLayer, app: FastAPI) -> None:
    ann = await visit(data, app, "ann")
    admin = await visit(data, app, "admin", UserRole.ADMIN)
    async with aclosing(ann.client), aclosing(admin.client), browser(app) as client:
        await data.accounts.deactivate(ann.actor, ann.id)
        fields = {"email": "ann@example.com", "password": PASSWORD}
        closed = await client.post(LOGIN, data=fields)
        assert "You have closed this account" in closed.text
        assert (await client.post(LOGIN, data=fields | {"reactivate": "yes"})).status_code == 303
        await data.accounts.suspend(admin.actor, ann.id, reason="spam")
        assert "This account is suspended" in (await client.post(LOGIN, data=fields)).text
        for _ in range(12):
            last = await client.post(LOGIN, data={"email": "x@example.com", "password": "wrong"})
        assert last.status_code == 429
        assert re.search(r"Try again in \d+ seconds", last.text)
