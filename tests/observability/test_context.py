from __future__ import annotations

import asyncio
import io
import logging
from typing import Any

import httpx
import structlog
from asgi_correlation_id import CorrelationIdMiddleware
from asgi_correlation_id.context import correlation_id
from fastapi import FastAPI

from data_layer import request_context, timed
from tests.observability.support import events, log_to_memory, only_event

log = structlog.get_logger("data_layer.tests")


def application() -> Any:
    service = FastAPI()

    async def in_a_task(name: str) -> None:
        await asyncio.sleep(0.01)
        log.info("in_task", name=name)
        await asyncio.to_thread(log.info, "in_thread", name=name)
        logging.getLogger("driver").warning("from stdlib for %s", name)
        await log.ainfo("asynchronous", name=name)

    @service.get("/{name}")
    async def endpoint(name: str) -> None:
        structlog.contextvars.bind_contextvars(actor=name)
        log.info("in_request", name=name)
        await asyncio.gather(*(asyncio.create_task(in_a_task(name)) for _ in range(3)))

    return CorrelationIdMiddleware(service, header_name="X-Request-ID", validator=None)


async def ask(stream: io.StringIO) -> list[dict[str, Any]]:
    transport = httpx.ASGITransport(application())
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        answers = await asyncio.gather(
            *(client.get(f"/user{number}", headers={"X-Request-ID": f"request-{number}"}) for number in range(5))
        )
    assert all(answer.status_code == 200 for answer in answers)
    return [event for event in events(stream) if event["logger"] != "httpx"]


async def test_every_line_of_a_request_has_its_correlation_id() -> None:
    seen = await ask(log_to_memory())
    assert len(seen) == 5 * (1 + 3 * 4)
    for event in seen:
        number = event["actor"].removeprefix("user")
        assert event["correlation_id"] == f"request-{number}"
        assert f"user{number}" in (event.get("name"), event["event"].rsplit(" ", 1)[-1])
    assert {event["logger"] for event in seen} == {"data_layer.tests", "driver"}


def test_no_correlation_id_outside_of_a_request() -> None:
    stream = log_to_memory()
    log.info("started")
    assert "correlation_id" not in only_event(stream)


def test_what_the_call_says_wins_over_the_context() -> None:
    stream = log_to_memory()
    correlation_id.set("of-the-request")
    structlog.contextvars.bind_contextvars(actor="of-the-request")
    log.info("job_started", correlation_id="of-the-job", actor="of-the-job")
    event = only_event(stream)
    assert (event["correlation_id"], event["actor"]) == ("of-the-job", "of-the-job")


def test_secrets_in_the_context_are_masked() -> None:
    stream = log_to_memory()
    correlation_id.set("Bearer abcdef0123456789")
    structlog.contextvars.bind_contextvars(session_id="s3cr3t")
    log.info("seen")
    event = only_event(stream)
    assert (event["correlation_id"], event["session_id"]) == ("Bearer ***", "***")


async def test_work_that_no_request_began_has_the_id_that_its_caller_chose() -> None:
    stream = log_to_memory()

    async def in_a_task() -> None:
        log.info("in_task")

    with request_context(correlation_id="import-7"):
        log.info("begun")
        await asyncio.create_task(in_a_task())
        with timed("import_finished"):
            pass
    log.info("ended")
    assert [event.get("correlation_id") for event in events(stream)] == ["import-7"] * 3 + [None]
