"""What every request gets: an id, a line in the log, and answers of one shape that tell nothing about the inside."""

from __future__ import annotations

import asyncio
import re
import threading
from typing import Any, get_args

import httpx
import pytest
import structlog
from fastapi import FastAPI
from pydantic import ValidationError, create_model
from pydantic.fields import FieldInfo

from data_layer import DataLayer
from data_layer.api.app import create_app
from data_layer.api.routes import ServiceRoute
from data_layer.errors import DatabaseError, DatabaseUnavailableError
from tests.observability.support import events, log_to_memory

PEOPLE = (
    "/v1/accounts",
    "/v1/admin",
    "/v1/assets",
    "/v1/budgets",
    "/v1/design-systems",
    "/v1/generations",
    "/v1/images",
    "/v1/oidc",
    "/v1/projects",
    "/v1/sessions",
    "/v1/shares",
    "/v1/tokens",
    "/v1/usage",
    "/v1/variants",
)
GENERATED = re.compile(r"[0-9a-f]{32}")
log = structlog.get_logger("data_layer.tests")


@pytest.mark.parametrize("sane", ["a", "req-42/7", "4bf92f3577b34da6a3ce929d0e0e4736", "x" * 128, "with a blank"])
async def test_a_sane_request_id_is_echoed(client: httpx.AsyncClient, sane: str) -> None:
    answer = await client.get("/livez", headers={"X-Request-ID": sane})
    assert answer.headers.get_list("x-request-id") == [sane]


@pytest.mark.parametrize("bad", ["x" * 129, "a\x1b[31m", "tab\there", "é", "", "\x7f", "a\u00a0b"])
async def test_another_one_is_replaced(client: httpx.AsyncClient, bad: str) -> None:
    answer = await client.get("/livez", headers=[(b"X-Request-ID", bad.encode("latin-1"))])
    (used,) = answer.headers.get_list("x-request-id")
    assert GENERATED.fullmatch(used)


async def test_requests_without_an_id_get_different_ones(client: httpx.AsyncClient) -> None:
    answers = await asyncio.gather(*(client.get("/livez") for _ in range(5)))
    assert len({answer.headers["x-request-id"] for answer in answers}) == 5


async def test_every_log_line_of_a_request_has_its_id(app: FastAPI, client: httpx.AsyncClient) -> None:
    @app.get("/work")
    async def work() -> None:
        log.info("work_begun")
        await asyncio.gather(asyncio.to_thread(log.info, "work_in_a_thread"), say_in_a_task())

    async def say_in_a_task() -> None:
        log.info("work_in_a_task")

    stream = log_to_memory(log_format="json", environment="testing")
    answer = await client.get("/work?token=secret-in-the-query", headers={"X-Request-ID": "request-1"})
    assert answer.status_code == 200
    lines = [event for event in events(stream) if event["logger"] != "httpx"]
    assert {event["event"] for event in lines} == {
        "work_begun",
        "work_in_a_thread",
        "work_in_a_task",
        "request_answered",
    }
    assert {event["correlation_id"] for event in lines} == {"request-1"}
    answered = next(event for event in lines if event["event"] == "request_answered")
    assert (answered["method"], answered["path"], answered["status"]) == ("GET", "/work", 200)
    assert "secret-in-the-query" not in str(lines)


async def test_probes_are_logged_for_those_who_look_for_them(client: httpx.AsyncClient) -> None:
    quiet = log_to_memory(environment="testing")
    await client.get("/health")
    assert not [event for event in events(quiet) if event["logger"] != "httpx"]
    talkative = log_to_memory(environment="testing", log_level="debug")
    await client.get("/health")
    assert [event["path"] for event in events(talkative) if event["event"] == "request_answered"] == ["/health"]


async def test_what_is_not_there_and_what_is_not_allowed(client: httpx.AsyncClient) -> None:
    missing = await client.get("/nothing/here")
    assert (missing.status_code, missing.json()) == (404, problem(missing, 404, "not_found", "Not Found"))
    refused = await client.post("/health")
    assert refused.status_code == 405
    assert refused.json() == problem(refused, 405, "method_not_allowed", "Method Not Allowed")
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.headers["allow"] == "GET, HEAD"
    assert missing.headers["x-request-id"]


def problem(answer: httpx.Response, status: int, code: str, detail: str) -> dict[str, object]:
    """Problem details (RFC 9457) without anything about single values."""
    request_id = answer.headers["x-request-id"]
    about = {"type": "about:blank", "title": detail, "status": status, "detail": detail}
    return about | {"code": code, "request_id": request_id, "fields": []}


async def test_a_failure_of_ours_tells_nothing_but_its_id(app: FastAPI, client: httpx.AsyncClient) -> None:
    @app.get("/broken")
    async def broken() -> None:
        raise DatabaseError("no answer from db.internal at /var/lib/secret")

    stream = log_to_memory(environment="testing")
    answer = await client.get("/broken", headers={"X-Request-ID": "request-2"})
    assert answer.status_code == 500
    assert answer.json()["code"] == "internal_error"
    assert "request-2" in answer.json()["detail"]
    assert answer.headers.get_list("x-request-id") == ["request-2"]
    assert "internal at" not in answer.text
    assert [event["status"] for event in events(stream) if event["event"] == "request_answered"] == [500]


async def test_what_is_not_available_says_when_to_try_again(app: FastAPI, client: httpx.AsyncClient) -> None:
    @app.get("/away")
    async def away() -> None:
        raise DatabaseUnavailableError("no answer from db.internal")

    answer = await client.get("/away")
    assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
    assert int(answer.headers["retry-after"]) > 0
    assert "internal" not in answer.text


async def test_the_documentation(client: httpx.AsyncClient) -> None:
    start = await client.get("/")
    assert (start.status_code, start.headers["location"]) == (307, "/docs")
    page = await client.get("/docs")
    assert page.status_code == 200
    assert all(call in page.text for call in ("/v1/sessions", "Log in", "/livez"))
    # Nothing runs there, and nothing is loaded, least of all from elsewhere.
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
    assert not re.search(r"<script|src=|https?://|@import|url\(", page.text)
    description = (await client.get("/openapi.json")).json()
    assert description["openapi"].startswith("3.")
    assert {path for path in description["paths"] if not path.startswith(PEOPLE)} == {
        "/health",
        "/livez",
        "/readyz",
        "/v1/files/{key}",
        "/a/{name}",
        "/p/{variant_id}",
        "/s/{token}",
    }
    for path in description["paths"].values():
        assert all(operation["summary"] for operation in path.values())
    components = description["components"]
    assert set(references(description)) <= {
        f"#/components/{kind}/{name}" for kind in ("schemas", "headers", "responses") for name in components[kind]
    }
    assert set(description["paths"]["/health"]["get"]["responses"]) == {"200", "503"}


async def test_other_requests_go_on_while_the_description_is_made_which_is_once(data: DataLayer) -> None:
    app = create_app(data)
    describe, made, began, may_end = app.openapi, [], threading.Event(), threading.Event()

    def describe_slowly() -> dict[str, Any]:
        made.append(1)
        began.set()
        assert may_end.wait(60)
        return describe()

    app.openapi = describe_slowly  # type: ignore[method-assign]  # As FastAPI documents it.
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as client:
        asking = [asyncio.create_task(client.get(path)) for path in ("/openapi.json", "/docs", "/openapi.json")]
        try:
            assert await asyncio.to_thread(began.wait, 60)
            asking[0].cancel()
            assert (await client.get("/livez")).status_code == 200
        finally:
            may_end.set()
        assert [answer.status_code for answer in await asyncio.gather(*asking[1:])] == [200, 200]
        assert (await client.get("/openapi.json")).json() == app.openapi_schema
    assert len(made) == 1


async def test_the_documentation_can_be_turned_off(data: DataLayer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "settings", data.settings.replaced(enable_docs=False))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(create_app(data)), base_url="http://service") as client:
        for path in ("/", "/docs", "/openapi.json", "/redoc", "/docs/oauth2-redirect"):
            assert (await client.get(path)).status_code == 404, path
        assert (await client.get("/livez")).status_code == 200


def references(node: object) -> list[str]:
    """Every $ref, at any depth."""
    if isinstance(node, dict):
        own = [node["$ref"]] if "$ref" in node else []
        return own + [found for value in node.values() for found in references(value)]
    if isinstance(node, list):
        return [found for value in node for found in references(value)]
    return []


async def test_what_anybody_may_call(client: httpx.AsyncClient) -> None:
    """Whoever adds a route that needs no login adds it here too; all others refuse a request without one."""
    description = (await client.get("/openapi.json")).json()
    assert set(description["components"]["securitySchemes"]) == {
        "Bearer",
        "ApiKey",
        "SessionCookie",
        "RegistrationCookie",
    }
    is_open = {}
    for path, operations in description["paths"].items():
        for method, operation in operations.items():
            is_open[f"{method.upper()} {path}"] = {"Bearer": []} not in operation.get("security", ())
    assert {operation for operation, needs_none in is_open.items() if needs_none} == {
        "GET /livez",
        "GET /readyz",
        "GET /health",
        "GET /a/{name}",
        "GET /p/{variant_id}",
        "GET /s/{token}",
        "GET /v1/files/{key}",
        "PUT /v1/files/{key}",
        "POST /v1/accounts",
        "POST /v1/accounts/verification",
        "POST /v1/accounts/verification/confirm",
        "POST /v1/accounts/password-reset",
        "POST /v1/accounts/password-reset/confirm",
        "POST /v1/sessions",
        "GET /v1/oidc",
        "GET /v1/oidc/{provider}/login",
        "GET /v1/oidc/{provider}/callback",
        "POST /v1/sessions/passkey",
        "POST /v1/sessions/second-factor",
        "POST /v1/tokens",
        "POST /v1/tokens/second-factor",
        "POST /v1/tokens/refresh",
    }
    for operation, needs_none in is_open.items():
        method, path = operation.split()
        if not needs_none:
            answer = await client.request(method, re.sub(r"\{\w+\}", "1", path))
            assert (answer.status_code, answer.json()["code"]) == (401, "session_invalid"), operation


def test_bodies_take_no_number_for_a_boolean(app: FastAPI) -> None:
    taken = {
        f"{route.path} {name}"
        for route in app.routes
        if isinstance(route, ServiceRoute) and route.body_field is not None
        for name, field in getattr(route.body_field.field_info.annotation, "model_fields", {}).items()
        if bool in {field.annotation, *get_args(field.annotation)} and _takes_zero(field)
    }
    assert taken == set()


def _takes_zero(field: FieldInfo) -> bool:
    assert field.annotation is not None
    try:
        create_model("Body", value=(field.annotation, field))(value=0)
    except ValidationError:
        return False
    return True
