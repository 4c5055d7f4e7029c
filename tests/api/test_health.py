"""What probes get, also while servers are silent, gone or of another version."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import text

from data_layer import DataLayer, Settings
from data_layer.api.app import create_app
from data_layer.database.migrations import VERSION_TABLE
from data_layer.errors import SchemaAheadError
from data_layer.testing.redis_server import RedisServer
from tests.embedded.support import postgresql_only, processes_of
from tests.service.support import another_database, drop_database

# The probes have two seconds; the rest is for a busy machine. Cancelling what a silent server does takes much longer.
AT_ONCE = 6.0


@pytest.fixture(autouse=True)
def _probed_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data_layer.api.health._PROBE_INTERVAL", 0.0)


@contextmanager
def answered_at_once() -> Iterator[None]:
    started = time.monotonic()
    yield
    assert time.monotonic() - started < AT_ONCE


@asynccontextmanager
async def client_of(data: DataLayer) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(create_app(data))
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        yield client


async def test_everything_works(client: httpx.AsyncClient) -> None:
    answer = await client.get("/health")
    assert answer.status_code == 200
    health = answer.json()
    parts = health.pop("parts")
    assert health == {"database": True, "cache": True, "storage": True, "overall": True, "status": "healthy"}
    assert parts.keys() == {"database", "cache", "storage"}
    for part in parts.values():
        assert part["healthy"] is True
        assert part["error_code"] is None
        assert part["latency_ms"] > 0
    assert (await client.get("/livez")).json() == {"status": "alive"}
    ready = await client.get("/readyz")
    assert (ready.status_code, ready.json()) == (200, {"ready": True, "reason": None})


async def test_a_silent_cache_is_reported_at_once(settings: Settings) -> None:
    with RedisServer() as server:
        settings = settings.replaced(redis_url=SecretStr(server.url))
        async with DataLayer(settings) as data, client_of(data) as client:
            server.pause()
            with answered_at_once():
                health = await client.get("/health")
            server.resume()
            assert health.status_code == 503
            assert health.json()["parts"]["cache"]["error_code"] in {"cache_timeout", "timeout"}
            assert (health.json()["database"], health.json()["status"]) == (True, "degraded")
            assert (await client.get("/readyz")).status_code == 200, "the cache is not needed to work"
            assert (await client.get("/health")).status_code == 200, "it speaks again"


@contextmanager
def silent(folder: Path) -> Iterator[None]:
    """All processes of the PostgreSQL in the folder stand still."""
    processes = [number for number, command in processes_of(folder).items() if "postgres" in command]
    for number in processes:
        os.kill(number, signal.SIGSTOP)
    try:
        yield
    finally:
        for number in processes:
            os.kill(number, signal.SIGCONT)


async def test_a_silent_and_a_stopped_database_are_reported_at_once(settings: Settings, short_folder: Path) -> None:
    servers = postgresql_only(short_folder)
    addresses = await servers.start()
    settings = settings.replaced(database_url=SecretStr(str(addresses.database_url)))
    async with DataLayer(settings, prepare=True) as data, client_of(data) as client:
        with silent(short_folder):
            with answered_at_once():
                health, ready = await asyncio.gather(client.get("/health"), client.get("/readyz"))
            assert (health.status_code, ready.status_code) == (503, 503)
            assert health.json()["parts"]["database"]["error_code"] == "timeout"
            assert health.json()["cache"] is True
            assert ready.json() == {"ready": False, "reason": "timeout"}
            assert (await client.get("/livez")).status_code == 200
        assert (await client.get("/health")).status_code == 200, "it speaks again"
        await servers.stop()
        health, ready = await asyncio.gather(client.get("/health"), client.get("/readyz"))
        assert health.json()["parts"]["database"]["error_code"] == "database_unavailable"
        assert ready.json() == {"ready": False, "reason": "database_unavailable"}
        for said in (health.text, ready.text):
            assert str(short_folder) not in said
            assert "postgres" not in said


async def test_an_older_database_is_not_ready(settings: Settings, servers: tuple[str, str]) -> None:
    database_url = another_database(servers[0])
    settings = settings.replaced(database_url=SecretStr(database_url))
    try:
        async with DataLayer(settings, prepare=True) as data, client_of(data) as client:
            assert (await client.get("/readyz")).status_code == 200
            await asyncio.to_thread(data.migrator.rollback)
            ready = await client.get("/readyz")
            assert (ready.status_code, ready.json()) == (503, {"ready": False, "reason": "schema_behind"})
            await asyncio.to_thread(data.migrator.migrate)
            assert (await client.get("/readyz")).status_code == 200, "it notices by itself that it was repaired"
    finally:
        drop_database(database_url)


async def test_a_storage_that_cannot_be_written(data: DataLayer, client: httpx.AsyncClient) -> None:
    folder = data.settings.storage.local_storage_path
    folder.rename(folder.with_name("moved"))
    folder.touch()
    health = await client.get("/health")
    assert health.status_code == 503
    assert (health.json()["storage"], health.json()["status"]) == (False, "unhealthy")
    assert health.json()["parts"]["storage"]["error_code"] == "storage_unavailable"
    assert str(folder) not in health.text


async def test_a_newer_version_may_migrate_while_this_one_serves(settings: Settings, servers: tuple[str, str]) -> None:
    """A rollout migrates first; the pods of before serve until the new ones do."""
    database_url = another_database(servers[0])
    settings = settings.replaced(database_url=SecretStr(database_url))
    try:
        async with DataLayer(settings, prepare=True) as data, client_of(data) as client:
            async with data.transaction() as tx:
                await tx.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))
            assert (await client.get("/readyz")).json() == {"ready": True, "reason": None}
            with pytest.raises(SchemaAheadError):
                async with DataLayer(settings):
                    pass
    finally:
        drop_database(database_url)
