from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

from data_layer import DataLayer, Settings
from data_layer.api.app import create_app
from tests.conftest import empty_tables

from .issuer import CLIENT_ID, CLIENT_SECRET, PUBLIC_URL, Issuer


@pytest.fixture(scope="session")
def running_issuer() -> Iterator[Issuer]:
    """One process for the whole run."""
    with Issuer() as issuer:
        yield issuer


@pytest.fixture
def issuer(running_issuer: Issuer) -> Issuer:
    """The issuer as it is at first."""
    running_issuer.reset()
    return running_issuer


@pytest.fixture
def settings(settings: Settings, issuer: Issuer) -> Settings:
    return settings.replaced(
        public_url=PUBLIC_URL,
        oidc_issuer=issuer.url,
        oidc_client_id=CLIENT_ID,
        oidc_client_secret=CLIENT_SECRET,
        oidc_accept_bearer=True,
        oidc_allowed_azp="https://app.example",
        oidc_timeout=20,
    )


@pytest.fixture
async def data(settings: Settings) -> AsyncIterator[DataLayer]:
    async with DataLayer(settings) as data:
        await empty_tables(data)
        await data.cache.flush()
        yield data


@pytest.fixture
async def browser(data: DataLayer) -> AsyncIterator[httpx.AsyncClient]:
    """A browser at the service, which keeps its cookies."""
    transport = httpx.ASGITransport(create_app(data), client=("192.0.2.1", 4711))
    async with httpx.AsyncClient(transport=transport, base_url=PUBLIC_URL) as browser:
        yield browser
