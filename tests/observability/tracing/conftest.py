from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from data_layer import DataLayer, Settings
from data_layer.api.app import create_app
from tests.conftest import empty_tables


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
async def data(settings: Settings, exporter: InMemorySpanExporter) -> AsyncIterator[DataLayer]:
    """An open data layer with empty tables, whose spans are kept in memory."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    async with DataLayer(settings, tracer_provider=provider) as data:
        await empty_tables(data)
        await data.cache.flush()
        exporter.clear()
        yield data


@pytest.fixture
def app(data: DataLayer) -> FastAPI:
    return create_app(data)


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application, without a network in between."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        yield client
