"""The index of routes answers as the router does that asks each of them."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from uuid import UUID

import httpx
import pytest
from fastapi import FastAPI

from data_layer import DataLayer
from data_layer.server.faces import whole_application

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW")
PARAMETER = re.compile(r"\{[^}]*\}")
OTHERS = (
    "",
    "/",
    "//",
    "/v1",
    "/v1/",
    "/v1//projects",
    "//v1/projects",
    "/v1/projects-of-others",
    "/v1/project",
    "/v1/Projects",
    "/v1/projects/search/more",
    "/v1/projects/%2e%2e/accounts/me",
    "/v1%2Fprojects",
    "/v1/%00/x",
    "/console/static/no.css",
    "/console/static/../static/no.css",
    "/s/",
    "/docs/x",
)


@pytest.fixture
async def both(data: DataLayer) -> AsyncIterator[tuple[FastAPI, httpx.AsyncClient, httpx.AsyncClient]]:
    """The application, its client, and a client of one without the index."""
    indexed, plain = whole_application(data), whole_application(data)
    plain.router.middleware_stack = plain.router.app
    plain.user_middleware = [each for each in plain.user_middleware if "DirectRoutes" not in repr(each.cls)]
    async with (
        httpx.AsyncClient(transport=httpx.ASGITransport(indexed), base_url="http://service") as first,
        httpx.AsyncClient(transport=httpx.ASGITransport(plain), base_url="http://service") as second,
    ):
        yield indexed, first, second


async def test_it_answers_as_the_router(both: tuple[FastAPI, httpx.AsyncClient, httpx.AsyncClient]) -> None:
    app, indexed, plain = both
    templates = {getattr(route, "path", "") for route in app.routes}
    assert len(templates) > 150
    filled = {PARAMETER.sub(str(UUID(int=7)), template) for template in templates}
    asked = sorted(filled | {f"{path}/" for path in filled} | set(OTHERS))
    differing = []
    for number, path in enumerate(asked):
        # Each path meets two of the methods, so that all of them meet every resource.
        for method in (METHODS[number % len(METHODS)], METHODS[(number + 4) % len(METHODS)]):
            mine, other = [await client.request(method, path) for client in (indexed, plain)]
            if seen(mine) != seen(other):
                differing.append((method, path, seen(mine), seen(other)))
    assert not differing


def seen(answer: httpx.Response) -> tuple[int, str | None, str | None, str | None]:
    headers = answer.headers
    return answer.status_code, headers.get("allow"), headers.get("content-type"), headers.get("location")


@pytest.mark.parametrize(("root", "path"), [("/behind", "/behind/livez"), ("/v1/projects", "/v1/projects/livez")])
async def test_a_root_path_is_stripped_first(data: DataLayer, root: str, path: str) -> None:
    transport = httpx.ASGITransport(whole_application(data), root_path=root)
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        assert (await client.get(path)).status_code == 200
