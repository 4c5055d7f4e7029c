"""Administration over HTTP: what each role may do, and that nobody else may do any of it."""

from __future__ import annotations

import asyncio
import csv
import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import httpx
import pytest

from data_layer import DataLayer
from data_layer.api.administration import routes
from data_layer.entities.enums import AuditAction, UserRole
from data_layer.errors import PermissionDeniedError, StorageUnavailableError
from data_layer.schemas.actors import SYSTEM, Actor
from data_layer.schemas.audit import AuditFilter, AuditView
from data_layer.services.files import FileMaintenance
from tests.api.test_people import bearer, client_of, code_of
from tests.file_content import picture
from tests.services.accounts.support import PASSWORD, make_account

USERS, AUDIT = "/v1/admin/users", "/v1/admin/audit"


@pytest.fixture
async def client(data: DataLayer) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(data) as client:
        yield client


async def logged_in(client: httpx.AsyncClient, email: str) -> dict[str, str]:
    answer = await client.post("/v1/sessions", json={"email": email, "password": PASSWORD})
    return bearer(answer.json()["token"])


async def test_what_each_role_may_do(data: DataLayer, client: httpx.AsyncClient) -> None:
    ann = await make_account(data)
    for role in (UserRole.MODERATOR, UserRole.ADMIN):
        await make_account(data, f"{role}@example.com", role=role)
    user, moderator, admin = [
        await logged_in(client, email) for email in ("ann@example.com", "moderator@example.com", "admin@example.com")
    ]
    bodies = {"role": {"role": "user"}, "suspend": {"reason": "r"}, "maintenance": {"dry_run": True}}
    bodies |= {"check": {"repair": True}, "cleanup": {"apply": True}}
    other = await make_account(data, "bob@example.com")
    for route in routes.routes:
        for method in route.methods or ():
            path = route.path.format(user=other.id, user_id=other.id, mail_id=uuid4())
            body = bodies.get(path.rpartition("/")[2])
            for headers, status in (({}, 401), (user, 403)):
                refused = await client.request(method, path, json=body, headers=headers | {"if-match": '"t1"'})
                assert refused.status_code == status, (method, path, refused.text)

    page = (await client.get(USERS, params={"limit": 2}, headers=moderator)).json()
    assert [one["email"] for one in page["users"]] == ["ann@example.com", "moderator@example.com"]
    rest = (await client.get(USERS, params={"limit": 3, "after": page["next"]}, headers=moderator)).json()
    assert ([one["email"] for one in rest["users"]], rest["next"]) == (["admin@example.com", "bob@example.com"], None)
    found = await client.get(f"{USERS}/ANN@example.com", headers=moderator)
    assert found.json()["id"] == str(ann.id)
    sessions = await client.get(f"{USERS}/{ann.id}/sessions", headers=moderator)
    assert [one["ip_address"] for one in sessions.json()["sessions"]] == ["192.0.2.1"]

    me = f"{USERS}/{ann.id}"
    for method, path, body in (
        ("PUT", f"{me}/role", {"role": "admin"}),
        ("POST", f"{me}/verify", None),
        ("DELETE", me, None),
        ("GET", f"{AUDIT}?view=full", None),
        ("GET", f"{AUDIT}/export", None),
        ("GET", "/v1/admin/mails", None),
        ("POST", "/v1/admin/maintenance", {}),
    ):
        refused = await client.request(method, path, json=body, headers=moderator | {"if-match": '"t1"'})
        assert code_of(refused) == (403, "permission_denied"), path

    assert (await client.post(f"{me}/unlock", headers=moderator)).status_code == 204
    assert (await client.post(f"{me}/password-reset", headers=moderator)).status_code == 202
    [mail] = (await client.get("/v1/admin/mails", headers=admin)).json()["mails"]
    assert (mail["email"], mail["kind"], "link" in mail) == ("ann@example.com", "reset_password", False)
    again = await client.post(f"/v1/admin/mails/{mail['id']}/retry", headers=admin)
    assert again.json()["status"] == "queued"
    suspended = await client.post(f"{me}/suspend", json={"reason": "spam"}, headers=moderator)
    assert suspended.json()["status"] == "suspended"
    assert (await client.get("/v1/accounts/me", headers=user)).status_code == 401
    assert (await client.post(f"{me}/unsuspend", headers=moderator)).json()["status"] == "active"
    assert code_of(await client.post(f"{me}/unsuspend", headers=moderator)) == (409, "conflict")
    wanted, read = {"role": "moderator"}, (await client.get(me, headers=admin)).headers["etag"]
    assert code_of(await client.put(f"{me}/role", json=wanted, headers=admin)) == (428, "precondition_required")
    changed = await client.put(f"{me}/role", json=wanted, headers=admin | {"if-match": read})
    assert changed.json()["role"] == "moderator"
    assert changed.headers["etag"] == (await client.get(me, headers=admin)).headers["etag"] != read
    outdated = await client.put(f"{me}/role", json={"role": "user"}, headers=admin | {"if-match": read})
    assert (code_of(outdated), outdated.json()["current"]["role"]) == ((412, "changed_meanwhile"), "moderator")
    assert code_of(await client.post(f"{me}/suspend", json={"reason": "r"}, headers=moderator))[0] == 403
    await logged_in(client, "ann@example.com")
    assert (await client.delete(f"{me}/sessions", headers=admin)).json() == {"ended": 1}
    report = await client.post("/v1/admin/maintenance", json={"dry_run": True}, headers=admin)
    assert (report.json()["is_dry_run"], report.json()["problems"]) == (True, [])
    assert (await client.delete(me, headers=admin)).status_code == 204
    assert (await client.get(me, headers=admin)).json()["email"].endswith("@deleted.invalid")


async def test_the_audit_trail(data: DataLayer, client: httpx.AsyncClient) -> None:
    admin = await make_account(data, "admin@example.com", role=UserRole.ADMIN)
    session = await logged_in(client, admin.email)
    first = (await client.get(AUDIT, params={"limit": 1, "view": "full"}, headers=session)).json()
    assert (len(first["entries"]), "context" in first["entries"][0]) == (1, True)
    second = (await client.get(AUDIT, params={"limit": 1, "after": first["next"]}, headers=session)).json()
    assert second["entries"] == [] or second["entries"][0]["id"] != first["entries"][0]["id"]
    own = {"user_id": str(admin.id), "action": ["user_login"], "since": "2026-01-01T00:00:00Z"}
    logins = (await client.get(AUDIT, params=own, headers=session)).json()["entries"]
    assert [entry["action"] for entry in logins] == ["user_login"]
    for wrong in (
        {"text": "x"},
        {"after": "nonsense"},
        {"action": "nonsense"},
        *({"since": text} for text in ("2026-01-01", "2026", "1e9", "20260101T000000Z")),
        {"who": "x"},
    ):
        refused = await client.get(AUDIT, params=wrong, headers=session)
        assert refused.status_code == 422, refused.text

    lines = await client.get(f"{AUDIT}/export", headers=session)
    assert lines.headers["content-type"] == "application/x-ndjson"
    exported = [json.loads(line)["id"] for line in lines.text.splitlines()]
    assert first["entries"][0]["id"] in exported
    newest = (await client.get(AUDIT, params={"action": "admin_data_export"}, headers=session)).json()["entries"]
    assert [entry["id"] in exported for entry in newest] == [False], "it is recorded, and ends before itself"
    table = await client.get(f"{AUDIT}/export", params={**own, "format": "csv", "view": "secure"}, headers=session)
    header, row = csv.reader(table.text.splitlines())
    assert dict(zip(header, row, strict=True))["action"] == "user_login"
    assert "attachment" in table.headers["content-disposition"]


@pytest.mark.timeout(60)
async def test_the_head_of_an_export_is_no_export(
    data: DataLayer, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    async def without_end(*_: object, **__: object) -> AsyncIterator[bytes]:
        try:
            while True:
                made.append("piece")
                yield b"{}\n"
                await asyncio.sleep(0)
        finally:
            made.append("closed")

    admin = await make_account(data, "admin@example.com", role=UserRole.ADMIN)
    session = await logged_in(client, admin.email)
    monkeypatch.setattr(data.audit, "export", without_end)
    answer = await client.head(f"{AUDIT}/export", headers=session)
    assert (answer.status_code, answer.content, made) == (200, b"", ["piece", "closed"])
    assert "attachment" in answer.headers["content-disposition"]


async def test_deleting_the_own_account(data: DataLayer, client: httpx.AsyncClient) -> None:
    await make_account(data)
    session = await logged_in(client, "ann@example.com")
    path = "/v1/accounts/me/delete"
    for body, field in [
        ({"email": "bob@example.com", "password": PASSWORD}, "email"),
        ({"email": "ann@example.com"}, "password"),
    ]:
        refused = await client.post(path, json=body, headers=session)
        assert (refused.status_code, refused.json()["fields"][0]["field"]) == (422, field)
    wrong = {"email": "ann@example.com", "password": "a wrong horse"}
    assert code_of(await client.post(path, json=wrong, headers=session)) == (401, "invalid_credentials")
    confirmed = {"email": " Ann@Example.com", "password": PASSWORD}
    assert (await client.post(path, json=confirmed, headers=session)).status_code == 204
    assert (await client.get("/v1/accounts/me", headers=session)).status_code == 401
    assert await data.accounts.list(SYSTEM) == []
    admin = await make_account(data, "admin@example.com", role=UserRole.ADMIN)
    session = await logged_in(client, admin.email)
    last = confirmed | {"email": admin.email}
    assert code_of(await client.post(path, json=last, headers=session)) == (409, "last_admin")


async def test_statistics_are_for_administrators_alone(data: DataLayer, client: httpx.AsyncClient) -> None:
    await make_account(data, "moderator@example.com", role=UserRole.MODERATOR)
    admin = await make_account(data, "admin@example.com", role=UserRole.ADMIN)
    headers = await logged_in(client, "admin@example.com")
    answer = await client.get("/v1/admin/statistics", headers=headers)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["errors"] == {}
    assert found["database"]["pool"]["maximum"] == data.settings.database.db_max_connections
    refused = await client.get("/v1/admin/statistics", headers=await logged_in(client, "moderator@example.com"))
    assert code_of(refused) == (403, "permission_denied")
    # Also with an actor that is older than the change of its role.
    actor = Actor.user(admin.id, UserRole.ADMIN)
    async with data.transaction() as tx:
        user = await tx.users.get(admin.id)
        user.role = UserRole.USER
    files = data.file_maintenance
    for refuse in (data.statistics(actor), files.check(actor, repair=True), files.cleanup(actor, apply=True)):
        with pytest.raises(PermissionDeniedError):
            await refuse


async def test_the_storage_is_checked_and_cleaned_with_progress(
    data: DataLayer, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data_layer.web.downloads._SECONDS", 0.001)
    admin = await make_account(data, "admin@example.com", role=UserRole.ADMIN)
    headers = await logged_in(client, "admin@example.com")
    await data.files.save(picture(), owner_id=admin.id, file_name="a.png")
    orphan = "uploads/0f/" + "0" * 32
    await data.storage.upload(b"nobody knows it", orphan, "text/plain")

    async def ask(path: str, **body: object) -> dict[str, Any]:
        answer = await client.post(f"/v1/admin/storage/{path}", json=body, headers=headers)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/x-ndjson"), answer.text
        *progress, last = [json.loads(line) for line in answer.text.splitlines()]
        assert all(line.keys() == {"seen"} for line in progress)
        report: dict[str, Any] = last["report"]
        return report

    report = await ask("check", deep=True)
    assert (report["recorded"] > 0, report["findings"]) == (True, [])
    planned = await ask("cleanup")
    assert planned["applied"] is False
    done = await ask("cleanup", apply=True, older_than_hours=1)
    assert done["applied"] is True
    assert (await ask("check"))["findings"] == [], "what is recorded was kept"
    page = await data.audit.list(SYSTEM, AuditFilter(actions=(AuditAction.SYSTEM_MAINTENANCE,)), view=AuditView.FULL)
    assert [entry.user_id for entry in page.entries] == [admin.id], "only what changes something is recorded"

    async def fail(*_: object, **__: object) -> None:
        raise StorageUnavailableError("the bucket is gone")

    monkeypatch.setattr(FileMaintenance, "check", fail)
    answer = await client.post("/v1/admin/storage/check", json={}, headers=headers)
    assert code_of(answer) == (503, "storage_unavailable"), "nothing was sent yet"

    async def fail_later(*_: object, **__: object) -> None:
        await asyncio.sleep(0.1)
        await fail()

    monkeypatch.setattr(FileMaintenance, "check", fail_later)
    answer = await client.post("/v1/admin/storage/check", json={}, headers=headers)
    assert answer.status_code == 200
    assert json.loads(answer.text.splitlines()[-1])["problem"]["code"] == "storage_unavailable"
    assert "bucket" not in answer.text


async def test_the_storage_is_maintained_by_administrators_and_the_operator(
    data: DataLayer, client: httpx.AsyncClient
) -> None:
    await make_account(data, "moderator@example.com", role=UserRole.MODERATOR)
    headers = await logged_in(client, "moderator@example.com")
    for path in ("check", "cleanup"):
        refused = await client.post(f"/v1/admin/storage/{path}", json={}, headers=headers)
        assert code_of(refused) == (403, "permission_denied")
    await data.file_maintenance.check(SYSTEM)
    await data.file_maintenance.check(SYSTEM, repair=True)
    await data.file_maintenance.cleanup(SYSTEM)
    await data.file_maintenance.cleanup(SYSTEM, apply=True)
    page = await data.audit.list(SYSTEM, AuditFilter(actions=(AuditAction.SYSTEM_MAINTENANCE,)), view=AuditView.FULL)
    assert [entry.user_id for entry in page.entries] == [None, None], "what changed something"
