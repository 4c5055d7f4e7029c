"""The second factor: switched on with an app, asked for at the login, and removed."""

from __future__ import annotations

import json
import re
from typing import Any

import pyotp
from fastapi import FastAPI
from sqlalchemy import text

from data_layer import DataLayer
from data_layer.services.accounts.passkeys import PasskeySite
from tests.authenticator import Passkey
from tests.console.conftest import LOGIN, Visitor, browser
from tests.services.accounts.support import PASSWORD

FACTORS = "/console/account/factors"


async def test_an_app_is_added_asked_for_and_removed(app: FastAPI, ann: Visitor) -> None:
    wrong = await ann.client.post(FACTORS, data={"password": "wrong"})
    assert (wrong.status_code, "is not right" in wrong.text) == (422, True)
    begun = await ann.client.post(FACTORS, data={"password": PASSWORD})
    assert "<svg" in begun.text.partition('<div class="qr">')[2]
    assert "style=" not in begun.text
    (secret,) = re.findall(r"<code>([A-Z2-7]{32})</code>", begun.text)
    (confirm,) = re.findall(rf'action="({FACTORS}/[0-9a-f-]+/confirm)"', begun.text)
    assert (await ann.client.post(confirm, data={"code": "000000"})).status_code == 422
    done = await ann.client.post(confirm, data={"code": pyotp.TOTP(secret).now()})
    codes = re.findall(r"<li><code>([^<]+)</code>", done.text)
    assert len(codes) == 10
    assert codes[0] not in await ann.look(FACTORS)

    async with browser(app) as client:
        fields = {"email": "ann@example.com", "password": PASSWORD, "next": "/console/account"}
        asked = await client.post(LOGIN, data=fields)
        assert asked.status_code == 200
        assert (await client.get("/console/account")).status_code == 303
        (challenge,) = re.findall(r'name="challenge" value="([^"]+)"', asked.text)
        answer = {"challenge": challenge, "next": "/console/account"}
        refused = await client.post(f"{LOGIN}/factor", data=answer | {"code": "nonsense"})
        assert (refused.status_code, "is not right" in refused.text) == (401, True)
        # Another language is chosen on that page, to which nobody can return.
        (back,) = re.findall(r'name="back" value="([^"]*)"', refused.text)
        chosen = await client.post("/console/language", data={"language": "de", "back": back})
        assert (await client.get(chosen.headers["location"], follow_redirects=True)).status_code == 200
        forged = await client.post(f"{LOGIN}/factor", data={"challenge": "forged", "code": codes[0]})
        assert forged.status_code == 401
        right = await client.post(f"{LOGIN}/factor", data=answer | {"code": f" {codes[0]} "})
        assert (right.status_code, right.headers["location"]) == (303, "/console/account")
        assert (await client.get("/console/account")).status_code == 200

    page = await ann.look(FACTORS)
    assert "9 recovery codes left" in page
    renewed = await ann.client.post(f"{FACTORS}/codes", data={"password": PASSWORD})
    assert len(re.findall(r"<li><code>([^<]+)</code>", renewed.text)) == 10
    (remove,) = re.findall(rf'action="({FACTORS}/[0-9a-f-]+/remove)"', page)
    assert (await ann.client.post(remove, data={"password": "wrong"})).status_code == 422
    await ann.send(remove, password=PASSWORD)
    async with browser(app) as client:
        assert (await client.post(LOGIN, data=fields)).status_code == 303


def hidden(page: str, name: str) -> str:
    value: str
    [value] = re.findall(rf'name="{name}" value="([^"]+)"', page)
    return value


def asked(page: str, which: int = 0) -> dict[str, Any]:
    """What the script hands to the browser."""
    options = re.findall(r"data-options='([^']+)'", page)[which]
    challenge = re.findall(r'data-challenge="([^"]+)"', page)[which]
    return {"challenge": challenge, "options": json.loads(options)}


async def test_a_passkey_is_added_named_asked_for_enough_alone_and_removed(
    app: FastAPI, ann: Visitor, data: DataLayer
) -> None:
    passkey = Passkey(origin=PasskeySite.of(data.settings.base_url, None, ()).origins[0])
    refused = await ann.client.post(f"{FACTORS}/passkeys", data={"password": "a wrong horse"})
    assert (refused.status_code, 'role="alert"' in refused.text) == (422, True)
    begun = asked((await ann.client.post(f"{FACTORS}/passkeys", data={"password": PASSWORD})).text)
    fields = {"challenge": begun["challenge"], "name": "<b>Key"}
    for wrong in ("", "[]", "{}", "{" * 1000):
        answer = await ann.client.post(f"{FACTORS}/passkeys/add", data=fields | {"answer": wrong})
        assert (answer.status_code, 'role="alert"' in answer.text) == (422, True), wrong
    fields["answer"] = json.dumps(passkey.make(begun["options"]))
    added = await ann.client.post(f"{FACTORS}/passkeys/add", data=fields)
    assert (added.status_code, "&lt;b&gt;Key" in added.text) == (200, True)
    code = re.findall(r"<li><code>([a-z2-7-]+)</code></li>", added.text)[0]

    async with browser(app) as client:
        needed = (await client.post(LOGIN, data={"email": "ann@example.com", "password": PASSWORD})).text
        wrong_code = {
            "challenge": hidden(needed, "challenge"),
            "code": "nonsense",
            "passkey": json.dumps(asked(needed)["options"]),
        }
        again = await client.post("/console/login/factor", data=wrong_code)
        assert again.status_code == 401
        assert asked(again.text) == asked(needed), "the passkey may still be used"
        shown = {
            "challenge": asked(again.text)["challenge"],
            "answer": json.dumps(passkey.answer(asked(again.text)["options"])),
        }
        assert (await client.post("/console/login/factor", data=shown)).status_code == 303
        replayed = await client.post("/console/login/factor", data=shown)
        assert (replayed.status_code, "not known here" in replayed.text) == (401, True)
    async with browser(app) as client:
        begun = (await client.get(f"{LOGIN}/passkey")).json()
        unverified = json.dumps(passkey.answer(begun["options"], is_unverified=True))
        refused = await client.post(f"{LOGIN}/passkey", data={"challenge": begun["challenge"], "answer": unverified})
        assert (refused.status_code, "not known here" in refused.text) == (401, True)
        begun = (await client.get(f"{LOGIN}/passkey")).json()
        shown = {"challenge": begun["challenge"], "answer": json.dumps(passkey.answer(begun["options"]))}
        done = await client.post(f"{LOGIN}/passkey", data=shown | {"next": "/console/account"})
        assert (done.status_code, done.headers["location"]) == (303, "/console/account")

    # Without a password a code or the passkey confirms.
    async with data.transaction() as tx:
        await tx.execute(text("UPDATE users SET password_hash = NULL WHERE id = :id").bindparams(id=ann.id))
    page = await ann.look(FACTORS)
    assert 'name="password"' not in page
    [remove] = re.findall(rf"{FACTORS}/[0-9a-f-]+/remove", page)
    assert (await ann.client.post(remove, data={"code": "abcd"})).status_code == 422
    renewed = await ann.client.post(f"{FACTORS}/codes", data={"code": code})
    assert len(re.findall(r"<li><code>", renewed.text)) == 10
    begun = asked(renewed.text)
    shown = {"challenge": begun["challenge"], "answer": json.dumps(passkey.answer(begun["options"]))}
    assert await ann.send(remove, **shown) == f"{FACTORS}?done=saved"
    assert "Your factors" not in await ann.look(FACTORS)


async def test_somebody_without_a_password_leaves_it_empty(data: DataLayer, ann: Visitor) -> None:
    asked = await ann.client.post(FACTORS, data={"password": ""})
    assert (asked.status_code, "once more" in asked.text) == (422, True)
    async with data.transaction() as tx:
        await tx.execute(text("UPDATE users SET password_hash = NULL WHERE id = :id").bindparams(id=ann.id))
    begun = await ann.client.post(FACTORS, data={"password": ""})
    assert (begun.status_code, '<div class="qr">' in begun.text) == (200, True)
