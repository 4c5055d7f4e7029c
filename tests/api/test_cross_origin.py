"""Pages of other origins: none may read an answer, or act as anybody, unless a setting says so."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from data_layer import DataLayer, Settings
from data_layer.api.app import create_app
from data_layer.errors import ConfigurationError
from data_layer.web.authentication import COOKIE
from tests.services.accounts.support import PASSWORD, make_account

APP = "https://app.example.com"
HOSTILE = (
    "null",
    "https://evil.example",
    "https://sub.app.example.com",
    "https://app.example.com.evil.example",
    "https://evilapp.example.com",
    "http://app.example.com",
    "https://app.example.com:8443",
    "https://APP.example.com",
    "",
)
PREFLIGHT = {"access-control-request-method": "PATCH", "access-control-request-headers": "authorization, if-match"}


def client_of(app: FastAPI) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="https://service")


def with_settings(data: DataLayer, monkeypatch: pytest.MonkeyPatch, **values: Any) -> FastAPI:
    monkeypatch.setattr(data, "settings", data.settings.replaced(**values))
    return create_app(data)


def allowed(answer: httpx.Response) -> set[str]:
    return {name for name in answer.headers if name.startswith("access-control-allow")}


async def test_by_default_nobody_may(app: FastAPI) -> None:
    async with client_of(app) as client:
        for origin in (APP, *HOSTILE):
            preflight = await client.options("/v1/projects", headers={"origin": origin, **PREFLIGHT})
            assert (preflight.status_code, allowed(preflight)) == (405, set())
            assert allowed(await client.get("/health", headers={"origin": origin})) == set()


async def test_only_named_origins_may_and_are_answered_first(data: DataLayer, monkeypatch: pytest.MonkeyPatch) -> None:
    app = with_settings(data, monkeypatch, cors_allowed_origins=(APP,), cors_allow_credentials=True)

    @app.get("/broken")
    async def broken() -> None:
        raise RuntimeError

    await make_account(data, "owner@example.com")
    new = await data.accounts.log_in("owner@example.com", PASSWORD)
    cookie = {"cookie": f"{COOKIE}={new.token.get_secret_value()}", "sec-fetch-site": "cross-site"}
    async with client_of(app) as client:
        preflight = await client.options("/v1/projects/x", headers={"origin": APP, **PREFLIGHT})
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-origin"] == APP
        assert preflight.headers["access-control-allow-credentials"] == "true"
        assert "PATCH" in preflight.headers["access-control-allow-methods"]
        answer = await client.get("/v1/projects", headers={"origin": APP})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (401, APP)
        shown = {each.strip() for each in answer.headers["access-control-expose-headers"].split(",")}
        assert shown >= {"etag", "location", "link", "retry-after", "x-request-id", "ratelimit"}
        assert "origin" in answer.headers["vary"].lower()
        crashed = await client.get("/broken", headers={"origin": APP})
        assert (crashed.status_code, crashed.headers["access-control-allow-origin"]) == (500, APP)
        made = await client.post("/v1/projects", json={"name": "x"}, headers={"origin": APP, **cookie})
        assert made.status_code == 201, made.text

        for origin in HOSTILE:
            preflight = await client.options("/v1/projects/x", headers={"origin": origin, **PREFLIGHT})
            assert preflight.status_code == 400, origin
            assert "access-control-allow-origin" not in preflight.headers
            read = await client.get("/v1/projects", headers={"origin": origin, **cookie})
            assert "access-control-allow-origin" not in read.headers
            forged = await client.post("/v1/projects", json={"name": "x"}, headers={"origin": origin, **cookie})
            assert forged.status_code == 403, origin


async def test_all_origins_may_read_without_cookies(data: DataLayer, monkeypatch: pytest.MonkeyPatch) -> None:
    app = with_settings(data, monkeypatch, cors_allowed_origins=("*",))
    await make_account(data, "owner@example.com")
    new = await data.accounts.log_in("owner@example.com", PASSWORD)
    cookie = {"cookie": f"{COOKIE}={new.token.get_secret_value()}", "sec-fetch-site": "cross-site"}
    async with client_of(app) as client:
        answer = await client.get("/health", headers={"origin": "https://anybody.example"})
        assert answer.headers["access-control-allow-origin"] == "*"
        forged = await client.post(
            "/v1/projects", json={"name": "x"}, headers={"origin": "https://a.example", **cookie}
        )
        assert forged.status_code == 403
        assert "access-control-allow-credentials" not in forged.headers


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"cors_allowed_origins": "*", "cors_allow_credentials": "true"}, "CORS_ALLOW_CREDENTIALS"),
        ({"cors_allowed_origins": "null"}, "CORS_ALLOWED_ORIGINS"),
        ({"cors_allowed_origins": "https://*.example.com"}, "CORS_ALLOWED_ORIGINS"),
        ({"cors_allowed_origins": "https://app.example.com/path"}, "CORS_ALLOWED_ORIGINS"),
        ({"cors_allowed_origins": "app.example.com"}, "CORS_ALLOWED_ORIGINS"),
    ],
)
def test_what_is_refused_at_start(values: dict[str, Any], name: str) -> None:
    with pytest.raises(ConfigurationError, match=name):
        Settings(**values)


def test_origins_are_written_as_browsers_write_them() -> None:
    settings = Settings(cors_allowed_origins="HTTPS://App.example.com:443/, http://localhost:5173")
    assert settings.service.cors_allowed_origins == (APP, "http://localhost:5173")
