"""Second factors over HTTP: added in a session, and asked for by the next login."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pyotp
import pytest

from data_layer import DataLayer
from data_layer.entities.enums import UserRole
from data_layer.services.accounts.passkeys import PasskeySite
from tests.authenticator import Passkey
from tests.services.accounts.support import PASSWORD, make_account

from .test_people import LOGIN, bearer, client_of, code_of, log_in

FACTORS = "/v1/accounts/me/second-factors"


@pytest.fixture
async def client(data: DataLayer) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(data) as client:
        yield client


async def ask(client: httpx.AsyncClient, path: str = "/v1/sessions") -> dict[str, Any]:
    """What a right password is answered."""
    answer = await client.post(path, json=LOGIN)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    assert body["status"] == "second_factor_required"
    assert "set-cookie" not in answer.headers
    return body


async def test_with_an_app_and_recovery_codes(client: httpx.AsyncClient, data: DataLayer) -> None:
    await make_account(data)
    session = await log_in(client)
    refused = await client.post(f"{FACTORS}/totp", json={"password": "wrong horse and battery"}, headers=session)
    assert code_of(refused) == (401, "invalid_credentials")
    app = (await client.post(f"{FACTORS}/totp", json={"password": PASSWORD}, headers=session)).json()
    totp = pyotp.parse_uri(app["uri"])
    assert isinstance(totp, pyotp.TOTP)
    code = totp.now()
    added = await client.post(f"{FACTORS}/totp/{app['id']}/confirm", json={"code": code}, headers=session)
    assert added.status_code == 200, added.text
    first, second, third, fourth, *_ = added.json()["recovery_codes"]

    needed = await ask(client)
    assert (needed["methods"], needed["passkey"]) == (["totp", "recovery_code"], None)
    body = {"challenge": needed["challenge"]}
    wrong = await client.post("/v1/sessions/second-factor", json=body | {"code": "000000"})
    assert code_of(wrong) == (401, "second_factor_invalid")
    ended = await client.post("/v1/sessions/second-factor", json={"challenge": "x.y", "code": "000000"})
    assert code_of(ended) == (400, "login_invalid")
    begun = await client.post("/v1/sessions/second-factor", json=body | {"recovery_code": first, "cookie": True})
    assert (begun.status_code, begun.json()["token"]) == (201, None)
    assert "__Host-session=" in begun.headers["set-cookie"]
    client.cookies.clear()
    needed = await ask(client, "/v1/tokens")
    body = {"challenge": needed["challenge"], "recovery_code": second}
    tokens = await client.post("/v1/tokens/second-factor", json=body)
    assert tokens.status_code == 201, tokens.text
    access = bearer(tokens.json()["access_token"])
    listed = (await client.get(FACTORS, headers=access)).json()
    assert (len(listed["factors"]), listed["recovery_codes_left"]) == (1, 8)
    renewed = await client.post(f"{FACTORS}/recovery-codes", json={"recovery_code": third}, headers=access)
    assert (renewed.status_code, len(renewed.json()["recovery_codes"])) == (201, 10)
    stale = await client.post(f"{FACTORS}/{app['id']}/remove", json={"recovery_code": fourth}, headers=access)
    assert code_of(stale) == (401, "second_factor_invalid")
    proof = {"recovery_code": renewed.json()["recovery_codes"][0]}
    other = await client.post(f"{FACTORS}/totp", json=proof | {"name": "Tablet"}, headers=access)
    assert other.status_code == 201, "a factor is as good as the password"
    used = await client.post(f"{FACTORS}/passkeys/options", json=proof, headers=access)
    assert code_of(used) == (401, "second_factor_invalid")
    proof = {"recovery_code": renewed.json()["recovery_codes"][1]}
    assert (await client.post(f"{FACTORS}/passkeys/options", json=proof, headers=access)).status_code == 200
    removed = await client.post(f"{FACTORS}/{app['id']}/remove", json={"password": PASSWORD}, headers=access)
    assert removed.status_code == 204
    await log_in(client)


async def test_with_a_passkey(client: httpx.AsyncClient, data: DataLayer) -> None:
    ann = await make_account(data)
    session = await log_in(client)
    passkey = Passkey(origin=PasskeySite.of(data.settings.base_url, None, ()).origins[0])
    begun = (await client.post(f"{FACTORS}/passkeys/options", json={"password": PASSWORD}, headers=session)).json()
    new = {"challenge": begun["challenge"], "answer": passkey.make(begun["options"]), "name": "Laptop"}
    added = await client.post(f"{FACTORS}/passkeys", json=new, headers=session)
    assert added.status_code == 201, added.text
    again = await client.post(f"{FACTORS}/passkeys", json=new, headers=session)
    assert code_of(again) == (409, "duplicate")
    needed = await ask(client)
    body = {"challenge": needed["challenge"], "passkey": passkey.answer(needed["passkey"])}
    assert (await client.post("/v1/sessions/second-factor", json=body)).status_code == 201
    begun = (await client.post("/v1/sessions/passkey", json={})).json()
    body = {"challenge": begun["challenge"], "passkey": passkey.answer(begun["options"])}
    alone = await client.post("/v1/tokens/second-factor", json=body)
    assert (alone.status_code, alone.json()["token_type"]) == (201, "Bearer"), "no password is needed"
    asked = (await client.post(f"{FACTORS}/challenge", headers=session)).json()
    body = {"challenge": asked["challenge"], "passkey": passkey.answer(asked["passkey"])}
    factor_id = added.json()["factor"]["id"]
    assert (await client.post(f"{FACTORS}/{factor_id}/remove", json=body, headers=session)).status_code == 204

    begun = (await client.post("/v1/sessions/passkey", json={})).json()
    answered = {"challenge": begun["challenge"], "passkey": passkey.answer(begun["options"])}
    assert code_of(await client.post("/v1/tokens/second-factor", json=answered)) == (401, "second_factor_invalid")

    root = await make_account(data, "root@example.com", role=UserRole.ADMIN)
    admin = await log_in(client, email=root.email)
    path = f"/v1/admin/users/{ann.id}/second-factors"
    assert (await client.get(path, headers=admin)).json() == {"factors": [], "recovery_codes_left": 0}
    assert (await client.delete(path, headers=admin)).json() == {"removed": 0}
    assert code_of(await client.delete(path, headers=session)) == (403, "permission_denied")
