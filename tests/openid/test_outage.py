"""The database goes away while people come with tokens of the issuer; and where their addresses come from."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Self

import httpx
import pytest
from sqlalchemy import make_url

from data_layer import DataLayer, Settings
from data_layer.api.app import create_app
from data_layer.schemas.actors import SYSTEM
from tests.conftest import empty_tables

from .issuer import PUBLIC_URL, Issuer
from .site import Site
from .test_bearer import code_of, with_address


class Way:
    """The way to the database, which can be closed."""

    def __init__(self, url: str) -> None:
        self._url = make_url(url)
        self._writers: list[asyncio.StreamWriter] = []
        self.is_open = True
        self._closings = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()
        self._server.close()

    @property
    def url(self) -> str:
        port = self._server.sockets[0].getsockname()[1]
        url = self._url.set(host="127.0.0.1", port=port, query={"sslmode": "disable"})
        return url.render_as_string(hide_password=False)

    def close(self) -> None:
        self.is_open = False
        self._closings += 1
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.is_open:
            writer.transport.abort()
            return
        before = self._closings
        folder = self._url.query.get("host") or self._url.host
        port = self._url.query.get("port") or self._url.port or 5432
        if str(folder).startswith("/"):
            there, away = await asyncio.open_unix_connection(f"{folder}/.s.PGSQL.{port}")
        else:
            there, away = await asyncio.open_connection(str(folder), int(str(port)))
        self._writers += [writer, away]
        if self._closings != before:
            for each in (writer, away):
                each.transport.abort()
        await asyncio.gather(_pump(reader, away), _pump(there, writer))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while piece := await reader.read(65536):
            writer.write(piece)
    except OSError:
        pass
    finally:
        writer.transport.abort()


@pytest.fixture
async def way(settings: Settings) -> AsyncIterator[Way]:
    url = settings.database.database_url
    assert url is not None
    async with Way(url.get_secret_value()) as way:
        yield way


async def test_accounts_come_from_the_cache_while_the_database_is_away(
    settings: Settings, issuer: Issuer, way: Way
) -> None:
    async with DataLayer(settings.replaced(database_url=way.url)) as data:
        await empty_tables(data)
        await data.cache.flush()
        transport = httpx.ASGITransport(create_app(data))
        async with httpx.AsyncClient(transport=transport, base_url=PUBLIC_URL) as browser:
            token, stranger = with_address(issuer), issuer.token(sub="bob")
            assert await code_of(browser, token) == (200, "in")
            way.close()
            for sid in range(3):
                assert await code_of(browser, token) == (200, "in")
                assert await code_of(browser, issuer.token(sid=str(sid))) == (200, "in"), "the next token of the minute"
            assert (await code_of(browser, stranger))[0] == 503
            await data.cache.flush()
            assert (await code_of(browser, token))[0] == 503, "a suspension removes it from there"


async def test_the_address_comes_from_a_configured_call(settings: Settings, issuer: Issuer) -> None:
    with Site() as site:
        replaced = settings.replaced(oidc_user_url=f"{site.url}/users/{{sub}}", oidc_user_token="sk_test")
        async with DataLayer(replaced) as data:
            await empty_tables(data)
            transport = httpx.ASGITransport(create_app(data))
            async with httpx.AsyncClient(transport=transport, base_url=PUBLIC_URL) as browser:
                clerk = {
                    "id": "user_1",
                    "first_name": "Ann",
                    "last_name": None,
                    "primary_email_address_id": "two",
                    "email_addresses": [
                        {"id": "one", "email_address": "no@example.com", "verification": {"status": "verified"}},
                        {"id": "two", "email_address": "ann@example.com", "verification": {"status": "unverified"}},
                    ],
                }
                site.answers["/users/a%2Fb"] = clerk
                assert await code_of(browser, issuer.token(sub="a/b")) == (403, "identity_unverified")
                site.answers["/users/user_1"] = clerk
                clerk["email_addresses"][1]["verification"]["status"] = "verified"  # type: ignore[index]
                assert await code_of(browser, issuer.token(sub="user_1")) == (200, "in")
                found = await data.accounts.find(SYSTEM, "ann@example.com")
                assert (found.first_name, found.last_name) == ("Ann", "")
                asked = site.asked[-1]
                assert (asked[0], asked[2]["authorization"]) == ("/users/user_1", "Bearer sk_test")
                site.statuses["/users/user_2"] = 500
                site.answers["/users/user_2"] = {}
                assert await code_of(browser, issuer.token(sub="user_2")) == (503, "issuer_unavailable")
