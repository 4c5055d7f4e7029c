from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from data_layer import DataLayer
from data_layer.api.app import create_app
from tests.api.described_headers import CHECKS
from tests.observability.conftest import logging_as_before

__all__ = ["logging_as_before"]


@pytest.fixture
def app(data: DataLayer) -> FastAPI:
    return create_app(data)


@pytest.fixture(scope="session")
def described() -> dict[str, Any]:
    return {}


@pytest.fixture
def description(app: FastAPI, described: dict[str, Any]) -> dict[str, Any]:
    """The description of the API, which is slow to make and the same for each application."""
    if not described:
        described.update(app.openapi())
    return described


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application, without a network in between."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://service", event_hooks=CHECKS) as client:
        yield client
