"""What creates is done once, however often and from wherever a request with the same Idempotency-Key is sent."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import httpx
import orjson
import pytest
from sqlalchemy import text

from data_layer import DataLayer
from data_layer.api.app import create_app
from data_layer.errors import CommitUnknownError
from data_layer.schemas.actors import SYSTEM
from data_layer.services import idempotency
from data_layer.services.sealing import Seals
from tests.api.test_projects import client_of, create, people, refused
from tests.file_content import picture
from tests.services.accounts.support import PASSWORD

__all__ = ["people"]

PROJECTS = "/v1/projects"
_AGAIN = "the same again changes nothing"
_LOGIN = "another session begins, and each login is checked; decision 0034"
_SENDS = "at most one mail in five minutes"
_SPENDS = "what it shows is good for once"
WITHOUT_KEY = {
    "/v1/projects/{project_id}/undelete": _AGAIN,
    "/v1/projects/{project_id}/archive": _AGAIN,
    "/v1/projects/{project_id}/unarchive": _AGAIN,
    "/v1/generations/{generation_id}/cancel": _AGAIN,
    "/v1/generations/{generation_id}/writer": "the token that comes last is the one that counts",
    "/v1/generations/{generation_id}/events": "pieces have numbers",
    "/v1/variants/{variant_id}/copies": "a counter, which nothing depends on",
    "/v1/images/{image_id}/publish": _AGAIN,
    "/v1/assets/uploads/{upload_id}/complete": _AGAIN,
    "/v1/assets/{asset_id}/publish": _AGAIN,
    "/v1/accounts/verification": _SENDS,
    "/v1/accounts/verification/confirm": _SPENDS,
    "/v1/accounts/password-reset": _SENDS,
    "/v1/accounts/password-reset/confirm": _SPENDS,
    "/v1/accounts/me/password": _AGAIN,
    "/v1/accounts/me/delete": _AGAIN,
    "/v1/accounts/me/second-factors/totp/{factor_id}/confirm": _SPENDS,
    "/v1/accounts/me/second-factors/passkeys/options": "nothing is stored",
    "/v1/accounts/me/second-factors/challenge": "nothing is stored",
    "/v1/accounts/me/second-factors/{factor_id}/remove": _AGAIN,
    "/v1/accounts/me/identities/{provider}/link": "nothing is stored",
    "/v1/accounts/me/identities/{provider}/unlink": _AGAIN,
    "/v1/sessions": _LOGIN,
    "/v1/sessions/second-factor": _LOGIN,
    "/v1/sessions/passkey": "nothing is stored",
    "/v1/sessions/revoke-others": _AGAIN,
    "/v1/tokens": _LOGIN,
    "/v1/tokens/second-factor": _LOGIN,
    "/v1/tokens/refresh": "a token that comes twice was stolen",
    "/v1/admin/users/{user_id}/suspend": _AGAIN,
    "/v1/admin/users/{user_id}/unsuspend": _AGAIN,
    "/v1/admin/users/{user_id}/unlock": _AGAIN,
    "/v1/admin/users/{user_id}/verify": _AGAIN,
    "/v1/admin/users/{user_id}/password-reset": _SENDS,
    "/v1/admin/mails/{mail_id}/retry": _AGAIN,
    "/v1/admin/maintenance": _AGAIN,
    "/v1/admin/storage/check": _AGAIN,
    "/v1/admin/storage/cleanup": _AGAIN,
}
"""Each POST that takes no key, and why."""
Clients = dict[str, httpx.AsyncClient]
KEY = {"idempotency-key": '"8e03978e-40d5-43dd-bc93-6894a57f9324"'}


async def names(client: httpx.AsyncClient) -> list[str]:
    return sorted(each["name"] for each in (await client.get(PROJECTS)).json()["projects"])


async def change(data: DataLayer, statement: str) -> None:
    async with data.transaction() as tx:
        await tx.execute(text(statement))


async def test_a_repeated_request_is_answered_as_before(data: DataLayer, people: Clients) -> None:
    owner, stranger = people["owner"], people["stranger"]
    first = await owner.post(PROJECTS, json={"name": "Shop"}, headers=KEY)
    again = await owner.post(PROJECTS, json={"name": "Shop"}, headers=KEY)
    bare = await owner.post(PROJECTS, json={"name": "Shop"}, headers={"idempotency-key": KEY["idempotency-key"][1:-1]})
    assert first.status_code == 201
    assert "idempotent-replayed" not in first.headers
    for replayed in (again, bare):
        assert (replayed.status_code, replayed.content) == (201, first.content)
        for name in ("location", "etag", "content-type", "cache-control"):
            assert replayed.headers[name] == first.headers[name]
        assert replayed.headers["idempotent-replayed"] == "true"
        assert replayed.headers["x-request-id"] != first.headers["x-request-id"]
    assert await names(owner) == ["Shop"]

    others: list[tuple[str, dict[str, str]]] = [
        (PROJECTS, {"name": "Other"}),
        (f"{PROJECTS}?x=1", {"name": "Shop"}),
        ("/v1/design-systems", {"name": "Shop", "content": ""}),
    ]
    for path, body in others:
        assert refused(await owner.post(path, json=body, headers=KEY)) == (422, "idempotency_key_reused")
    assert await names(owner) == ["Shop"]
    # Each person has keys of their own.
    assert (await stranger.post(PROJECTS, json={"name": "Theirs"}, headers=KEY)).status_code == 201

    # After a day it is a new request.
    await change(data, "UPDATE idempotency_keys SET created_at = now() - interval '1 day 1 second'")
    late = await owner.post(PROJECTS, json={"name": "Late"}, headers=KEY)
    assert (late.status_code, await names(owner)) == (201, ["Late", "Shop"])
    await change(data, "UPDATE idempotency_keys SET created_at = now() - interval '25 hours'")
    assert (await data.maintenance.run(SYSTEM)).idempotency_keys_removed == 2
    description = (await owner.get("/openapi.json")).json()
    named = {each["name"] for each in description["paths"][PROJECTS]["post"]["parameters"]}
    assert "Idempotency-Key" in named


async def test_of_many_at_once_in_two_processes_one_works(data: DataLayer, people: Clients) -> None:
    async with client_of(create_app(data), dict(people["owner"].headers)) as other:
        clients = [people["owner"], other] * 8
        answers = await asyncio.gather(*(each.post(PROJECTS, json={"name": "Once"}, headers=KEY) for each in clients))
    assert await names(people["owner"]) == ["Once"]
    statuses = {answer.status_code for answer in answers}
    assert 201 in statuses
    assert statuses <= {201, 409}
    for answer in answers:
        if answer.status_code == 409:
            assert (refused(answer)[1], int(answer.headers["retry-after"]) > 0) == ("still_running", True)
    assert len({answer.content for answer in answers if answer.status_code == 201}) == 1


async def test_what_fails_can_be_tried_again_with_the_same_key(
    data: DataLayer, people: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = people["owner"]
    assert (await owner.post(PROJECTS, json={"name": ""}, headers=KEY)).status_code == 422
    assert (await owner.post(PROJECTS, json={"name": "Good"}, headers=KEY)).status_code == 201

    async def doubtful(*_: Any, **__: Any) -> None:
        raise CommitUnknownError("the server is gone")

    unknown = {"idempotency-key": "unknown"}
    with monkeypatch.context() as patch:
        patch.setattr(data.projects, "create", doubtful)
        assert (await owner.post(PROJECTS, json={"name": "x"}, headers=unknown)).status_code == 503
    # It may have been done. The key stays taken until the lease ends, as when a process has died.
    assert refused(await owner.post(PROJECTS, json={"name": "x"}, headers=unknown)) == (409, "still_running")
    await change(data, "UPDATE idempotency_keys SET lease_until = now() - interval '1 second' WHERE answer IS NULL")
    assert (await owner.post(PROJECTS, json={"name": "x"}, headers=unknown)).status_code == 201


async def test_secrets_are_not_stored_and_come_again(
    data: DataLayer, people: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = people["owner"]
    body = {"project_id": (await create(owner))["id"], "models": [{"name": "m"}]}
    first = await owner.post("/v1/generations", json=body, headers=KEY)
    again = await owner.post("/v1/generations", json=body, headers=KEY)
    assert (again.status_code, again.json()) == (201, first.json())
    token = first.json()["writer_token"]
    async with data.transaction() as tx:
        [stored] = (await tx.execute(text("SELECT answer FROM idempotency_keys"))).scalars()
        everything = str(
            (await tx.execute(text("SELECT idempotency_keys::text FROM idempotency_keys"))).scalars().all()
        )
    for form in (token.encode(), base64.b64encode(token.encode())):
        assert form not in stored
    assert KEY["idempotency-key"][1:-1] not in everything

    # With the secret that was before, an answer is still read; with none of both it is not.
    old, new = data.settings.security.session_secrets()[0], "another secret " * 3
    monkeypatch.setattr(data.idempotency, "_seals", Seals("idempotency", [new, old]))
    assert (await owner.post("/v1/generations", json=body, headers=KEY)).json() == first.json()
    monkeypatch.setattr(data.idempotency, "_seals", Seals("idempotency", [new]))
    assert refused(await owner.post("/v1/generations", json=body, headers=KEY)) == (409, "answer_not_kept")


REGISTRATION = {"email": "new@example.com", "password": PASSWORD, "first_name": "N", "last_name": "N"}


async def register(client: httpx.AsyncClient, **values: str) -> httpx.Response:
    answer = await client.post("/v1/accounts", json=REGISTRATION | values, headers=KEY)
    assert answer.status_code == 202, answer.text
    return answer


async def test_registering_twice_is_registering_once(data: DataLayer, people: Clients) -> None:
    """Without a login a key belongs to its request, so that nobody meets the key of somebody else."""
    nobody = people["nobody"]
    first, again = await register(nobody), await register(nobody)
    assert first.json() == again.json()
    assert ("idempotent-replayed" in first.headers, again.headers["idempotent-replayed"]) == (False, "true")
    assert len(await data.mails.list(SYSTEM)) == 1
    other = await register(nobody, email="other@example.com")
    assert other.json() != first.json()
    assert "idempotent-replayed" not in other.headers
    weak = await nobody.post("/v1/accounts", json=REGISTRATION | {"password": "x"}, headers=KEY)
    assert weak.status_code == 422
    in_cookie = [await nobody.post("/v1/accounts", json=REGISTRATION | {"cookie": True}, headers=KEY) for _ in "12"]
    assert in_cookie[0].json() == {"status": "accepted", "proof": None}
    assert in_cookie[0].headers["set-cookie"] == in_cookie[1].headers["set-cookie"]


async def test_what_is_kept_of_a_body_lets_nobody_guess_it(data: DataLayer, people: Clients) -> None:
    """A body may hold a password: a plain hash of it would confirm each guess."""
    body = b'{"name": "Shop"}'
    headers = KEY | {"content-type": "application/json"}
    assert (await people["owner"].post(PROJECTS, content=body, headers=headers)).status_code == 201
    await register(people["nobody"])
    sent = orjson.dumps(REGISTRATION)
    hashes = [hashlib.sha256(b"POST /v1/projects?\n" + body), hashlib.sha256(b"POST /v1/accounts?\n" + sent)]
    async with data.transaction() as tx:
        stored = "".join((await tx.execute(text("SELECT known::text FROM idempotency_keys AS known"))).scalars())
    stored = stored.replace("-", "")
    assert len(stored) > 200
    assert not [each.hexdigest() for each in hashes if each.hexdigest()[:32] in stored]


async def test_each_route_that_creates_takes_a_key(description: dict[str, Any]) -> None:
    found = set()
    for path, operations in description["paths"].items():
        if (operation := operations.get("post")) is not None:
            taken = {each["name"] for each in operation.get("parameters", ())}
            if "Idempotency-Key" not in taken:
                found.add(path)
    assert found == WITHOUT_KEY.keys()


async def test_the_lease_lasts_as_long_as_the_work(
    data: DataLayer, people: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idempotency, "LEASE", timedelta(milliseconds=90))
    owner, finish, extended = people["owner"], asyncio.Event(), asyncio.Event()
    create_project = data.projects.create

    async def slow(*args: Any, **values: Any) -> Any:
        async with data.transaction() as tx:
            claimed = (await tx.execute(text("SELECT lease_until FROM idempotency_keys"))).scalar_one()
        while not extended.is_set():
            async with data.transaction() as tx:
                lease = (await tx.execute(text("SELECT lease_until FROM idempotency_keys"))).scalar_one()
            if lease > claimed + timedelta(milliseconds=90):
                extended.set()
        await finish.wait()
        return await create_project(*args, **values)

    monkeypatch.setattr(data.projects, "create", slow)
    running = asyncio.create_task(owner.post(PROJECTS, json={"name": "Slow"}, headers=KEY))
    await asyncio.wait_for(extended.wait(), 30)
    finish.set()
    assert (await running).status_code == 201


async def test_an_upload_is_the_same_with_another_boundary(people: Clients) -> None:
    owner, image = people["owner"], picture("png", (64, 48))

    async def send(boundary: str, content: bytes) -> httpx.Response:
        form = (
            f'--{boundary}\r\ncontent-disposition: form-data; name="file"; filename="a.png"\r\n\r\n'.encode()
            + content
            + f"\r\n--{boundary}--\r\n".encode()
        )

        async def pieces() -> AsyncIterator[bytes]:
            for start in range(0, len(form), 7):
                yield form[start : start + 7]

        kind = f"multipart/form-data; boundary={boundary}"
        return await owner.post("/v1/assets", content=pieces(), headers={**KEY, "content-type": kind})

    first = await send("first-boundary-0123456789", image)
    again = await send("another-boundary", image)
    assert (first.status_code, again.status_code, again.content) == (201, 201, first.content)
    assert len((await owner.get("/v1/assets")).json()["assets"]) == 1
    other = await send("first-boundary-0123456789", picture("png", (48, 64)))
    assert refused(other) == (422, "idempotency_key_reused")


async def test_an_answer_that_is_too_large_is_not_kept(people: Clients, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idempotency, "LARGEST_ANSWER", 100)
    owner = people["owner"]
    first = await owner.post(PROJECTS, json={"name": "Large"}, headers=KEY)
    again = await owner.post(PROJECTS, json={"name": "Large"}, headers=KEY)
    assert refused(again) == (409, "answer_not_kept")
    assert first.headers["location"] in again.json()["detail"]
    assert await names(owner) == ["Large"]


@pytest.mark.parametrize("key", [b"", b'""', b"a b", b"\xc3\xa9", b"x" * 256, b'a"b', b"a\\b"])
async def test_what_is_no_key(people: Clients, key: bytes) -> None:
    answer = await people["owner"].post(PROJECTS, json={"name": "x"}, headers=[(b"idempotency-key", key)])
    assert refused(answer) == (422, "invalid_value")
    assert answer.json()["fields"][0]["field"] == "Idempotency-Key"
