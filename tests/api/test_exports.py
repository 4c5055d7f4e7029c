"""Exports over HTTP: begun once, watched, fetched in parts from where they are stored."""

from __future__ import annotations

import io
import zipfile
from urllib.parse import urlsplit
from uuid import uuid4

import httpx

from data_layer import DataLayer
from data_layer.entities.enums import ApiScope
from data_layer.schemas.projects import ProjectDraft
from tests.api.test_people import bearer, code_of
from tests.services.accounts.support import acting, make_account

EXPORTS = "/v1/accounts/me/exports"


async def session_of(data: DataLayer, email: str = "ann@example.com") -> dict[str, str]:
    user = await make_account(data, email)
    await data.projects.create(acting(user), ProjectDraft(name="Shop"))
    return bearer((await data.sessions.create(user.id)).token.get_secret_value())


async def test_from_asking_to_the_last_byte(data: DataLayer, client: httpx.AsyncClient) -> None:
    ann = await session_of(data)
    begun = await client.post(EXPORTS, headers=ann)
    assert (begun.status_code, begun.json()["status"]) == (201, "queued")
    place = begun.headers["location"]
    assert place == f"{EXPORTS}/{begun.json()['id']}"
    assert code_of(await client.get(f"{place}/content", headers=ann)) == (404, "not_found")
    await data.exports.make_due()
    done = (await client.get(place, headers=ann)).json()
    assert (done["status"], done["projects"], done["projects_done"]) == ("done", 1, 1)
    redirect = await client.get(f"{place}/content", headers=ann)
    assert (redirect.status_code, redirect.headers["cache-control"]) == (307, "no-store")
    address = urlsplit(redirect.headers["location"])
    signed = f"{address.path}?{address.query}"
    whole = await client.get(signed)
    assert whole.headers["content-disposition"].startswith("attachment")
    assert whole.headers["content-type"] == "application/zip"
    assert len(whole.content) == done["size"]
    with zipfile.ZipFile(io.BytesIO(whole.content)) as archive:
        assert archive.testzip() is None
    rest = {"range": "bytes=100-", "if-range": whole.headers["etag"]}
    part = await client.get(signed, headers=rest)
    assert (part.status_code, part.content) == (206, whole.content[100:])
    assert (await client.delete(place, headers=ann)).status_code == 204
    assert code_of(await client.get(place, headers=ann)) == (404, "not_found")
    assert (await client.get(signed)).status_code == 404


async def test_one_request_begins_one(data: DataLayer, client: httpx.AsyncClient) -> None:
    ann = await session_of(data)
    key = {"idempotency-key": str(uuid4())}
    first = (await client.post(EXPORTS, headers=ann | key)).json()
    assert (await client.post(EXPORTS, headers=ann)).json()["id"] == first["id"]
    await data.exports.make_due()
    assert (await client.post(EXPORTS, headers=ann | key)).json() == first
    second = (await client.post(EXPORTS, headers=ann)).json()
    assert second["id"] != first["id"]
    page = (await client.get(EXPORTS, params={"limit": 1}, headers=ann)).json()
    assert [each["id"] for each in page["exports"]] == [second["id"]]
    page = (await client.get(EXPORTS, params={"limit": 1, "after": page["next"]}, headers=ann)).json()
    assert [each["id"] for each in page["exports"]] == [first["id"]]


async def test_they_are_for_the_person_alone(data: DataLayer, client: httpx.AsyncClient) -> None:
    ann, bob = await session_of(data), await session_of(data, "bob@example.com")
    place = (await client.post(EXPORTS, headers=ann)).headers["location"]
    await data.exports.make_due()
    for method, path in (("GET", place), ("GET", f"{place}/content"), ("DELETE", place)):
        assert code_of(await client.request(method, path, headers=bob)) == (404, "not_found")
        assert code_of(await client.request(method, path)) == (401, "session_invalid")
    key = await client.post(
        "/v1/accounts/me/api-keys", json={"name": "k", "scopes": [ApiScope.READ, ApiScope.WRITE]}, headers=ann
    )
    program = bearer(key.json()["secret"])
    for method, path in (("POST", EXPORTS), ("GET", EXPORTS), ("GET", place), ("GET", f"{place}/content")):
        assert (await client.request(method, path, headers=program)).status_code == 403
