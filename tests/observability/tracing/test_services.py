"""Calls of services have spans, whatever kind of method it is, and services stay what they are."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode, get_current_span

from data_layer import DataLayer
from data_layer.context import request_context
from data_layer.errors import FileNotFoundInStorageError, NotFoundError
from data_layer.observability.tracing.tracing import Tracing
from data_layer.schemas.actors import SYSTEM
from data_layer.services.accounts import AccountService
from data_layer.services.sessions import SessionService
from tests.database.test_statement_names import use_accounts, use_files, use_projects
from tests.file_content import animation
from tests.observability.tracing.support import attributes, named, tree
from tests.support import make_user


async def test_services_stay_what_they_are(data: DataLayer) -> None:
    assert isinstance(data.accounts, AccountService)
    assert isinstance(data.sessions, SessionService)
    assert type(data.accounts) is type(data.accounts)
    assert inspect.signature(data.accounts.register) == inspect.signature(AccountService.register.__get__(object()))


async def test_calls_of_calls_are_below_them(data: DataLayer, exporter: InMemorySpanExporter) -> None:
    user = make_user()
    async with data.transaction() as tx:
        tx.add(user)
    begun = await data.sessions.create(user.id)
    pair = await data.tokens.issue(begun.session)
    exporter.clear()
    await data.tokens.verify(pair.access_token.get_secret_value())
    assert "sessions.validate_id" in tree(exporter.get_finished_spans())["tokens.verify"]


async def test_simultaneous_calls_do_not_mix(data: DataLayer, exporter: InMemorySpanExporter) -> None:
    async def one(number: int) -> None:
        with request_context(correlation_id=f"request-{number}"):
            await data.projects.recent()

    await asyncio.gather(*(one(number) for number in range(8)))
    spans = exporter.get_finished_spans()
    calls = {span.context.span_id: span for span in spans if span.name == "projects.recent" and span.context}
    assert len({attributes(span)["data_layer.correlation_id"] for span in calls.values()}) == 8
    lists = [span for span in spans if span.name == "projects.last_changed"]
    assert {span.parent.span_id for span in lists if span.parent} == set(calls)


async def test_what_comes_piece_by_piece_has_one_span(data: DataLayer, exporter: InMemorySpanExporter) -> None:
    current = get_current_span()
    lines = data.audit.export(SYSTEM)
    async for _ in lines:
        assert get_current_span() is current
    assert "audit_logs.page" in tree(exporter.get_finished_spans())["audit.export"]


async def test_a_block_has_a_span_around_its_beginning(data: DataLayer, exporter: InMemorySpanExporter) -> None:
    user = make_user()
    async with data.transaction() as tx:
        tx.add(user)
    file = await data.files.save(animation("PNG", 1), owner_id=user.id)
    exporter.clear()
    async with data.files.open(file.id, owner_id=user.id) as opened:
        assert b"".join([chunk async for chunk in opened.chunks])
        assert not get_current_span().get_span_context().is_valid
    assert "file_references.view" in tree(exporter.get_finished_spans())["files.open"]["files.stat"]
    with pytest.raises((NotFoundError, FileNotFoundInStorageError)):
        async with data.files.open(user.id, owner_id=user.id):
            pass
    failed = [span for span in exporter.get_finished_spans() if span.status.status_code is StatusCode.ERROR]
    assert [span.name for span in failed] == ["files.stat", "files.open"]


async def test_no_secret_is_in_any_span(data: DataLayer, exporter: InMemorySpanExporter) -> None:
    tokens: list[str] = []
    create = data.sessions.create

    async def remember(*arguments: Any, **values: Any) -> Any:
        begun = await create(*arguments, **values)
        tokens.append(begun.token.get_secret_value())
        return begun

    object.__setattr__(data.sessions, "create", remember)
    with request_context(correlation_id="request-1", ip_address="203.0.113.9", user_agent="secret-agent"):
        await use_accounts(data)
        await use_projects(data)
        await use_files(data)
        await data.cache.set("secret-key", "secret-value", ttl=60)
        await data.cache.get_many(["secret-key", "other-key"])
    spans = exporter.get_finished_spans()
    assert len(spans) > 50
    text = "".join(span.to_json() for span in spans)
    [token] = tokens
    secrets = [token, "correct horse", "names@example.com", "203.0.113.9", "secret-agent", "secret-key", "secret-value"]
    assert not [secret for secret in secrets if secret in text]
    for word in ("SELECT", "INSERT", "VALUES", "WHERE", "uploads/", "users/"):
        assert word not in text


async def test_a_near_read_makes_no_span_and_a_far_one_does(data: DataLayer, exporter: InMemorySpanExporter) -> None:
    tracing = data.tracing
    assert tracing is not None
    with tracing.spans.call("tests.outer"):
        await data.cache.set("key", "value", ttl=60)
        await data.cache.delete("absent")
        async with asyncio.timeout(30):
            while True:
                exporter.clear()
                assert await data.cache.get("key") == "value"
                if not exporter.get_finished_spans():
                    break  # It is near as soon as the report of its own change has come.
        await data.cache.get("missing")
    assert [span.name for span in exporter.get_finished_spans()] == ["GET", "tests.outer"]


class Everything:
    """A service with every kind of method."""

    def __init__(self) -> None:
        self.closed: list[str] = []

    async def fail(self) -> None:
        raise KeyError("secret-message")

    async def wait(self) -> None:
        await asyncio.sleep(60)

    def plain(self) -> int:
        return 3

    async def numbers(self) -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            self.closed.append("numbers")

    async def _private(self) -> int:
        return 4


class TestKindsOfMethods:
    @pytest.fixture
    def service(self, exporter: InMemorySpanExporter) -> Everything:
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor

        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        return Tracing(provider, lambda: None).calls.of("tests", Everything())

    async def test_foreign_errors_are_told_by_their_class(
        self, service: Everything, exporter: InMemorySpanExporter
    ) -> None:
        with pytest.raises(KeyError):
            await service.fail()
        span = named(exporter.get_finished_spans(), "tests.fail")
        assert attributes(span) == {"error.type": "KeyError"}
        assert "secret-message" not in span.to_json()

    async def test_cancelled_ones_are_told_as_such(self, service: Everything, exporter: InMemorySpanExporter) -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(service.wait(), 0.01)
        assert attributes(named(exporter.get_finished_spans(), "tests.wait")) == {"error.type": "cancelled"}

    async def test_what_is_left_early_is_closed_and_no_error(
        self, service: Everything, exporter: InMemorySpanExporter
    ) -> None:
        numbers = service.numbers()
        assert await anext(numbers) == 1
        await numbers.aclose()  # type: ignore[attr-defined]  # It is a generator.
        assert service.closed == ["numbers"]
        assert named(exporter.get_finished_spans(), "tests.numbers").status.status_code is StatusCode.UNSET

    async def test_what_waits_for_nobody_has_none(self, service: Everything, exporter: InMemorySpanExporter) -> None:
        assert service.plain() == 3
        assert await service._private() == 4
        assert not exporter.get_finished_spans()
