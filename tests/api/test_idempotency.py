"""What creates is done once, however often and from wherever a request with the same Idempotency-Key is sent."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import httpx
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

__all__ = ["people"]

PROJECTS = "/v1/projects"
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
