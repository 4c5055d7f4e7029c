"""From a request down to what PostgreSQL, Valkey and the storage were asked."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from data_layer import AuditLog, DataLayer
from data_layer.entities.enums import AuditAction
from data_layer.errors import DuplicateError, InvalidSessionError
from data_layer.observability.tracing.current import current_trace_fields, current_traceparent
from tests.file_content import animation
from tests.observability.support import events, log_to_memory
from tests.observability.tracing.support import attributes, named, tree
from tests.support import make_project, make_user

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{SPAN}-01"


@pytest.fixture
def project_route(app: FastAPI, data: DataLayer) -> str:
    """A route that does a little of everything."""

    @app.get("/tests/projects/{name}")
    async def work(name: str) -> dict[str, str | None]:
        user = make_user()
        async with data.transaction() as tx:
            tx.add(user)
            tx.add(make_project(user, name=name))
        await data.projects.recent()
        await data.cache.set("key", "value", ttl=60)
        file = await data.files.save(animation("PNG", 1), owner_id=user.id)
        await data.files.download(file.id, owner_id=user.id)
        return {"traceparent": current_traceparent()}

    return "/tests/projects/secret-name"


async def test_a_request_is_a_tree(
    client: httpx.AsyncClient, exporter: InMemorySpanExporter, project_route: str
) -> None:
    answer = await client.get(project_route, headers={"X-Request-ID": "request-5"})
    assert answer.status_code == 200
    spans = exporter.get_finished_spans()
    found = tree(spans)
    assert list(found) == ["GET /tests/projects/{name}"]
    request = found["GET /tests/projects/{name}"]
    assert {"users.insert, projects.insert", "projects.recent", "SET", "files.save", "files.download"} <= set(request)
    assert "projects.last_changed" in request["projects.recent"]
    assert {"stored_files.save", "storage.upload"} <= set(request["files.save"])
    assert "storage.open" in request["files.download"] or "storage.download" in request["files.download"]
    assert len({span.context.trace_id for span in spans if span.context}) == 1


async def test_spans_say_what_they_stand_for(
    client: httpx.AsyncClient, exporter: InMemorySpanExporter, project_route: str, data: DataLayer
) -> None:
    await client.get(project_route, headers={"X-Request-ID": "request-5"})
    spans = exporter.get_finished_spans()
    request = named(spans, "GET /tests/projects/{name}")
    assert request.kind is SpanKind.SERVER
    assert attributes(request) == {
        "http.request.method": "GET",
        "url.scheme": "http",
        "http.route": "/tests/projects/{name}",
        "http.response.status_code": 200,
        "data_layer.correlation_id": "request-5",
    }
    assert not request.events
    service = named(spans, "files.save")
    assert (service.kind, attributes(service)) == (SpanKind.INTERNAL, {"data_layer.correlation_id": "request-5"})
    together = named(spans, "users.insert, projects.insert")
    assert together.kind is SpanKind.CLIENT
    assert attributes(together) == {
        "db.system.name": "postgresql",
        "db.namespace": data.database.address.name,
        "db.query.summary": "users.insert, projects.insert",
        "db.operation.name": "BATCH",
        "db.operation.batch.size": 2,
    }
    assert attributes(named(spans, "SET")) == {"db.system.name": "redis", "db.operation.name": "SET"}
    assert attributes(named(spans, "storage.upload")) == {"data_layer.storage.backend": "local"}
    assert all(span.start_time and span.end_time and span.start_time <= span.end_time for span in spans)


class TestParents:
    async def test_a_callers_span_is_the_parent(
        self, client: httpx.AsyncClient, exporter: InMemorySpanExporter, project_route: str
    ) -> None:
        answer = await client.get(project_route, headers={"traceparent": TRACEPARENT})
        request = named(exporter.get_finished_spans(), "GET /tests/projects/{name}")
        assert request.parent
        assert (f"{request.parent.trace_id:032x}", f"{request.parent.span_id:016x}") == (TRACE, SPAN)
        assert request.context
        ours = f"00-{TRACE}-{request.context.span_id:016x}-01"
        assert answer.headers["traceresponse"] == ours
        assert answer.json()["traceparent"] == ours

    async def test_what_the_caller_does_not_sample_is_not_recorded(
        self, client: httpx.AsyncClient, exporter: InMemorySpanExporter, project_route: str
    ) -> None:
        answer = await client.get(project_route, headers={"traceparent": f"00-{TRACE}-{SPAN}-00"})
        assert not exporter.get_finished_spans()
        assert answer.headers["traceresponse"].startswith(f"00-{TRACE}-")
        assert answer.headers["traceresponse"].endswith("-00")

    @pytest.mark.parametrize(
        "hostile",
        [
            "",
            "00",
            "x" * 20_000,
            f"00-{'0' * 32}-{SPAN}-01",
            f"00-{TRACE}-{'0' * 16}-01",
            f"ff-{TRACE}-{SPAN}-01",
            f"00-{TRACE.upper()}-{SPAN}-01",
            f"00-{TRACE}-{SPAN}-01-extra",
            f"00-{TRACE}-{SPAN}-zz",
            "00-\N{ARABIC-INDIC DIGIT ONE}-1-1",
            "'; DROP TABLE users; --",
        ],
    )
    async def test_a_hostile_one_is_none(
        self, client: httpx.AsyncClient, exporter: InMemorySpanExporter, project_route: str, hostile: str
    ) -> None:
        headers = [(b"traceparent", hostile.encode()), (b"tracestate", b"\xff" * 600)]
        answer = await client.get(project_route, headers=headers)
        assert answer.status_code == 200
        request = named(exporter.get_finished_spans(), "GET /tests/projects/{name}")
        assert request.parent is None
        assert TRACE not in answer.headers["traceresponse"]

    async def test_two_of_them_are_none(
        self, client: httpx.AsyncClient, exporter: InMemorySpanExporter, project_route: str
    ) -> None:
        other = f"00-{'1' * 32}-{'2' * 16}-01"
        await client.get(project_route, headers=[("traceparent", TRACEPARENT), ("traceparent", other)])
        assert named(exporter.get_finished_spans(), "GET /tests/projects/{name}").parent is None


class TestErrors:
    async def test_those_of_ours_have_their_code(
        self, app: FastAPI, data: DataLayer, client: httpx.AsyncClient, exporter: InMemorySpanExporter
    ) -> None:
        @app.get("/tests/session")
        async def work() -> None:
            with suppress(InvalidSessionError):
                await data.sessions.validate("secret-token-of-nobody")

        await client.get("/tests/session")
        spans = exporter.get_finished_spans()
        service = named(spans, "sessions.validate")
        assert service.status.status_code is StatusCode.ERROR
        assert attributes(service)["error.type"] == InvalidSessionError.code == service.status.description
        assert not [event for event in service.events if event.name == "exception"]
        request = named(spans, "GET /tests/session")
        assert request.status.status_code is StatusCode.UNSET

    async def test_a_bug_is_a_servers_error(
        self, app: FastAPI, client: httpx.AsyncClient, exporter: InMemorySpanExporter
    ) -> None:
        @app.get("/tests/bug")
        async def work() -> None:
            raise ZeroDivisionError("secret-message")

        assert (await client.get("/tests/bug")).status_code == 500
        request = named(exporter.get_finished_spans(), "GET /tests/bug")
        assert request.status.status_code is StatusCode.ERROR
        assert "secret-message" not in request.to_json()

    async def test_a_statement_that_failed_has_the_code(
        self, app: FastAPI, data: DataLayer, client: httpx.AsyncClient, exporter: InMemorySpanExporter
    ) -> None:
        user = make_user()

        @app.get("/tests/duplicate")
        async def work() -> None:
            for _ in range(2):
                with suppress(DuplicateError):
                    async with data.transaction() as tx:
                        tx.add(make_user(email=user.email))

        assert (await client.get("/tests/duplicate")).status_code == 200
        codes = [attributes(span).get("error.type") for span in exporter.get_finished_spans() if "insert" in span.name]
        assert codes == [None, "duplicate"]


async def test_names_are_made_of_routes_never_of_paths(
    client: httpx.AsyncClient, exporter: InMemorySpanExporter
) -> None:
    await client.get("/no/such/secret-path?token=secret-query")
    await client.request("SECRETVERB", "/no/such")
    await client.get("/v1/files/secret-path?signature=secret-query")
    spans = exporter.get_finished_spans()
    names = [span.name for span in spans if span.kind is SpanKind.SERVER]
    assert names == ["GET", "_OTHER", "GET /v1/files/{key:path}"]
    text = "".join(span.to_json() for span in spans)
    assert not [word for word in ("secret-path", "secret-query", "SECRETVERB") if word in text]


async def test_probes_are_nobodys_request(client: httpx.AsyncClient, exporter: InMemorySpanExporter) -> None:
    answers = [await client.get(path) for path in ("/livez", "/readyz")]
    assert not exporter.get_finished_spans() or {"health.check"} >= set(tree(exporter.get_finished_spans()))
    assert not [answer for answer in answers if "traceresponse" in answer.headers]


async def test_log_events_say_which_span(
    app: FastAPI, client: httpx.AsyncClient, exporter: InMemorySpanExporter
) -> None:
    @app.get("/tests/log")
    async def work() -> None:
        logging.getLogger("data_layer.tests").warning("something_happened")

    stream = log_to_memory()
    await client.get("/tests/log", headers={"traceparent": TRACEPARENT})
    request = named(exporter.get_finished_spans(), "GET /tests/log")
    assert request.context
    happened = [event for event in events(stream) if event["event"] in {"something_happened", "request_answered"}]
    assert len(happened) == 2
    for event in happened:
        assert (event["trace_id"], event["span_id"]) == (TRACE, f"{request.context.span_id:016x}")


async def test_without_a_span_there_is_nothing_to_tell() -> None:
    assert current_trace_fields() == {}
    assert current_traceparent() is None


async def test_audit_entries_and_comments_belong_to_the_same_request(
    app: FastAPI, data: DataLayer, client: httpx.AsyncClient
) -> None:
    @app.get("/tests/audit")
    async def work() -> dict[str, Any]:
        async with data.transaction() as tx:
            entry = AuditLog.system_event(AuditAction.SYSTEM_STARTUP, "Started")
            tx.add(entry)
        return {"correlation_id": entry.correlation_id}

    answer = await client.get("/tests/audit", headers={"X-Request-ID": "request-6"})
    assert answer.json() == {"correlation_id": "request-6"}
