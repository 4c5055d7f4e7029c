"""Reads that are answered directly are answered as FastAPI would."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Annotated, NamedTuple
from uuid import UUID

import httpx
import pytest
from fastapi import FastAPI, Header, HTTPException, Query, Response
from starlette.types import Receive, Scope, Send

from data_layer import DataLayer, Settings
from data_layer.api.app import create_app
from data_layer.api.routes import Call, Routes, ServiceRoute
from data_layer.entities.enums import UserRole
from data_layer.errors import ConflictError
from data_layer.schemas.actors import SYSTEM
from data_layer.schemas.base import Value
from tests.services.accounts.support import PASSWORD

from .test_people import bearer
from .test_pressure import with_deadline

EMAIL = "ann@example.com"
CHANGING = {"content-length", "ratelimit"}
VIEWS = re.compile(rb'"(?:view_count|last_viewed_at)":[^,}]+')
PARAMETER = re.compile(r"\{[^}]*\}")
QUERIES = (
    "",
    "limit=1",
    "limit=0",
    "limit=1&limit=2",
    "limit=",
    "unknown=1",
    "after=x",
    "reason=because+it+is",
    "status=active&status=archived",
    "code=all&number=x",
    "q=%ff",
    "&&=&",
)
STATISTICS = "/v1/admin/statistics"  # They are others at each moment.


class Both(NamedTuple):
    """Clients of the application, and of one in which FastAPI answers everything; and the two."""

    direct: httpx.AsyncClient
    framework: httpx.AsyncClient
    app: FastAPI
    whole: FastAPI


@pytest.fixture
async def both(data: DataLayer) -> AsyncIterator[Both]:
    app, whole = create_app(data), create_app(data)
    whole.user_middleware = [each for each in whole.user_middleware if "DirectRoutes" not in repr(each.cls)]
    async with (
        client_of(app) as first,
        client_of(whole) as second,
    ):
        yield Both(first, second, app, whole)


def client_of(app: FastAPI) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://service", headers={"x-request-id": "one"})


def direct_routes(app: FastAPI) -> list[ServiceRoute]:
    return [route for route in app.routes if isinstance(route, ServiceRoute) and route.direct is not None]


def seen(answer: httpx.Response) -> tuple[int, list[tuple[str, str]], bytes]:
    """What both must answer alike; not whether views of a project have been written between the two requests."""
    headers = sorted((name, value) for name, value in answer.headers.items() if name not in CHANGING)
    if answer.content and "content-encoding" not in answer.headers:
        assert int(answer.headers["content-length"]) == len(answer.content)
    return answer.status_code, headers, VIEWS.sub(b"", answer.content)


async def test_every_direct_route_answers_as_fastapi_would(data: DataLayer, both: Both) -> None:
    user = await data.accounts.create(SYSTEM, email=EMAIL, password=PASSWORD, first_name="Ann", last_name="Other")
    await data.accounts.set_role(SYSTEM, user.id, UserRole.ADMIN)
    token = (await data.accounts.log_in(EMAIL, PASSWORD)).token.get_secret_value()
    headers = bearer(token)
    created = await both.framework.post("/v1/projects", json={"name": "Shop"}, headers=headers)
    routes = [route for route in direct_routes(both.app) if route.path != STATISTICS]
    assert len(routes) > 40
    values = (created.json()["id"], str(UUID(int=7)), "7", "no-id", "search")
    differing, statuses = [], set()
    for number, route in enumerate(routes):
        method = next(iter(route.methods or ()))
        for value in values if "{" in route.path else values[:1]:
            for query in QUERIES[number % 2 :: 2]:
                path = f"{PARAMETER.sub(value, route.path)}?{query}"
                mine, other = [await each.request(method, path, headers=headers) for each in both[:2]]
                statuses.add(mine.status_code)
                if seen(mine) != seen(other):
                    differing.append((method, path, seen(mine), seen(other)))
    assert not differing
    assert {200, 404, 422} <= statuses


async def test_what_is_read_most_does_not_meet_the_framework(data: DataLayer, both: Both) -> None:
    await data.accounts.create(SYSTEM, email=EMAIL, password=PASSWORD, first_name="Ann", last_name="Other")
    headers = bearer((await data.accounts.log_in(EMAIL, PASSWORD)).token.get_secret_value())
    created = await both.direct.post("/v1/projects", json={"name": "Shop"}, headers=headers)

    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError(scope["path"], receive, send)

    both.app.router.middleware_stack = refuse
    project = created.headers["location"]
    for path in ("/v1/accounts/me", project, f"{project}/versions", f"{project}/versions?limit=5", "/v1/projects"):
        assert (await both.direct.get(path, headers=headers)).status_code == 200
        assert (await both.direct.head(path, headers=headers)).status_code == 200
        assert (await both.direct.get(path)).status_code == 401


class Answer(Value):
    """What the routes of these tests answer."""

    name: str


tried = Routes("/v1/tried", "tried", needs_login=False)


@tried.get("/{name}/words", summary="Words")
async def words(name: str, response: Response, count: Annotated[int, Query(ge=1)] = 1) -> Answer:
    """With all that a response can be given."""
    response.headers["etag"] = '"x"'
    response.headers["cache-control"] = "private"
    response.set_cookie("a", "b")
    response.status_code = 203
    return Answer(name=name * count)


@tried.get("/refused", summary="Refused")
async def refused() -> Answer:
    """By HTTP."""
    raise HTTPException(418, "I am a teapot", {"x-pot": "tea"})


@tried.get("/conflict", summary="Conflict")
async def conflict() -> Answer:
    """By a service."""
    raise ConflictError("it is there")


@tried.get("/broken", summary="Broken")
async def broken() -> Answer:
    """By a fault."""
    raise ZeroDivisionError


@tried.get("/slow", summary="Slow")
async def slow(call: Call) -> Answer:
    """Too slow."""
    await asyncio.sleep(60)
    return Answer(name=call.method)


@tried.get("/header", summary="By a header")
async def by_header(accept: Annotated[str, Header()]) -> Answer:
    """Which FastAPI reads."""
    return Answer(name=accept)


@tried.get("/own", summary="An answer of its own", response_model=Answer)
async def own() -> Response:
    """As it is."""
    return Response("own", 202, {"x-own": "yes"}, media_type="text/plain")


PATHS = ("a/words", "a/words?count=3", "a/words?count=0", "refused", "conflict", "broken", "header", "own", "own/", "x")


async def test_whatever_a_handler_does(both: Both) -> None:
    for app in (both.app, both.whole):
        app.router.routes.extend(tried.routes)
    assert {route.path for route in direct_routes(both.app)} >= {"/v1/tried/refused", "/v1/tried/{name}/words"}
    assert "/v1/tried/header" not in {route.path for route in direct_routes(both.app)}
    for path in PATHS:
        mine, other = [await client.get(f"/v1/tried/{path}") for client in (both.direct, both.framework)]
        assert seen(mine) == seen(other), path
    assert (await both.direct.get("/v1/tried/broken")).json()["code"] == "internal_error"


async def test_a_direct_answer_has_a_deadline(data: DataLayer, settings: Settings, both: Both) -> None:
    with_deadline(data, settings, 0.2)
    both.app.router.routes.extend(tried.routes)
    answer = await both.direct.get("/v1/tried/slow")
    assert (answer.status_code, answer.json()["code"]) == (504, "deadline_exceeded")
