"""The console in Chromium, as people use it: stories, hostile content, without JavaScript, axe on every page."""

from __future__ import annotations

import re
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from functools import cache
from itertools import cycle
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

import pytest
from fastapi import FastAPI
from playwright.async_api import Browser, BrowserContext, Page, Route, async_playwright, expect

from data_layer import DataLayer
from data_layer.entities.enums import UserRole
from data_layer.schemas.actors import SYSTEM, Actor
from data_layer.schemas.generations import CodePiece, FinishedVariant, GenerationRequest, VariantEvent, VariantModel
from data_layer.schemas.images import NewImage
from data_layer.schemas.projects import ProjectDraft
from data_layer.schemas.usage import NewUsage
from data_layer.schemas.users import ProfileChanges
from data_layer.server.http_server import HttpServer
from tests.file_content import picture
from tests.needs_debian import find_program
from tests.services.accounts.support import PASSWORD, make_account

pytestmark = [pytest.mark.needs_debian, pytest.mark.timeout(240)]

AXE = Path(sys.prefix, "axe", "node_modules", "axe-core", "axe.min.js")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage"]
ATTACK = (
    "<script>top.hacked=1</script><img src=x onerror='top.hacked=1'><svg onload='top.hacked=1'>'\"</title></textarea>"
)
expect.set_options(timeout=30_000)  # On a busy machine five seconds are not enough for a frame.
HIDDEN_IN_TABLES = """[...document.querySelectorAll(".stacks")]
    .filter(table => table.parentElement.scrollWidth > table.parentElement.clientWidth).map(table => table.outerHTML)"""
TOO_LONG = """[...document.querySelectorAll("main .button")]
    .filter(button => button.scrollWidth > button.clientWidth + 1).map(button => button.textContent.trim())"""
NARROW: dict[str, Any] = {"viewport": {"width": 360, "height": 740}}
PAGE = "<!doctype html><title>T</title><body><h1>NUMBER</h1><script>document.body.dataset.ran = 1</script>"


@cache
def source_of_axe() -> str:
    assert AXE.exists(), "run: sh tools/install_npm.sh .venv/bin/python axe"
    return AXE.read_text(encoding="utf-8")


@asynccontextmanager
async def served(app: FastAPI, listener: socket.socket | None = None) -> AsyncIterator[str]:
    """The address of the application."""
    with listener or socket.create_server(("127.0.0.1", 0)) as listening:
        server = HttpServer(app, listening, finish_seconds=1)
        server.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            await server.close()


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=find_program("chromium"), args=FLAGS)
        try:
            yield browser
        finally:
            await browser.close()


class Person:
    """Somebody in front of a browser; whatever the browser complains about is a fault."""

    def __init__(self, context: BrowserContext, page: Page, base: str) -> None:
        self.context, self.page, self.base = context, page, base
        self.faults: list[str] = []
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("console", lambda message: self.faults.append(message.text) if self.is_fault(message.text) else None)

    @staticmethod
    def is_fault(text: str) -> bool:
        return "Content Security Policy" in text or "Uncaught" in text

    async def go(self, path: str) -> None:
        await self.page.goto(f"{self.base}{path}", wait_until="domcontentloaded")

    async def log_in(self, email: str) -> None:
        await self.go("/console/login")
        await self.page.fill("#email", email)
        await self.page.fill("#password", PASSWORD)
        await self.page.click("button.primary")
        await self.page.wait_for_url("**/console/projects")

    async def inspect(self, *paths: str) -> None:
        """No page keeps anybody out, and none is wider than the narrowest screen; in both languages by turns."""
        for path, language in zip(paths, cycle(("de", "en"))):
            await self.context.set_extra_http_headers({"accept-language": language})
            await self.go(path)
            await self.inspect_this(path)
        await self.context.set_extra_http_headers({})

    async def inspect_this(self, name: str | None = None) -> None:
        """The same of what the page shows now, in light and dark, which differ in nothing but colours."""
        width = await self.page.evaluate("document.documentElement.scrollWidth")
        assert width <= 360, f"{name or self.page.url} is {width} pixels wide"
        hidden = await self.page.evaluate(HIDDEN_IN_TABLES)
        assert hidden == [], f"{name or self.page.url}: the table must be scrolled to see all of it"
        await self.page.evaluate(source_of_axe())
        schemes: tuple[tuple[Literal["light", "dark"], dict[str, object]], ...] = (
            ("light", {}),
            ("dark", {"runOnly": ["color-contrast", "link-in-text-block"]}),
        )
        for scheme, rules in schemes:
            await self.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # Colours change at once then.
            options = {"iframes": False, "resultTypes": ["violations"], **rules}
            found = await self.page.evaluate("options => axe.run(document, options)", options)
            faults = [(each["id"], [node["html"][:200] for node in each["nodes"]]) for each in found["violations"]]
            assert faults == [], f"{name or self.page.url}, {scheme}"

    async def inspect_account(self) -> None:
        """What an account shows once only: a key."""
        await self.go("/console/account/keys")
        await self.page.fill("#name", "Laptop")
        await self.page.get_by_role("button", name="Make a key").click()
        await expect(self.page.locator("#secret")).to_be_visible()
        await self.inspect_this("a new key")


@asynccontextmanager
async def person(browser: Browser, base: str, **options: object) -> AsyncIterator[Person]:
    chosen: dict[str, Any] = {"locale": "en-GB", **options}
    async with await browser.new_context(**chosen) as context:
        somebody = Person(context, await context.new_page(), base)
        yield somebody
        assert somebody.faults == []


async def make_versions(data: DataLayer, owner: Actor, name: str) -> str:
    """A project with a screenshot, two versions and what happened in a third."""
    project = await data.projects.create(owner, ProjectDraft(name=name, description=name), screenshot=picture("PNG"))
    parent: UUID | None = None
    for number in (1, 2):
        request = GenerationRequest(prompt=name, parent_id=parent)
        code = PAGE.replace("NUMBER", f"Version {number}")
        done = await data.generations.record(owner, project.id, request, [FinishedVariant(code=code)])
        parent = done.variant_ids[0]
    started = await data.generations.start(owner, project.id, GenerationRequest(parent_id=parent), [VariantModel()])
    await data.generations.append(
        owner, started.writer_token, 0, 1, VariantEvent("thinking", {"text": name}), CodePiece(PAGE)
    )
    await data.generations.complete(owner, started.writer_token, 0)
    return f"/console/projects/{project.id}"


@pytest.mark.slow
async def test_people_in_front_of_a_browser(data: DataLayer, app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    """One browser for all of it: to start one takes longer than most of this."""
    source_of_axe()
    async with served(app) as base, data.figure_history.recording(), chromium() as browser:
        monkeypatch.setattr(data, "settings", data.settings.replaced(public_url=base))  # For the links of shares.
        await begin(data, browser, base)
        ann = await make_account(data, "ann@example.com")
        await make_account(data, "admin@example.com", role=UserRole.ADMIN)
        owner = Actor.user(ann.id)
        project = await make_versions(data, owner, "Larkspur")
        await data.usage.record(owner, NewUsage(key="k", provider="p", model="m", cost=Decimal("1.25")))
        await tell_the_story(browser, base, project)
        await read_without_scripts(browser, base, project)
        hostile = await make_versions(data, owner, ATTACK)
        await meet_hostile_content(data, browser, base, hostile, owner)
        await inspect_every_page(browser, base, project, hostile, str(ann.id))
        await follow_live(data, browser, base, project, owner)
        await replay_how_it_grew(browser, base, project)
        await administrate(browser, base)
    assert (await data.accounts.find(SYSTEM, "ann@example.com")).role is UserRole.MODERATOR


async def begin(data: DataLayer, browser: Browser, base: str) -> None:
    """The first start: nobody is there, and the person who started the service makes the first account and project."""
    code = await data.first_administrator.offer()
    assert code
    async with person(browser, base, **NARROW, color_scheme="dark") as boss:
        page = boss.page
        await boss.go("/console")
        await page.get_by_role("link", name="Set one up").click()
        await boss.inspect_this("the first start")
        for field, value in {
            "code": "AAAAA",
            "email": "boss@example.com",
            "first_name": "Ada",
            "last_name": "B",
        }.items():
            await page.fill(f"#{field}", value)
        await page.fill("#password", PASSWORD)
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("alert")).to_contain_text("not valid")
        await boss.inspect_this("a wrong code")
        await page.fill("#code", code)
        await page.fill("#password", PASSWORD)
        await page.keyboard.press("Enter")
        await page.wait_for_url("**/console/projects")
        await boss.inspect_this("no project yet")
        await page.get_by_role("link", name="New project").first.click()
        await expect(page.locator("#name")).to_be_focused()
        await page.keyboard.type("Heron")
        await page.keyboard.press("Enter")
        await expect(page.locator("h1")).to_have_text("Heron")
        await boss.inspect_this("a project without a version")
        # The application makes the versions; here they are compared, restored and shared.
        actor, project_id = await first_project(data)
        parent: UUID | None = None
        for number in (1, 2):
            request = GenerationRequest(prompt=f"Make {number}", parent_id=parent)
            code_ = PAGE.replace("NUMBER", f"Version {number}")
            done = await data.generations.record(actor, project_id, request, [FinishedVariant(code=code_)])
            parent = done.variant_ids[0]
        await page.reload()
        await page.get_by_role("link", name="Compare").click()
        await expect(page.locator("td.added mark").first).to_have_text("2")
        await boss.go(f"/console/projects/{project_id}?v=1")
        await page.get_by_role("button", name="Restore this version").click()
        await expect(page.frame_locator("iframe.live").locator("h1")).to_have_text("Version 1")
        await page.get_by_role("link", name="Share").click()
        await page.get_by_role("button", name="Make a link").click()
        await boss.inspect_this("a new link")
        link = await page.locator("#link").input_value()
        async with await browser.new_context() as stranger:
            shared = await stranger.new_page()
            await shared.goto(link)
            await expect(shared.locator("h1")).to_have_text("Version 1")
        await revoke(boss)


async def revoke(boss: Person) -> None:
    """End a link, after thinking better of it once; it is asked for by a page, so also without JavaScript."""
    page = boss.page
    for answer in (page.get_by_role("link", name="No, go back"), page.get_by_role("button", name="Revoke")):
        await expect(page.get_by_role("heading", name="Links")).to_be_visible()
        await page.get_by_role("button", name="Revoke").click()
        await expect(page.locator("h1")).to_have_text("End this link for good?")
        await boss.inspect_this("a question")
        await answer.click()
    await expect(page.get_by_role("status")).to_contain_text("shows nothing")
    await boss.inspect_this("a link that was revoked")


async def first_project(data: DataLayer) -> tuple[Actor, UUID]:
    """The person who made it, and its id."""
    (boss,) = await data.accounts.list(SYSTEM, role=UserRole.ADMIN)
    actor = Actor.user(boss.id, UserRole.ADMIN)
    (project,) = (await data.projects.list(actor)).projects
    return actor, project.id


async def tell_the_story(browser: Browser, base: str, project: str) -> None:
    """From logging in to a shared, compared and restored project."""
    async with person(browser, base) as ann:
        page = ann.page
        await ann.log_in("ann@example.com")
        await page.fill("#q", "larkspur")
        await expect(page.locator("#results mark").first).to_have_text("Larkspur")
        await page.click("h2 a")
        await page.wait_for_url(f"**{project}")
        frame = page.frame_locator("iframe.live")
        await expect(frame.locator("h1")).to_have_text("NUMBER")
        await expect(frame.locator("body")).to_have_attribute("data-ran", "1")
        await page.get_by_text("Phone").click()
        await expect(page.locator("iframe.live")).to_have_css("width", "390px")
        await ann.go(f"{project}/compare?v=2&i=0")
        await expect(page.locator("td.added mark").first).to_have_text("2")
        await page.get_by_role("link", name="Pages", exact=True).click()
        await page.locator("#cut").fill("20")
        assert await page.evaluate("document.querySelector('.overlaid').style.getPropertyValue('--cut')") == "20%"
        await ann.go(f"{project}?v=1")
        await page.get_by_role("button", name="Restore this version").click()
        await expect(page.get_by_role("status")).to_contain_text("the last one again")
        await expect(page.frame_locator("iframe.live").locator("h1")).to_have_text("Version 1")
        await page.get_by_role("link", name="Share").click()
        await page.get_by_role("button", name="Make a link").click()
        link = await page.locator("#link").input_value()
        async with await browser.new_context() as stranger:
            shared = await stranger.new_page()
            await shared.goto(link)
            await expect(shared.locator("h1")).to_have_text("Version 1")
        await ann.go("/console/projects")
        await page.locator("details.menu summary[aria-label^=Actions]").first.click()
        await page.get_by_role("button", name="Move to the trash").click()
        await page.get_by_role("button", name="Undo").click()
        await expect(page.get_by_role("status")).to_contain_text("back from the trash")
        await page.wait_for_load_state()  # The script that listens runs after the text is there.
        await page.keyboard.press("/")
        await expect(page.locator("#q")).to_be_focused()


async def read_without_scripts(browser: Browser, base: str, project: str) -> None:
    async with person(browser, base, java_script_enabled=False) as ann:
        await ann.log_in("ann@example.com")
        for path, text in (
            ("/console/projects?q=larkspur", "Larkspur"),
            (f"{project}/code?v=1", "Version 1"),
            (f"{project}/compare?v=2&i=0", "compared with"),
            (f"{project}/replay?v=3", "Thoughts"),
            (f"{project}/replay?v=3", "1 step"),
            ("/console/account/usage", "The last 30 days"),
        ):
            await ann.go(path)
            await expect(ann.page.locator("main")).to_contain_text(text)
    async with person(browser, base, java_script_enabled=False) as admin:
        await admin.log_in("admin@example.com")
        await admin.go("/console/admin/system")
        await expect(admin.page.locator(".spark .line").first).to_be_visible()
        await admin.page.get_by_text("The last half hour as a table").click()
        await expect(admin.page.locator(".minutes tbody tr").first).to_contain_text("MiB")
        await admin.go("/console/admin/doctor")
        await expect(admin.page.locator("#part-database")).to_be_visible()


async def meet_hostile_content(data: DataLayer, browser: Browser, base: str, hostile: str, owner: Actor) -> None:
    """Names, prompts and what a model said are text everywhere, and the page is alone in its frame."""
    assert owner.user_id
    project_id, name = UUID(hostile.rpartition("/")[2]), ATTACK[:100]
    await data.images.record(owner, project_id, NewImage(prompt=ATTACK, name=name, model=name), picture("PNG"))
    await data.accounts.update_profile(owner, owner.user_id, ProfileChanges(first_name=name, display_name=name))
    await data.usage.record(owner, NewUsage(key="hostile", provider=name, model=name, cost=Decimal(1)))
    of_project = (
        "",
        "?v=1",
        "/code?v=2",
        "/compare?v=2&i=0",
        "/compare?view=inline",
        "/replay?v=3",
        "/images",
        "/settings",
        "/shares",
    )
    own = ("/console/projects", "/console/projects?q=hacked", "/console/account", "/console/account/usage")
    async with person(browser, base) as ann:
        await ann.log_in("ann@example.com")
        await see_no_attack(ann, *own, *(f"{hostile}{part}" for part in of_project))
        await ann.go(hostile)
        assert ATTACK in await ann.page.locator("h1").inner_text()
        inside = ann.page.frames[1]
        assert await inside.evaluate("self.origin") == "null"
        with pytest.raises(Exception, match="SecurityError"):
            await inside.evaluate("document.cookie")
    admin = ("people", f"people/{owner.user_id}", "audit", "usage", "files", "system", "doctor", "maintenance")
    async with person(browser, base) as boss:
        await boss.log_in("admin@example.com")
        await see_no_attack(boss, *(f"/console/admin/{part}" for part in admin))
        await boss.go("/console/admin/people")
        await expect(boss.page.locator("main")).to_contain_text(name)
    await data.accounts.update_profile(owner, owner.user_id, ProfileChanges(first_name="Ann", display_name=None))


async def see_no_attack(somebody: Person, *paths: str) -> None:
    for path in paths:
        await somebody.go(path)
        await somebody.page.wait_for_timeout(50)
        assert await somebody.page.evaluate("window.hacked === undefined"), path


async def inspect_every_page(browser: Browser, base: str, project: str, hostile: str, person_id: str) -> None:
    of_project = ("", "?v=1", "/code", "/compare", "/compare?view=inline", "/compare?view=pages", "/replay", "/images")
    own = ("", "?view=trash", "?q=nothing", "/new")
    paths = [f"/console/projects{part}" for part in own]
    paths += [f"{project}{part}" for part in (*of_project, "/shares", "/settings")]
    paths += [f"/console/account{part}" for part in ("", "/usage", "/factors", "/keys")]
    admin = ("people", f"people/{person_id}", "audit", "usage", "files", "system", "doctor", "maintenance")
    paths += [*(f"/console/admin/{part}" for part in admin), hostile, "/console/nowhere"]
    async with person(browser, base, **NARROW) as ann:
        await ann.inspect("/console/login")
        await ann.log_in("ann@example.com")
        await ann.inspect(*(path for path in paths if "/admin/" not in path))
        await ann.inspect("/console/admin/people")  # Refused.
        await ann.inspect_account()
    async with person(browser, base, **NARROW) as admin_:
        await admin_.log_in("admin@example.com")
        await admin_.inspect(*(path for path in paths if "/admin/" in path))
        await admin_.inspect("/console/admin/audit?follow=true", "/console/admin/people?q=nobody")
        for path, form in (("files", "files/check"), ("files", "files/cleanup"), ("maintenance", "maintenance")):
            await admin_.go(f"/console/admin/{path}")
            await admin_.page.locator(f"form[action='/console/admin/{form}'] button").first.click()
            await expect(admin_.page.locator(".progress dl")).to_be_visible()
            await admin_.inspect_this(form)
    async with person(browser, base, locale="de-DE") as boss:
        await boss.log_in("admin@example.com")
        await see_that_words_fit(boss, *(path for path in paths if "/projects/" not in path))


async def see_that_words_fit(somebody: Person, *paths: str) -> None:
    """German words are longer than English ones, for which the pages were made."""
    for path in paths:
        await somebody.go(path)
        for width in (360, 1280):
            await somebody.page.set_viewport_size({"width": width, "height": 800})
            assert await somebody.page.evaluate("document.documentElement.scrollWidth") <= width, path
            assert await somebody.page.evaluate(TOO_LONG) == [], path


async def follow_live(data: DataLayer, browser: Browser, base: str, project: str, owner: Actor) -> None:
    """A running generation is seen while it is written; what it sends is text."""
    project_id = UUID(project.rpartition("/")[2])
    started = await data.generations.start(owner, project_id, GenerationRequest(prompt="More"), [VariantModel()])
    async with person(browser, base) as ann:
        await ann.log_in("ann@example.com")
        failures = iter(["connectionreset"])

        async def break_once(route: Route) -> None:
            failure = next(failures, None)
            await (route.abort(failure) if failure else route.continue_())

        await ann.page.route("**/events", break_once)
        await ann.go(f"{project}/replay")
        status = ann.page.locator(".live-status")
        await expect(status).to_have_text("The connection is lost; it is tried again.", timeout=15_000)
        await expect(status).to_have_text("This version is being made.", timeout=15_000)
        token = started.writer_token
        await data.generations.append(owner, token, 0, 1, CodePiece("<h1>L\N{SNOWMAN}\N{GRINNING FACE}"))
        await expect(ann.page.locator(".tail")).to_have_text("<h1>L\N{SNOWMAN}\N{GRINNING FACE}", timeout=15_000)
        await data.generations.append(
            owner, token, 0, 2, CodePiece("ive</h1>"), VariantEvent("thinking", {"text": ATTACK})
        )
        await expect(ann.page.locator(".tail")).to_have_text(
            "<h1>L\N{SNOWMAN}\N{GRINNING FACE}ive</h1>", timeout=15_000
        )
        await expect(ann.page.locator(".events pre")).to_have_text(ATTACK, timeout=15_000)
        await data.generations.complete(owner, token, 0)
        await expect(ann.page.locator("h2").first).to_contain_text("was made", timeout=15_000)
        await expect(ann.page.locator(".live-state")).to_have_count(0, timeout=15_000)
        assert await ann.page.evaluate("window.hacked === undefined")


async def replay_how_it_grew(browser: Browser, base: str, project: str) -> None:
    """What was followed is played by its time line, from the keyboard too, on the narrowest screen and in the dark."""
    async with person(browser, base, viewport={"width": 360, "height": 740}, color_scheme="dark") as ann:
        await ann.log_in("ann@example.com")
        await ann.go(f"{project}/replay")
        page, code, slider = ann.page, ann.page.locator(".grown-code"), ann.page.locator("#moment")
        await expect(slider).to_be_enabled()
        whole = "<h1>L\N{SNOWMAN}\N{GRINNING FACE}ive</h1>"
        await expect(code).to_have_text(whole)
        frame = page.frame_locator("iframe.live:not(.coming)")  # Until another one has loaded there are two.
        await expect(frame.locator("h1")).to_have_text("L\N{SNOWMAN}\N{GRINNING FACE}ive")
        event = page.locator(".events > li[data-at]")
        await expect(event).to_be_visible()
        await slider.focus()
        await page.keyboard.press("Home")
        await expect(code).to_have_text("")
        await expect(event).to_be_hidden()
        assert await slider.get_attribute("aria-valuetext") == "0 s, 0 characters"
        assert await page.evaluate("document.documentElement.scrollWidth") <= 360
        await ann.inspect_this("a replay")
        heights = "[...document.querySelectorAll('.grown > *')].map(each => each.getBoundingClientRect())"
        await page.set_viewport_size({"width": 1280, "height": 860})
        stage, beside = await page.evaluate(heights)
        assert (stage["top"], stage["bottom"]) == (beside["top"], beside["bottom"]), "page and code are side by side"
        await page.select_option("#speed", "50")
        await page.locator("#play").focus()
        await page.keyboard.press("Enter")
        await expect(code).to_have_text(whole)
        await expect(event).to_be_visible()
        await expect(page.locator("#play")).to_have_text("Play")
        await expect(frame.locator("h1")).to_have_text("L\N{SNOWMAN}\N{GRINNING FACE}ive")
        await expect(page.locator("iframe.live")).to_have_count(1)
        assert await page.evaluate("window.hacked === undefined")


async def administrate(browser: Browser, base: str) -> None:
    """An administrator's day."""
    async with person(browser, base) as admin:
        page = admin.page
        await admin.log_in("admin@example.com")
        await page.get_by_role("link", name="People").click()
        await page.get_by_role("link", name="Ann Other").first.click()
        await page.fill("#reason", "spam")
        await page.get_by_role("button", name="Suspend", exact=True).click()
        await expect(page.get_by_role("button", name="Let in again")).to_be_visible()
        await page.get_by_role("button", name="Let in again").click()
        await page.select_option("#new-role", "moderator")
        await page.get_by_role("button", name="Save").click()
        await expect(page.get_by_role("status")).to_contain_text("Saved")
        await admin.go("/console/admin/audit?action=admin_user_suspend")
        await expect(page.locator("tbody tr")).to_have_count(1)
        await page.get_by_role("link", name="Usage of all").click()
        await expect(page.locator("main")).to_contain_text("ann@example.com")
        await page.get_by_role("link", name="Files").click()
        await page.get_by_role("button", name="Compare").click()
        await expect(page.locator(".progress")).to_contain_text("as the table says")
        await page.get_by_role("button", name="Look what it would do").click()
        await expect(page.locator(".progress")).to_contain_text("Nothing was removed")
        await page.get_by_role("link", name="Health").click()
        await expect(page.locator("dd").first).to_have_text(re.compile(r"MiB"))
        await expect(page.locator(".spark .line").first).to_be_visible()
        await page.get_by_role("link", name="Doctor").click()
        await expect(page.locator("main")).to_contain_text("PostgreSQL")
        await page.get_by_role("link", name="Maintenance").click()
        await page.get_by_role("button", name="Look what it would do").click()
        await expect(page.locator("h3").first).to_have_text("What it would do")
        await expect(page.locator("main")).to_contain_text("up to date")
