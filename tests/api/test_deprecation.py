"""A route that will be taken away says so, in its answers and in the description."""

from __future__ import annotations

from datetime import UTC, datetime

import httpx
from fastapi import APIRouter, HTTPException, Response

from data_layer import DataLayer
from data_layer.api.app import create_app
from data_layer.api.routes import Call, Deprecation, Routes
from data_layer.errors import ConflictError
from data_layer.schemas.base import Value

SINCE, ENDS = datetime(2026, 12, 1, tzinfo=UTC), datetime(2027, 12, 1, 12, tzinfo=UTC)


class Old(Value):
    """An answer."""

    is_old: bool = True


routes = Routes("/v1/old", "old", needs_login=False)


@routes.get("", summary="Read", deprecation=Deprecation(SINCE, ENDS, "/v1/projects"))
async def read(call: Call, response: Response) -> Old:
    """It has a successor."""
    del call
    response.headers["link"] = '</v1/old?after=1>; rel="next"'
    return Old()


@routes.get("/{number}", summary="Read one", deprecation=Deprecation(SINCE, ENDS, "/v1/projects"))
async def read_one(number: int) -> Old:
    """It refuses most."""
    if number == 1:
        raise ConflictError("it is there")
    if number == 2:
        raise HTTPException(404, "there is none")
    raise ZeroDivisionError


@routes.put("", summary="Set", deprecation=Deprecation(SINCE, ENDS), needs_login=True, max_body=1)
async def put(body: Old) -> Old:
    """Who is logged in."""
    return body


@routes.post("", summary="Do", deprecation=Deprecation(SINCE, ENDS))
async def do() -> Old:
    """It has none."""
    return Old()


async def test_failures_name_it_too(data: DataLayer) -> None:
    """Whatever refuses: the values, the service, HTTP, an exception that nobody expected, or authentication."""
    app = create_app(data, [APIRouter(routes=[*routes.routes])])
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        answers = {path: await client.get(f"/v1/old/{path}") for path in ("x", "1", "2", "3")}
        assert [answer.status_code for answer in answers.values()] == [422, 409, 404, 500]
        answers["unknown"] = await client.put("/v1/old", json={"is_old": True})
        assert answers["unknown"].status_code == 401
        for answer in answers.values():
            assert answer.headers.get_list("deprecation") == ["@1796083200"], answer.text
            assert answer.headers.get_list("sunset") == ["Wed, 01 Dec 2027 12:00:00 GMT"]
        conditional = await client.get("/v1/old/1", headers={"if-none-match": '"r1+gzip"'})
        assert (conditional.status_code, conditional.headers["deprecation"]) == (409, "@1796083200")


async def test_answers_name_the_end_and_the_successor(data: DataLayer) -> None:
    app = create_app(data, [APIRouter(routes=[*routes.routes])])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as client:
        for answer in (await client.get("/v1/old"), await client.head("/v1/old"), await client.post("/v1/old")):
            assert answer.status_code == 200
            assert answer.headers["deprecation"] == "@1796083200"
            assert answer.headers["sunset"] == "Wed, 01 Dec 2027 12:00:00 GMT"
            links = {each["rel"]: each["url"] for each in answer.links.values()}
            has_successor = answer.request.method != "POST"
            assert links == ({"next": "/v1/old?after=1", "successor-version": "/v1/projects"} if has_successor else {})
        assert "deprecation" not in (await client.get("/v1/oidc")).headers
        paths = app.openapi()["paths"]
        assert [paths["/v1/old"][method].get("deprecated") for method in ("get", "post")] == [True, True]
        assert "deprecated" not in paths["/v1/oidc"]["get"]
