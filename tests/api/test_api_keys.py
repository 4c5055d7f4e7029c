"""Programs that show an API key: what they reach, and what they never do."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from data_layer import DataLayer
from data_layer.entities.enums import UserRole
from tests.services.accounts.support import make_account, trail

from .test_people import bearer, client_of, code_of, log_in

FOR_PEOPLE = ("/v1/accounts", "/v1/sessions", "/v1/tokens", "/v1/oidc")
"""Where no key is accepted, but for reading the own account."""


@pytest.fixture
async def client(data: DataLayer) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(data) as client:
        yield client


async def make_key(client: httpx.AsyncClient, session: dict[str, str], *scopes: str) -> tuple[str, dict[str, str]]:
    answer = await client.post("/v1/accounts/me/api-keys", json={"name": "k", "scopes": scopes}, headers=session)
    assert answer.status_code == 201, answer.text
    body = answer.json()
    return body["api_key"]["id"], bearer(body["secret"])


async def test_a_key_from_making_to_revoking(client: httpx.AsyncClient, data: DataLayer) -> None:
    await make_account(data)
    session = await log_in(client)
    key_id, key = await make_key(client, session, "read")
    assert (await client.get("/v1/accounts/me", headers=key)).json()["email"] == "ann@example.com"
    assert (await client.get("/v1/projects", headers=key)).json()["projects"] == []
    for method, path, body in (
        ("POST", "/v1/projects", {"name": "Shop"}),
        ("POST", "/v1/generations", {}),
        ("GET", "/v1/admin/users", None),
    ):
        answer = await client.request(method, path, json=body, headers=key)
        assert code_of(answer) == (403, "scope_missing"), path
    [listed] = (await client.get("/v1/accounts/me/api-keys", headers=session)).json()["api_keys"]
    assert (listed["id"], listed["scopes"], listed["revoked_at"]) == (key_id, ["read"], None)
    for _ in range(2):
        assert (await client.delete(f"/v1/accounts/me/api-keys/{key_id}", headers=session)).status_code == 204
    assert code_of(await client.get("/v1/projects", headers=key)) == (401, "api_key_invalid")
    assert code_of(await client.get("/v1/projects", headers=bearer("dl_x"))) == (401, "api_key_invalid")


async def test_each_scope_opens_its_own(client: httpx.AsyncClient, data: DataLayer) -> None:
    await make_account(data)
    session = await log_in(client)
    _, writing = await make_key(client, session, "write")
    project = (await client.post("/v1/projects", json={"name": "Shop"}, headers=writing)).json()
    assert code_of(await client.get("/v1/projects", headers=writing)) == (403, "scope_missing")
    _, making = await make_key(client, session, "generate")
    started = await client.post(
        "/v1/generations",
        json={"project_id": project["id"], "request": {"prompt": "a shop"}, "models": [{"name": "m"}]},
        headers=making,
    )
    assert started.status_code == 201, started.text
    ended = await client.put(
        f"/v1/generations/{started.json()['id']}/variants/0",
        json={"status": "completed", "code": "<p>"},
        headers=making | {"writer-token": started.json()["writer_token"]},
    )
    assert ended.status_code == 200, ended.text
    assert code_of(await client.patch(f"/v1/projects/{project['id']}", json={"name": "x"}, headers=making)) == (
        403,
        "scope_missing",
    )
    [entry] = [entry for entry in await trail(data) if entry.action == "project_create"]
    assert set(entry.context) == {"api_key_id"}


async def test_what_is_for_people_alone(client: httpx.AsyncClient, data: DataLayer) -> None:
    """By the description: a route that is added is refused to keys until it names a scope."""
    await make_account(data, "root@example.com", role=UserRole.ADMIN)
    session = await log_in(client, email="root@example.com")
    _, key = await make_key(client, session, "read", "write", "generate", "admin")
    paths = (await client.get("/openapi.json")).json()["paths"]
    refused, accepted = set(), set()
    for path, operations in paths.items():
        for method, operation in operations.items():
            scopes = [scheme["ApiKey"] for scheme in operation.get("security", ()) if "ApiKey" in scheme]
            if scopes:
                accepted.add(f"{method.upper()} {path}")
                assert len(scopes[0]) == 1
            elif {"Bearer": []} in operation.get("security", ()):
                answer = await client.request(method, path.replace("{", "").replace("}", ""), headers=key)
                assert code_of(answer) == (403, "scope_missing"), path
                refused.add(f"{method.upper()} {path}")
    assert {name for name in accepted if name.split()[1].startswith(FOR_PEOPLE)} == {"GET /v1/accounts/me"}
    assert refused >= {
        *("POST /v1/accounts/me/password", "POST /v1/accounts/me/delete", "PATCH /v1/accounts/me"),
        *("GET /v1/sessions", "POST /v1/sessions/revoke-others", "DELETE /v1/sessions/current"),
        *("GET /v1/accounts/me/api-keys", "POST /v1/accounts/me/api-keys"),
    }
    assert (await client.get("/v1/admin/users", headers=key)).status_code == 200


async def test_bodies_that_are_no_keys(client: httpx.AsyncClient, data: DataLayer) -> None:
    await make_account(data)
    session = await log_in(client)
    for body in (
        {"name": "x", "scopes": []},
        {"name": " ", "scopes": ["read"]},
        {"name": "x", "scopes": ["everything"]},
        {"name": "x", "scopes": ["read"], "expires_in": 0},
    ):
        answer = await client.post("/v1/accounts/me/api-keys", json=body, headers=session)
        assert code_of(answer) == (422, "request_invalid"), body
    answer = await client.post("/v1/accounts/me/api-keys", json={"name": "x", "scopes": ["admin"]}, headers=session)
    assert code_of(answer) == (403, "permission_denied")
