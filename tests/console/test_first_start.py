"""The first administrator of an empty service."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from fastapi import FastAPI

from data_layer import DataLayer, Settings
from data_layer.entities.enums import UserRole
from data_layer.errors import ConflictError, InvalidOneTimeTokenError
from data_layer.schemas.actors import SYSTEM
from tests.console.conftest import browser
from tests.services.accounts.support import PASSWORD, make_account

FIRST = "/console/first"
FIELDS = {"email": "boss@example.com", "first_name": "Ada", "last_name": "Boss", "password": PASSWORD}


async def send(client: httpx.AsyncClient, code: str, **fields: str) -> httpx.Response:
    return await client.post(FIRST, data=FIELDS | {"code": code} | fields)


async def test_the_code_makes_the_first_administrator_once(data: DataLayer, app: FastAPI) -> None:
    # Somebody who registers before does not stand in the way.
    await make_account(data, "stranger@example.com")
    first, code = await data.first_administrator.offer(), await data.first_administrator.offer()
    assert first
    assert code
    async with browser(app) as client:
        assert FIRST in (await client.get("/console/login")).text
        assert (await client.get(FIRST)).status_code == 200
        for wrong in ("", "AAAAA-AAAAA-AAAAA-AAAAA", first):
            refused = await send(client, wrong)
            assert (refused.status_code, "The code is not valid" in refused.text) == (403, True)
        weak = await send(client, code, password="unique7")
        assert (weak.status_code, 'value="boss@example.com"' in weak.text) == (422, True)
        assert "unique7" not in weak.text
        assert (await send(client, code, email="stranger@example.com")).status_code == 422
        done = await send(client, code.lower().replace("-", " "))
        assert (done.status_code, done.headers["location"]) == (303, "/console/projects")
        assert (await client.get("/console/admin/maintenance")).status_code == 200
    async with browser(app) as client:
        again = await send(client, code, email="other@example.com")
        assert again.status_code == 403
        assert (await client.get(FIRST)).headers["location"] == "/console/login"
        assert FIRST not in (await client.get("/console/login")).text
    assert await data.first_administrator.offer() is None
    (admin,) = await data.accounts.list(SYSTEM, role=UserRole.ADMIN)
    assert admin.email == "boss@example.com"


async def test_other_processes_know_the_code_and_one_claim_wins(data: DataLayer, settings: Settings) -> None:
    code = await data.first_administrator.offer()
    assert code
    async with DataLayer(settings) as other:

        async def claim(layer: DataLayer, number: int) -> bool:
            try:
                await layer.first_administrator.claim(
                    code, email=f"a{number}@example.com", password=PASSWORD, first_name="A", last_name="B"
                )
            except (InvalidOneTimeTokenError, ConflictError):
                return False
            return True

        outcomes = await asyncio.gather(*(claim(layer, number) for number, layer in enumerate([data, other] * 4)))
    assert sum(outcomes) == 1
    assert len(await data.accounts.list(SYSTEM, role=UserRole.ADMIN)) == 1


async def test_a_code_that_the_cache_has_lost_is_refused(data: DataLayer) -> None:
    code = await data.first_administrator.offer()
    assert code
    await data.cache.flush()
    with pytest.raises(InvalidOneTimeTokenError):
        await data.first_administrator.claim(
            code, email="a@example.com", password=PASSWORD, first_name="A", last_name="B"
        )


async def test_outsiders_keep_nobody_from_the_code(data: DataLayer, app: FastAPI) -> None:
    code = await data.first_administrator.offer()
    assert code
    async with browser(app) as client:
        # Somebody is in the middle of it; a visitor without the code learns nothing of it.
        assert await data.cache.add("first-administrator:claim", 1, ttl=30)
        refused = await send(client, "AAAAA-AAAAA-AAAAA-AAAAA")
        assert (refused.status_code, "The code is not valid" in refused.text) == (403, True)
        waiting = await send(client, code)
        assert (waiting.status_code, "somebody else is using the code" in waiting.text) == (422, True)
        await data.cache.delete("first-administrator:claim")
        assert (await send(client, code)).status_code == 303


async def test_that_there_is_an_administrator_is_asked_once(data: DataLayer, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await data.first_administrator.is_missing()
    await make_account(data, "boss@example.com", role=UserRole.ADMIN)
    assert not await data.first_administrator.is_missing()

    async def fail(*_: object, **__: object) -> None:
        raise AssertionError("asked again")

    monkeypatch.setattr(type(data.accounts), "list", fail)
    assert not await data.first_administrator.is_missing()
