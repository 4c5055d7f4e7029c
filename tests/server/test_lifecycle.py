"""What is answered before the application is there, and while the process says good-bye."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from starlette.responses import PlainTextResponse

from data_layer.server.lifecycle import LifecycleMiddleware

LONG = 1000
HELD, BRIEFLY = "/held", "/held/briefly"


@pytest.fixture
def lifecycle() -> LifecycleMiddleware:
    return LifecycleMiddleware({HELD: LONG, BRIEFLY: 0})


@pytest.fixture
def held() -> asyncio.Event:
    """Set when a call for ``HELD`` has arrived, and waits or was answered."""
    return asyncio.Event()


@pytest.fixture
async def client(lifecycle: LifecycleMiddleware, held: asyncio.Event) -> AsyncIterator[httpx.AsyncClient]:
    async def noticed(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == HELD:
            held.set()
        await lifecycle(scope, receive, send)

    transport = httpx.ASGITransport(noticed)
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        yield client


async def application(scope: Any, receive: Any, send: Any) -> None:
    await PlainTextResponse(scope["path"])(scope, receive, send)


async def test_before_the_start_it_lives_and_refuses_the_rest(client: httpx.AsyncClient) -> None:
    alive = await client.get("/livez")
    assert (alive.status_code, alive.json()) == (200, {"status": "alive"})
    ready = await client.get("/readyz")
    assert (ready.status_code, ready.json()) == (503, {"ready": False, "reason": "starting"})
    for path in ("/", "/v1/projects", BRIEFLY):
        refused = await client.get(path)
        assert (refused.status_code, refused.json()["code"]) == (503, "starting")
    for answer in (alive, ready, refused):
        assert answer.headers["connection"] == "close"
    assert [answer.headers.get("retry-after") for answer in (alive, ready, refused)] == [None, "1", "1"]


async def test_a_call_that_nobody_sends_again_waits_for_the_start(
    lifecycle: LifecycleMiddleware, client: httpx.AsyncClient, held: asyncio.Event
) -> None:
    waiting = asyncio.create_task(client.get(HELD))
    await held.wait()
    lifecycle.open(application)
    assert (await waiting).text == HELD


async def test_a_call_that_waits_for_a_start_that_does_not_come_is_refused(
    lifecycle: LifecycleMiddleware, client: httpx.AsyncClient, held: asyncio.Event
) -> None:
    waiting = asyncio.create_task(client.get(HELD))
    await held.wait()
    lifecycle.start_draining()
    assert (await waiting).json()["code"] == "stopping"


async def test_after_the_start_all_is_passed_on_and_at_the_end_clients_are_asked_to_leave(
    lifecycle: LifecycleMiddleware, client: httpx.AsyncClient
) -> None:
    lifecycle.open(application)
    for path in ("/livez", "/readyz", "/v1/projects", HELD):
        answer = await client.get(path)
        assert (answer.status_code, answer.text) == (200, path)
        assert "connection" not in answer.headers
    lifecycle.start_draining()
    ready = await client.get("/readyz")
    assert (ready.status_code, ready.json()) == (503, {"ready": False, "reason": "stopping"})
    for path in ("/livez", "/v1/projects", HELD):
        answer = await client.get(path)
        assert (answer.status_code, answer.text, answer.headers["connection"]) == (200, path, "close")


async def test_a_websocket_is_refused_where_nobody_would_answer(lifecycle: LifecycleMiddleware) -> None:
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    async def connected(_scope: Any, _receive: Any, _send: Any) -> None:
        sent.append("connected")

    scope = {"type": "websocket", "path": "/socket"}
    await lifecycle(scope, receive, send)
    lifecycle.open(connected)
    await lifecycle(scope, receive, send)
    lifecycle.start_draining()
    await lifecycle(scope, receive, send)
    refused = {"type": "websocket.close", "code": 1013}
    assert sent == [refused, "connected", refused]
