"""The own account: profile, password, devices, keys, usage, and its end."""

from __future__ import annotations

import io
import re
import zipfile
from contextlib import aclosing
from decimal import Decimal

from fastapi import FastAPI

from data_layer import DataLayer
from data_layer.schemas.actors import SYSTEM
from data_layer.schemas.usage import NewUsage
from tests.console.conftest import LOGIN, Visitor, browser
from tests.services.accounts.support import PASSWORD

ACCOUNT = "/console/account"
HOSTILE = "<script>alert(1)</script>"
NEW = "another horse and another battery"


async def test_names_are_changed_and_text(ann: Visitor) -> None:
    fields = {"first_name": HOSTILE, "last_name": "O'Hara", "display_name": ""}
    assert (await ann.send(f"{ACCOUNT}/profile", **fields)).endswith("done=saved")
    page = await ann.look(ACCOUNT)
    assert HOSTILE not in page
    assert 'value="&lt;script&gt;' in page
    assert 'value="O&#39;Hara"' in page
    refused = await ann.client.post(f"{ACCOUNT}/profile", data=fields | {"last_name": " "})
    assert (refused.status_code, 'role="alert"' in refused.text) == (422, True)


async def test_a_changed_password_ends_the_other_sessions(app: FastAPI, ann: Visitor) -> None:
    async with browser(app) as other:
        await other.post(LOGIN, data={"email": "ann@example.com", "password": PASSWORD})
        assert (await other.get(ACCOUNT)).status_code == 200
        wrong = await ann.client.post(f"{ACCOUNT}/password", data={"current": "wrong", "new": NEW})
        assert "The current password is not right" in wrong.text
        weak = await ann.client.post(f"{ACCOUNT}/password", data={"current": PASSWORD, "new": "password"})
        assert weak.status_code == 422
        await ann.send(f"{ACCOUNT}/password", current=PASSWORD, new=NEW)
        assert (await other.get(ACCOUNT)).status_code == 303
    await ann.look(ACCOUNT)


async def test_a_lost_device_is_logged_out(app: FastAPI, ann: Visitor) -> None:
    async with browser(app) as lost:
        agent = {"user-agent": "Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0"}
        await lost.post(LOGIN, data={"email": "ann@example.com", "password": PASSWORD}, headers=agent)
        page = await ann.look(ACCOUNT)
        assert "Firefox · Linux" in page
        (end,) = re.findall(rf'action="({ACCOUNT}/sessions/[0-9a-f-]+/end)"', page)
        await ann.send(end)
        assert (await lost.get(ACCOUNT)).status_code == 303
        await lost.post(LOGIN, data={"email": "ann@example.com", "password": PASSWORD})
        await ann.send(f"{ACCOUNT}/sessions/end-others")
        assert (await lost.get(ACCOUNT)).status_code == 303


async def test_a_key_is_shown_once_and_opens_no_page(app: FastAPI, ann: Visitor) -> None:
    fields = {"name": "CI", "scope": ["read", "write", "nonsense"], "expires": "30"}
    answer = await ann.client.post(f"{ACCOUNT}/keys", data=fields)
    assert answer.status_code == 201
    (secret,) = re.findall(r'id="secret" readonly value="([^"]+)"', answer.text)
    bearer = {"authorization": f"Bearer {secret}"}
    async with browser(app) as program:
        assert (await program.get("/v1/accounts/me", headers=bearer)).status_code == 200
        assert (await program.get(ACCOUNT, headers=bearer)).status_code == 403
    page = await ann.look(f"{ACCOUNT}/keys")
    assert secret not in page
    (revoke,) = re.findall(rf'action="({ACCOUNT}/keys/[0-9a-f-]+/revoke)"', page)
    assert "End this key for good?" in (await ann.client.post(revoke)).text
    assert '<span class="badge">revoked</span>' not in await ann.look(f"{ACCOUNT}/keys")
    await ann.send(revoke, confirmed="yes")
    assert "revoked" in await ann.look(f"{ACCOUNT}/keys")
    nothing = await ann.client.post(f"{ACCOUNT}/keys", data={"name": "CI"})
    assert nothing.status_code == 422
    admin = await ann.client.post(f"{ACCOUNT}/keys", data={"name": "CI", "scope": "admin"})
    assert admin.status_code == 403


async def test_usage_is_a_chart_and_the_budget_a_meter(data: DataLayer, ann: Visitor) -> None:
    assert "Nothing was spent" in await ann.look(f"{ACCOUNT}/usage")
    await data.usage.set_budget(SYSTEM, ann.id, Decimal(20))
    for number, cost in enumerate(("4.5", "0.5")):
        usage = NewUsage(key=f"k{number}", provider="p", model=f"m{number}", cost=Decimal(cost), input_tokens=1200)
        await data.usage.record(ann.actor, usage)
    page = await ann.look(f"{ACCOUNT}/usage")
    assert "$5.00 of $20.00 are spent, $15.00 are left." in page
    assert page.count('<rect class="bar"') == 1
    assert '<rect class="used" width="25.00"' in page
    assert re.findall(r"<td[^>]*>(m\d)</td>", page) == ["m0", "m1"]
    german = await ann.client.get(f"{ACCOUNT}/usage", headers={"accept-language": "de"})
    assert "5,00\N{NO-BREAK SPACE}$ von 20,00\N{NO-BREAK SPACE}$" in german.text


async def test_everything_can_be_taken_along(data: DataLayer, ann: Visitor) -> None:
    assert "Make an archive" in await ann.look(ACCOUNT)
    assert await ann.send(f"{ACCOUNT}/exports") == f"{ACCOUNT}?done=export_begun"
    waiting = await ann.look(ACCOUNT)
    assert 'hx-trigger="every 2s"' in waiting
    assert f'action="{ACCOUNT}/exports"' not in waiting
    await data.exports.make_due()
    page = await ann.look(ACCOUNT)
    assert 'hx-trigger="every 2s"' not in page
    (address,) = re.findall(rf'href="({ACCOUNT}/exports/[0-9a-f-]+/content)"', page)
    answer = await ann.client.get(address, follow_redirects=True)
    assert answer.headers["content-disposition"].startswith("attachment; filename=")
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert "summary.json" in archive.namelist()
        assert b"ann@example.com" in archive.read("account.json")


async def test_an_account_ends_only_with_its_address_and_password(data: DataLayer, app: FastAPI, ann: Visitor) -> None:
    other_address = await ann.client.post(f"{ACCOUNT}/delete", data={"email": "ben@example.com", "password": PASSWORD})
    assert (other_address.status_code, "nothing was deleted" in other_address.text) == (422, True)
    for fields, reason in (
        ({"password": NEW}, "The password or the code is not right."),
        ({"code": "123456"}, "show the password"),
        ({}, "show the password"),
    ):
        refused = await ann.client.post(f"{ACCOUNT}/delete", data={"email": "ann@example.com", **fields})
        assert (refused.status_code, reason in refused.text) == (422, True)
    fields = {"email": " ANN@example.com ", "password": PASSWORD}
    assert await ann.send(f"{ACCOUNT}/delete", **fields) == f"{LOGIN}?done=account_deleted"
    assert (await ann.client.get(ACCOUNT)).status_code == 303
    async with aclosing(browser(app)) as client:
        answer = await client.post(LOGIN, data={"email": "ann@example.com", "password": PASSWORD})
        assert answer.status_code == 401
    assert not [user for user in await data.accounts.list(SYSTEM) if user.email == "ann@example.com"]
