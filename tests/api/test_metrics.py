"""Requests are counted by the template of their route: what callers write makes no series."""

from __future__ import annotations

import asyncio

import httpx
from fastapi import APIRouter, FastAPI, HTTPException

from data_layer import DataLayer, Settings
from data_layer.api.app import create_app

REQUESTS = "data_layer_http_requests"
Counted = dict[tuple[str, str, str], float]


def requests(data: DataLayer) -> Counted:
    """How many requests there were, by method, route and class of the status."""
    samples = data.metrics.snapshot()[REQUESTS].samples
    labelled = [(dict(labels), value) for (_, labels), value in samples.items()]
    return {(labels["method"], labels["route"], labels["status"]): value for labels, value in labelled if value}


def number_of_series(data: DataLayer) -> int:
    return sum(len(family.samples) for name, family in data.metrics.snapshot().items() if "_http_" in name)


async def test_routes_are_known_by_their_templates(client: httpx.AsyncClient, data: DataLayer) -> None:
    for path in ("/livez", "/livez", "/v1/files/a/secret-name.png", "/v1/files/another", "/", "/docs"):
        await client.get(path)
    await client.head("/v1/files/third")
    assert requests(data) == {
        ("GET", "/livez", "2xx"): 2,
        ("GET", "/v1/files/{key}", "4xx"): 2,
        ("HEAD", "/v1/files/{key}", "4xx"): 1,
        ("GET", "/", "3xx"): 1,
        ("GET", "/docs", "2xx"): 1,
    }
    durations = data.metrics.snapshot()["data_layer_http_request_duration_seconds"].samples
    counts = {labels: value for (name, labels), value in durations.items() if name.endswith("_count")}
    assert counts[("route", "/livez"), ("method", "GET")] == 2


async def test_what_no_route_takes_makes_no_series(client: httpx.AsyncClient, data: DataLayer) -> None:
    await client.get("/livez")
    before = number_of_series(data)
    for number in range(100):
        await client.get(f"/nothing/{number}")
        await client.request(f"METHOD{number}", "/livez")
        await client.get(f"/v1/files/{number}.png?name={number}")
    assert number_of_series(data) == before
    assert requests(data)["other", "unmatched", "4xx"] == 200


async def test_routers_inside_of_routers_are_known_by_the_whole_path(
    app: FastAPI, client: httpx.AsyncClient, data: DataLayer
) -> None:
    inner, outer = APIRouter(), APIRouter()

    @inner.get("/codes/{code_id}")
    async def read(code_id: str) -> str:
        return code_id

    @inner.post("/codes/{code_id}")
    async def fail(code_id: str) -> None:
        raise RuntimeError(code_id)

    @inner.delete("/codes/{code_id}")
    async def refuse(code_id: str) -> None:
        raise HTTPException(404, code_id)

    outer.include_router(inner, prefix="/projects/{project_id}")
    app.include_router(outer, prefix="/v9")
    template = "/v9/projects/{project_id}/codes/{code_id}"
    await client.get("/v9/projects/1/codes/2")
    assert (await client.post("/v9/projects/3/codes/4")).status_code == 500
    await client.delete("/v9/projects/5/codes/6")
    assert requests(data) == {("GET", template, "2xx"): 1, ("POST", template, "5xx"): 1, ("DELETE", template, "4xx"): 1}


async def test_what_is_in_progress_is_told(app: FastAPI, client: httpx.AsyncClient, data: DataLayer) -> None:
    begun, may_end = asyncio.Event(), asyncio.Event()

    @app.get("/slow")
    async def wait() -> None:
        begun.set()
        await may_end.wait()

    def in_progress() -> float:
        return sum(data.metrics.snapshot()["data_layer_http_requests_in_progress"].samples.values())

    request = asyncio.create_task(client.get("/slow"))
    await begun.wait()
    assert in_progress() == 1
    may_end.set()
    await request
    assert in_progress() == 0


async def test_nothing_is_counted_when_metrics_are_off(settings: Settings) -> None:
    async with DataLayer(settings.replaced(enable_metrics=False)) as data:
        transport = httpx.ASGITransport(create_app(data))
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            assert (await client.get("/readyz")).status_code == 200
        assert requests(data) == {}
        assert not data.metrics.snapshot()["data_layer_database_statement_seconds"].samples
