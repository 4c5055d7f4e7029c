from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator

import httpx
import pytest

from data_layer import DataLayer, Settings
from data_layer.server.faces import whole_application
from tests.conftest import empty_tables

from .fakes import ORIGIN, PUBLIC_URL, SECRET, BackEnd, Clerk, Page, running_clerk


@pytest.fixture(scope="session")
def clerk() -> Iterator[Clerk]:
    with running_clerk() as clerk:
        yield clerk


@pytest.fixture
def settings(settings: Settings, clerk: Clerk) -> Settings:
    return settings.replaced(
        public_url=PUBLIC_URL,
        saas_api_secret=SECRET,
        cors_allowed_origins=ORIGIN,
        oidc_issuer=clerk.url,
        oidc_accept_bearer=True,
        oidc_allowed_azp=ORIGIN,
        oidc_timeout=20,
    )


@pytest.fixture
async def data(settings: Settings) -> AsyncIterator[DataLayer]:
    async with DataLayer(settings) as data:
        await empty_tables(data)
        await data.cache.flush()
        yield data


@pytest.fixture
async def client(data: DataLayer) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(whole_application(data), client=("192.0.2.1", 4711))
    async with httpx.AsyncClient(transport=transport, base_url=PUBLIC_URL) as client:
        yield client


@pytest.fixture
def page_of(client: httpx.AsyncClient, clerk: Clerk) -> Callable[[str], Page]:
    """The page of a person."""
    return lambda sub: Page(client, clerk, sub)


@pytest.fixture
def ann(page_of: Callable[[str], Page]) -> Page:
    return page_of("user_ann")


@pytest.fixture
async def back_end(client: httpx.AsyncClient, ann: Page) -> BackEnd:
    """The back end, after it has asked who Ann is."""
    return BackEnd(client, (await ann.call("POST", "/credits/has_credits"))["user_id"])
