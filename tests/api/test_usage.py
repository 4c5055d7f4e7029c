"""Usage and budgets over HTTP, as the person, a stranger and an administrator."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

import httpx
from fastapi import FastAPI

from data_layer import DataLayer
from data_layer.entities.enums import UserRole
from data_layer.schemas.actors import SYSTEM
from data_layer.schemas.usage import NewUsage
from tests.api.test_projects import client_of, people, refused
from tests.services.accounts.support import PASSWORD, make_account

__all__ = ["people"]

USAGE = "/v1/usage"
DAYS = {"first_day": "2026-08-01", "last_day": "2026-08-31"}


async def record(data: DataLayer, user_id: UUID, key: str, model: str, cost: str) -> None:
    at = datetime(2026, 8, 15, tzinfo=UTC)
    usage = NewUsage(key=key, provider="openai", model=model, cost=Decimal(cost), input_tokens=7, at=at)
    await data.usage.record(SYSTEM, usage, user_id=user_id)


async def test_sums_as_json_and_as_csv(data: DataLayer, people: dict[str, httpx.AsyncClient]) -> None:
    owner, stranger = people["owner"], people["stranger"]
    user_id = (await data.accounts.find(SYSTEM, "owner@example.com")).id
    for key, model, cost in (("1", "gpt", "0.00000001"), ("2", "gpt", "1.5"), ("3", '=cmd|"x"', "2")):
        await record(data, user_id, key, model, cost)

    found = await owner.get(USAGE, params={"by": ["model", "day"], **DAYS})
    assert found.status_code == 200, found.text
    assert {(each["model"], each["day"], Decimal(each["cost"]), each["entries"]) for each in found.json()["sums"]} == {
        ("gpt", "2026-08-15", Decimal("1.50000001"), 2),
        ('=cmd|"x"', "2026-08-15", Decimal(2), 1),
    }
    by_format = await owner.get(USAGE, params={"by": ["model"], "format": "csv", **DAYS})
    by_accept = await owner.get(USAGE, params={"by": ["model"], **DAYS}, headers={"accept": "text/csv, */*;q=0.1"})
    assert by_format.content == by_accept.content
    assert by_format.headers["content-type"] == "text/csv; charset=utf-8"
    assert by_format.headers["content-disposition"] == 'attachment; filename="usage.csv"'
    header, *rows = csv.reader(io.StringIO(by_format.text))
    assert header[:3] == ["model", "currency", "entries"]
    # A spreadsheet calculates nothing.
    assert {(row[0], Decimal(row[-1])) for row in rows} == {("gpt", Decimal("1.50000001")), ('\'=cmd|"x"', Decimal(2))}
    wanted = {"accept": "text/csv;q=0.2, application/json", "content-type": ""}
    assert "sums" in (await owner.get(USAGE, params={"by": ["model"]}, headers=wanted)).json()

    assert (await stranger.get(USAGE)).json()["sums"] == []
    assert refused(await stranger.get(USAGE, params={"user_id": str(user_id)})) == (403, "permission_denied")
    assert refused(await stranger.get(USAGE, params={"everyone": "true"})) == (403, "permission_denied")
    assert refused(await owner.get(USAGE, params={"by": "color"})) == (422, "request_invalid")
    assert refused(await owner.get(USAGE, params={"until": "2026-01-01"})) == (422, "request_invalid")
    for text in ("0", "1e9", "20260801", "2026-08-01T00:00:00", "2026-8-1"):
        assert refused(await owner.get(USAGE, params={"last_day": text})) == (422, "request_invalid"), text

    seen, url = [], f"{USAGE}/entries?limit=2"
    while url:
        page = await owner.get(url)
        seen += [each["key"] for each in page.json()["entries"]]
        url = page.links["next"]["url"] if "next" in page.links else ""
    assert seen == ["3", "2", "1"]
    assert refused(await stranger.get(f"{USAGE}/entries", params={"user_id": str(user_id)}))[0] == 403


async def test_a_budget_is_set_by_administrators(
    data: DataLayer, app: FastAPI, people: dict[str, httpx.AsyncClient]
) -> None:
    await make_account(data, "admin@example.com", role=UserRole.ADMIN)
    new = await data.accounts.log_in("admin@example.com", PASSWORD)
    owner, path = people["owner"], "/v1/budgets/USD"
    user_id = (await data.accounts.find(SYSTEM, "owner@example.com")).id
    whose = {"user_id": str(user_id)}
    assert refused(await owner.get(path)) == (404, "not_found")
    async with client_of(app, {"authorization": f"Bearer {new.token.get_secret_value()}"}) as admin:
        new_one = {"if-none-match": "*"}
        assert refused(await owner.put(path, params=whose, json={"monthly_limit": "10"}, headers=new_one))[0] == 403
        assert refused(await people["moderator"].get(path, params=whose))[0] == 403
        set_to = await admin.put(path, params=whose, json={"monthly_limit": "10.00000001"}, headers=new_one)
        assert set_to.status_code == 200, set_to.text
        tag = {"if-match": set_to.headers["etag"]}
        await data.usage.record(SYSTEM, NewUsage(key="x", provider="p", model="m", cost=Decimal(3)), user_id=user_id)
        shown = (await owner.get(path)).json()
        assert (Decimal(shown["monthly_limit"]), Decimal(shown["spent"])) == (Decimal("10.00000001"), Decimal(3))
        assert Decimal(shown["remaining"]) == Decimal("7.00000001")
        for wrong in ("-1", "NaN", "1e30", "0.000000001", True, None):
            answer = await admin.put(path, params=whose, json={"monthly_limit": wrong}, headers=tag)
            assert answer.status_code == 422, wrong
        assert (
            await admin.put("/v1/budgets/usd", params=whose, json={"monthly_limit": "1"}, headers=tag)
        ).status_code == 422
        missing = {"user_id": "0190a5b0-0000-7000-8000-000000000000"}
        assert refused(await admin.put(path, params=missing, json={"monthly_limit": "1"}, headers=new_one))[0] == 404
        assert (await admin.delete(path, params=whose)).status_code == 204
    assert refused(await owner.get(path)) == (404, "not_found")


async def test_a_limit_that_another_administrator_has_set_is_not_lost(
    data: DataLayer, app: FastAPI, people: dict[str, httpx.AsyncClient]
) -> None:
    assert people
    await make_account(data, "admin@example.com", role=UserRole.ADMIN)
    new = await data.accounts.log_in("admin@example.com", PASSWORD)
    whose = {"user_id": str((await data.accounts.find(SYSTEM, "owner@example.com")).id)}
    async with client_of(app, {"authorization": f"Bearer {new.token.get_secret_value()}"}) as admin:

        async def put(limit: str, **headers: str) -> httpx.Response:
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            return await admin.put("/v1/budgets/USD", params=whose, json={"monthly_limit": limit}, headers=sent)

        assert refused(await put("1")) == (428, "precondition_required")
        assert refused(await put("1", if_match='"t1"')) == (412, "changed_meanwhile")
        first = await put("1", if_none_match="*")
        assert refused(await put("2")) == (428, "precondition_required")
        again = await put("2", if_none_match="*")
        assert refused(again) == (412, "changed_meanwhile")
        assert Decimal(again.json()["current"]["monthly_limit"]) == 1
        second = await put("2", if_match=first.headers["etag"])
        assert Decimal(second.json()["monthly_limit"]) == 2
        read = await admin.get("/v1/budgets/USD", params=whose)
        assert first.headers["etag"] != second.headers["etag"] == read.headers["etag"]
        assert refused(await put("3", if_match=first.headers["etag"])) == (412, "changed_meanwhile")
        removed = {"params": whose, "headers": {"if-match": first.headers["etag"]}}
        assert refused(await admin.delete("/v1/budgets/USD", **removed)) == (412, "changed_meanwhile")  # type: ignore[arg-type]
        removed["headers"]["if-match"] = second.headers["etag"]
        for _ in range(2):
            assert (await admin.delete("/v1/budgets/USD", **removed)).status_code == 204  # type: ignore[arg-type]
        assert refused(await put("3", if_match=second.headers["etag"])) == (412, "changed_meanwhile")
