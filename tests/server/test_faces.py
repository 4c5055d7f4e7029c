"""The application with all its faces."""

from __future__ import annotations

import gc
from weakref import ref

import httpx

from data_layer import DataLayer, Settings
from data_layer.server.faces import whole_application
from tests.hosted.fakes import ORIGIN, SECRET
from tests.support import until


async def test_what_is_no_longer_used_is_collected(settings: Settings) -> None:
    """FastAPI remembers thousands of handlers for as long as the process runs, with all that they refer to."""
    issuer = {"oidc_issuer": "https://issuer.example", "oidc_accept_bearer": True, "oidc_allowed_azp": ORIGIN}
    everything = settings.replaced(saas_api_secret=SECRET, public_url="https://data.example", **issuer)
    async with DataLayer(everything) as data:
        app = whole_application(data)
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="https://data.example") as client:
            for path in ("/health", "/readyz", "/livez", "/docs", "/console/login", "/verify-email", "/a/none"):
                assert (await client.get(path)).status_code in {200, 404}
    left = ref(app), ref(data)
    del app, data, transport, client

    def are_gone() -> bool:
        gc.collect()  # Again: what has just run may hold something for a moment.
        return [each() for each in left] == [None, None]

    await until(are_gone)
