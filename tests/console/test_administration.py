"""Administration, by role: people, the audit trail, usage of all, health, the doctor, maintenance."""

from __future__ import annotations

import asyncio
import csv
import io
import re
import threading
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from starlette.types import Message, Receive, Scope, Send

from data_layer import DataLayer, Settings
from data_layer.console.views import administration
from data_layer.entities.enums import AuditAction, UserRole, UserStatus
from data_layer.errors import StorageUnavailableError
from data_layer.observability.levels import LevelFile
from data_layer.schemas.actors import SYSTEM
from data_layer.schemas.audit import AuditFilter, AuditView
from data_layer.schemas.statistics import FigureSample
from data_layer.schemas.usage import NewUsage
from data_layer.services.doctor import process
from data_layer.services.doctor.checks import CheckResult
from data_layer.services.files.check import CheckReport
from data_layer.services.files.maintenance import FileMaintenance
from data_layer.web import downloads
from tests.console.conftest import Visitor, visit
from tests.file_content import picture

ADMIN = "/console/admin"
HOSTILE = "<img src=x onerror=alert(1)>"
OF_ADMINISTRATORS = ("usage", "files", "system", "doctor", "maintenance", "audit/export")
OF_MODERATORS = ("people", "audit")
CONFIRMED = {"confirmed": "yes"}
ACTIONS = ("suspend", "unsuspend", "role", "end-sessions", "unlock", "verify", "reset", "delete")
OF_MODERATORS_WITH_USERS = ("suspend", "unsuspend", "end-sessions", "unlock", "reset")


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    """With a folder of its own for the levels of the log."""
    return settings.replaced(data_folder=tmp_path / "data")


@pytest.fixture
async def admin(data: DataLayer, app: FastAPI) -> AsyncIterator[Visitor]:
    visitor = await visit(data, app, "admin", UserRole.ADMIN)
    async with aclosing(visitor.client):
        yield visitor


async def test_each_role_sees_what_it_may(data: DataLayer, app: FastAPI, ann: Visitor, admin: Visitor) -> None:
    moderator = await visit(data, app, "moderator", UserRole.MODERATOR)
    async with aclosing(moderator.client):
        for part in OF_MODERATORS:
            await ann.look(f"{ADMIN}/{part}", 403)
            assert f'href="{ADMIN}/{part}"' not in await ann.look("/console/account")
            await moderator.look(f"{ADMIN}/{part}")
        for part in OF_ADMINISTRATORS:
            await ann.look(f"{ADMIN}/{part}", 403)
            await moderator.look(f"{ADMIN}/{part}", 403)
            await admin.look(f"{ADMIN}/{part}")
    # The role of now counts, not that of the session.
    await data.accounts.set_role(SYSTEM, ann.id, UserRole.ADMIN)
    await ann.look(f"{ADMIN}/people", 303)


async def test_each_role_does_what_it_may(data: DataLayer, app: FastAPI, ann: Visitor, admin: Visitor) -> None:
    moderator, other = await visit(data, app, "moderator", UserRole.MODERATOR), await visit(data, app, "other")
    routes = [route for route in administration.pages.routes if "POST" in (route.methods or ())]
    forms = {
        route.path.format(user_id=person.id, action=action)
        for route in routes
        for person in (admin, other)
        for action in ACTIONS
    }
    assert len(forms) == 2 * len(ACTIONS) + 5
    fields = {"reason": "x", "role": "admin", "level": "debug"} | CONFIRMED
    allowed = {f"{ADMIN}/people/{other.id}/{action}" for action in OF_MODERATORS_WITH_USERS}
    allowed.add(f"{ADMIN}/people/{admin.id}/reset")  # It only mails a link to its owner.
    async with aclosing(moderator.client), aclosing(other.client):
        for form in sorted(forms):
            assert (await ann.client.post(form, data=fields)).status_code == 403, form
            status = (await moderator.client.post(form, data=fields)).status_code
            assert status == (303 if form in allowed else 403), form


async def test_a_person_is_found_suspended_and_let_in_again(data: DataLayer, ann: Visitor, admin: Visitor) -> None:
    assert "ann@example.com" in await admin.look(f"{ADMIN}/people")
    assert "ann@example.com" not in await admin.look(f"{ADMIN}/people?role=admin&status=nonsense")
    assert "Nobody found" in await admin.look(f"{ADMIN}/people?q=ann")
    assert f"{ADMIN}/people/{ann.id}" in await admin.look(f"{ADMIN}/people?q=ann%40example.com")
    path = f"{ADMIN}/people/{ann.id}"
    await admin.send(f"{path}/suspend", reason=HOSTILE)
    assert (await ann.client.get("/console/projects")).status_code == 303
    page = await admin.look(path)
    assert "suspended" in page
    assert HOSTILE not in page
    await admin.send(f"{path}/unsuspend")
    await admin.send(f"{path}/role", role="moderator")
    assert (await data.accounts.find(SYSTEM, str(ann.id))).role is UserRole.MODERATOR
    for action in ("unlock", "end-sessions", "verify"):
        await admin.send(f"{path}/{action}", **CONFIRMED)
    assert (await admin.send(f"{path}/reset")).endswith("done=reset_mailed")
    last = await admin.client.post(f"{ADMIN}/people/{admin.id}/role", data={"role": "user"})
    assert (last.status_code, 'role="alert"' in last.text) == (422, True)
    assert (await admin.client.post(f"{path}/nonsense")).status_code == 404
    asked = (await admin.client.post(f"{path}/delete")).text
    assert "Erase this account with everything in it, for good?" in asked
    assert f'action="{path}/delete"' in asked
    assert (await data.accounts.find(SYSTEM, str(ann.id))).id == ann.id
    assert (await admin.send(f"{path}/delete", **CONFIRMED)) == f"{ADMIN}/people?done=person_deleted"
    assert (await data.accounts.find(SYSTEM, "admin@example.com")).status is UserStatus.ACTIVE
    assert "ann@example.com" not in await admin.look(f"{ADMIN}/people")


async def test_the_trail_is_filtered_followed_and_exported(ann: Visitor, admin: Visitor) -> None:
    await ann.send("/console/projects", name=HOSTILE)
    page = await admin.look(f"{ADMIN}/audit?action=project_create&user={ann.id}")
    assert page.count('<span class="badge ">Created a project</span>') == 1
    assert HOSTILE not in page
    assert "· Console" in page
    assert page.count('<span class="badge ">Logged in</span>') == 0
    followed = await admin.look(f"{ADMIN}/audit?follow=true")
    assert 'hx-trigger="every 3s"' in followed
    assert (await admin.client.get(f"{ADMIN}/audit?user=ann")).status_code == 422
    answer = await admin.client.get(f"{ADMIN}/audit/export?action=project_create")
    assert answer.headers["content-disposition"] == 'attachment; filename="audit.csv"'
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [row["user_id"] for row in rows] == [str(ann.id)]


async def test_usage_of_all_is_added_up(data: DataLayer, ann: Visitor, admin: Visitor) -> None:
    assert "Nothing was spent" in await admin.look(f"{ADMIN}/usage")
    for person, cost in ((ann, "2"), (admin, "0.25")):
        usage = NewUsage(key="k", provider="p", model="m", cost=Decimal(cost))
        await data.usage.record(person.actor, usage)
    page = await admin.look(f"{ADMIN}/usage?days=7")
    assert "$2.25" in page
    people = re.findall(rf'<a href="{ADMIN}/people/[0-9a-f-]+">([^<]+)</a>', page)
    assert people == ["ann@example.com", "admin@example.com"]


async def test_the_figures_are_those_of_stats(data: DataLayer, admin: Visitor) -> None:
    page = await admin.look(f"{ADMIN}/system")
    figures = await data.statistics(admin.actor)
    assert figures.database
    assert figures.database.server in page
    assert 'hx-trigger="every 10s"' in page
    assert "projects" in page
    assert "has not recorded anything in the last half hour" in page


async def test_the_last_half_hour_is_drawn_when_the_page_opens(data: DataLayer, admin: Visitor) -> None:
    now = datetime.now(UTC)

    def sample(seconds: float, connections: int | None, commits: int) -> FigureSample:
        moment = now - timedelta(seconds=seconds)
        return FigureSample(taken_at=moment, process="host-7:42", connections=connections, commits=commits)

    samples = [
        sample(900, 3, 1000),
        sample(890, 5, 1020),
        sample(880, None, 1010),  # The database was away, and its counters have begun again.
        sample(870, 4, 1010),
        sample(300, 4, 1010),  # The service was away.
        sample(290, 23, 1095),
    ]
    await data.cache.set("data-layer:figure-samples", samples, ttl=60)
    page = await admin.look(f"{ADMIN}/system")
    (line,) = re.findall(
        r'aria-label="Connections in the last half hour: 3 . 23"><[^>]*><path class="line" d="([^"]*)"', page
    )
    runs = [
        [tuple(map(float, place.split(","))) for place in run.split("L")]
        for run in line.split("M")[1:]
        if "h" not in run
    ]
    assert [len(run) for run in runs] == [2, 2]
    assert line.count("M") == 3
    assert "h0.01" in line, "one sample alone is a dot"
    (first, second), (third, last) = runs
    assert [first[0], last[0]] == pytest.approx([50, 83.9], abs=0.5)
    assert (first[1], last[1]) == (23, 1), "the lowest value is at the bottom, the highest one at the top"
    assert second[1] < first[1]
    assert third[1] > last[1]
    assert "Commits in the last half hour: 0/s \N{EN DASH} 8.5/s" in page
    assert "Process host-7:42 records them" in page
    again = await admin.client.get(f"{ADMIN}/system", headers={"hx-request": "true"})
    assert "Connections in the last half hour: 3" in again.text
    assert "<details" not in again.text.partition("<main")[2], "the table is not made again and again"
    rows = re.findall(r'<tr><th scope="row">(.+?)</th>(.+?)</tr>', page)
    assert rows[0][0] == f"{samples[-1].taken_at:%H:%M}"
    assert '<td class="right">8.5/s</td>' in rows[0][1]
    assert '<td class="right">23</td>' in rows[0][1]


async def test_the_doctor_shows_what_he_finds(data: DataLayer, admin: Visitor) -> None:
    page = await admin.look(f"{ADMIN}/doctor")
    findings = await data.operations.examine(SYSTEM)
    shown = re.findall(r'<h2 id="part-([a-z_]+)">', page)
    assert shown == list(dict.fromkeys(finding.part for finding in findings)), "as the doctor looks at them"
    assert page.count('<li class="row top">') == len(findings)


async def test_the_doctor_shows_what_he_looks_at_while_he_does(
    app: FastAPI, admin: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "_SECONDS", 0.01)
    seen, judge = threading.Event(), process._folder

    def judge_when_seen(folder: process.UsedFolder) -> CheckResult:
        assert seen.wait(60)
        return judge(folder)

    monkeypatch.setattr(process, "_folder", judge_when_seen)
    text = await page_while_it_comes(app, admin, ("GET", f"{ADMIN}/doctor"), b"Process: Memory", seen)
    assert text.index("<h1>Doctor</h1>") < text.index("Process: Memory") < text.index('id="part-process"')
    assert text.index('id="part-process"') < text.index("</html>")


async def test_maintenance_is_tried_before_it_is_run(admin: Visitor) -> None:
    tried = await admin.client.post(f"{ADMIN}/maintenance", data={"dry_run": "yes"})
    assert "What it would do" in tried.text
    assert "Remove for good what has expired?" in (await admin.client.post(f"{ADMIN}/maintenance")).text
    run = await admin.client.post(f"{ADMIN}/maintenance", data=CONFIRMED)
    assert "What it has done" in run.text


async def test_files_are_counted_compared_and_cleaned_up(data: DataLayer, ann: Visitor, admin: Visitor) -> None:
    file = await data.files.save(picture("PNG"), owner_id=ann.id)
    stray = await data.storage.upload(b"lost", "files/stray.png", "image/png")
    assert stray
    await data.storage.delete(file.key)
    page = await admin.look(f"{ADMIN}/files")
    named = re.findall(r'<span class="share-name">([^<]+)</span>', page)
    assert {"image/png", "ann@example.com"} <= set(named)
    compared = (await admin.client.post(f"{ADMIN}/files/check", data={"deep": "yes"})).text
    assert compared.index('<div class="progress"') < compared.index("Not everything is as the table says.")
    assert f'<span class="badge bad">missing</span></td><td>local disk</td><td><code>{file.key}</code>' in compared
    assert "Too recent to judge" in compared
    tried = (await admin.client.post(f"{ADMIN}/files/cleanup", data={"dry_run": "yes"})).text
    assert "Nothing was removed; this is what would be." in tried
    assert "Remove these files for good?" in (await admin.client.post(f"{ADMIN}/files/cleanup")).text
    done = (await admin.client.post(f"{ADMIN}/files/cleanup", data=CONFIRMED)).text
    assert "Removed." in done
    await admin.client.post(f"{ADMIN}/files/check", data={"repair": "yes"})
    trail = await data.audit.list(SYSTEM, AuditFilter(actions=(AuditAction.SYSTEM_MAINTENANCE,)), view=AuditView.FULL)
    written = [entry.description for entry in trail.entries if entry.user_id == admin.id]
    assert written == ["Repaired stored files", "Removed useless files"], "only what changes something is recorded"


async def page_while_it_comes(
    app: FastAPI, visitor: Visitor, call: tuple[str, str], sign: bytes, seen: asyncio.Event | threading.Event
) -> str:
    """The whole page that answers a method and path; ``seen`` is set as soon as the sign has come."""
    page = bytearray()

    async def watched(scope: Scope, receive: Receive, send: Send) -> None:
        unpack = zlib.decompressobj(16 + zlib.MAX_WBITS)

        async def send_on(message: Message) -> None:
            page.extend(unpack.decompress(message.get("body", b"")))
            if sign in page:
                seen.set()
            await send(message)

        await app(scope, receive, send_on)

    transport = httpx.ASGITransport(watched)
    async with httpx.AsyncClient(
        transport=transport, base_url="https://service", cookies=visitor.client.cookies
    ) as client:
        headers = {"sec-fetch-site": "same-origin", "accept-encoding": "gzip"}
        answer = await client.request(*call, headers=headers)
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    return answer.text


async def test_long_work_shows_how_far_it_is_while_it_runs(
    app: FastAPI, admin: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "_SECONDS", 0.01)
    seen = asyncio.Event()

    async def check(*_: object, on_progress: Callable[[int], None], **__: object) -> CheckReport:
        on_progress(1234)
        async with asyncio.timeout(60):
            await seen.wait()
        raise StorageUnavailableError("the bucket is gone")

    monkeypatch.setattr(FileMaintenance, "check", check)
    text = await page_while_it_comes(app, admin, ("POST", f"{ADMIN}/files/check"), b"1,234", seen)
    assert text.index("<h1>Files</h1>") < text.index("1,234") < text.index('role="alert"') < text.index("</html>")
    assert "bucket" not in text


async def test_a_person_who_leaves_the_page_ends_the_work(admin: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def check(*_: object, **__: object) -> CheckReport:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError

    monkeypatch.setattr(FileMaintenance, "check", check)
    working = asyncio.create_task(admin.client.post(f"{ADMIN}/files/check"))
    async with asyncio.timeout(60):
        await begun.wait()
        working.cancel()
        await ended.wait()
    await asyncio.wait([working])


async def test_a_level_is_changed_for_a_while_and_recorded(data: DataLayer, settings: Settings, admin: Visitor) -> None:
    await admin.send(f"{ADMIN}/log-level", level="debug", minutes="10")
    (change,) = LevelFile(settings.general.data_folder).read()
    assert (change.logger, change.level) == ("data_layer", "debug")
    assert "data_layer</code>: debug" in await admin.look(f"{ADMIN}/maintenance")
    refused = await admin.client.post(f"{ADMIN}/log-level", data={"level": "loud"})
    assert refused.status_code == 422
    await admin.send(f"{ADMIN}/log-level/reset")
    assert LevelFile(settings.general.data_folder).read() == []
    page = await data.audit.list(SYSTEM, AuditFilter(user_id=admin.id), view=AuditView.FULL)
    entries = [entry for entry in page.entries if entry.resource_type == "log"]
    assert [entry.description for entry in entries] == [
        "Reset the levels of the log",
        "Changed the level of the log",
    ]
    assert [entry.model_dump()["new_values"] for entry in entries] == [{}, {"level": "debug"}]
