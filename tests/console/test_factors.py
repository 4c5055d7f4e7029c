"""The second factor: switched on with an app, asked for at the login, and removed."""

from __future__ import annotations

import re

import pyotp
from fastapi import FastAPI
from sqlalchemy import text

from data_layer import DataLayer
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


async def test_somebody_without_a_password_leaves_it_empty(data: DataLayer, ann: Visitor) -> None:
    asked = await ann.client.post(FACTORS, data={"password": ""})
    assert (asked.status_code, "once more" in asked.text) == (422, True)
    async with data.transaction() as tx:
        await tx.execute(text("UPDATE users SET password_hash = NULL WHERE id = :id").bindparams(id=ann.id))
    begun = await ann.client.post(FACTORS, data={"password": ""})
    assert (begun.status_code, '<div class="qr">' in begun.text) == (200, True)
