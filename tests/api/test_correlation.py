"""One id from a caller's header, or made, through everything that the request does."""

from __future__ import annotations

import asyncio
import re

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from sqlalchemy import text

from data_layer import AuditAction, AuditLog, DataLayer
from data_layer.errors import StorageUnavailableError
from tests.observability.support import events, log_to_memory

MADE = re.compile(r"[0-9a-f]{32}")


@pytest.mark.parametrize("given", ["order-4711", None, "x" * 129])
async def test_audit_entries_of_a_request_and_of_its_tasks_bear_its_id(
    app: FastAPI, client: httpx.AsyncClient, data: DataLayer, given: str | None
) -> None:
    async def in_a_task() -> None:
        async with data.transaction() as tx:
            tx.add(AuditLog.system_event(AuditAction.SYSTEM_BACKUP, "in a transaction of a task"))
        await asyncio.to_thread(data.audit.record_soon, AuditAction.SYSTEM_BACKUP, "from a thread")

    @app.get("/work")
    async def work() -> None:
        data.audit.record_soon(AuditAction.SYSTEM_BACKUP, "soon")
        await asyncio.gather(*(asyncio.create_task(in_a_task()) for _ in range(3)))

    answer = await client.get("/work", headers={"X-Request-ID": given} if given else {})
    (used,) = answer.headers.get_list("x-request-id")
    assert used == given or (MADE.fullmatch(used) and given != "order-4711")
    await data.audit.flush()
    async with data.transaction() as tx:
        found = await tx.execute(text("SELECT correlation_id, count(*) FROM audit_logs GROUP BY 1"))
        assert [tuple(row) for row in found] == [(used, 7)]


async def test_requests_at_the_same_time_do_not_mix_in_the_audit_trail(
    app: FastAPI, client: httpx.AsyncClient, data: DataLayer
) -> None:
    @app.get("/work/{name}")
    async def work(name: str) -> None:
        await asyncio.sleep(0)
        data.audit.record_soon(AuditAction.SYSTEM_BACKUP, name)

    names = [f"request-{number}" for number in range(20)]
    await asyncio.gather(*(client.get(f"/work/{name}", headers={"X-Request-ID": name}) for name in names))
    await data.audit.flush()
    async with data.transaction() as tx:
        found = await tx.execute(text("SELECT description, correlation_id FROM audit_logs"))
        assert sorted(found.all()) == sorted((name, name) for name in names)


@pytest.mark.parametrize("path", ["/nothing", "/broken", "/full", "/livez?x=1", "/number/three"])
async def test_every_answer_bears_it(app: FastAPI, client: httpx.AsyncClient, path: str) -> None:
    @app.get("/broken")
    async def broken() -> None:
        raise ZeroDivisionError

    @app.get("/full")
    async def full() -> None:
        raise StorageUnavailableError("bucket 'private-name' is away")

    @app.get("/number/{value}")
    async def number(value: int) -> int:
        return value

    stream = log_to_memory()
    answer = await client.get(path, headers={"X-Request-ID": "request-3"})
    assert answer.headers.get_list("x-request-id") == ["request-3"]
    assert "private-name" not in answer.text
    if path == "/full":
        [failed] = [event for event in events(stream) if event["event"] == "request_failed"]
        assert failed["correlation_id"] == "request-3"
        assert failed["code"] == "storage_unavailable"
        assert "private-name" in failed["reason"], "operators want to know"


async def test_the_traceback_of_a_failure_bears_it_and_hides_secrets(app: FastAPI) -> None:
    @app.get("/broken")
    async def broken() -> None:
        raise ZeroDivisionError("postgresql://app:hunter2@db")

    stream = log_to_memory()
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, lifespan="off", ws="none"))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"http://127.0.0.1:{port}/broken", headers={"X-Request-ID": "request-4"}, timeout=30)
    server.should_exit = True
    await serving
    assert (answer.status_code, answer.headers["x-request-id"]) == (500, "request-4")
    [failure] = [event for event in events(stream) if "exception" in event]
    assert failure["correlation_id"] == "request-4"
    assert failure["exception"]["type"] == "ZeroDivisionError"
    assert "hunter2" not in stream.getvalue()
