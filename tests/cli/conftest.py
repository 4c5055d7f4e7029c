from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from data_layer import DataLayer, Settings
from tests.conftest import empty_tables
from tests.observability.conftest import logging_as_before, logging_restored
from tests.service.support import another_database, drop_database

from .support import Commands

__all__ = ["logging_as_before"]


@pytest.fixture
def command(settings: Settings, servers: tuple[str, str]) -> Commands:
    """Commands on the migrated database, with empty tables and an empty cache."""

    async def clear() -> None:
        async with DataLayer(settings) as data:
            await empty_tables(data)
            await data.cache.flush()

    asyncio.run(clear())
    uploads = settings.storage.local_storage_path
    return commands_for(servers[0], servers[1], uploads, REDIS_KEY_PREFIX=settings.redis.redis_key_prefix)


@pytest.fixture
def command_on_nothing(servers: tuple[str, str], tmp_path: Path) -> Iterator[Commands]:
    """Commands on a database that does not exist yet."""
    database_url = another_database(servers[0])
    yield commands_for(database_url, servers[1], tmp_path / "uploads")
    drop_database(database_url)


@pytest.fixture(scope="module")
def seeded(servers: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    """Commands on a database with the example data, for tests that change nothing of it."""
    folder = tmp_path_factory.mktemp("seeded")
    database_url = another_database(servers[0])
    command = commands_for(database_url, servers[1], folder / "uploads", DATA_FOLDER=str(folder / "data"))
    with logging_restored():
        command("db", "create")
        command("db", "migrate")
        assert command("db", "seed", "--json").json["login"].keys() == {"email", "password"}
    yield command
    drop_database(database_url)


def commands_for(database_url: str, redis_url: str, uploads: Path, **environment: str) -> Commands:
    return Commands(
        ENVIRONMENT="testing",
        BCRYPT_ROUNDS="4",
        DATABASE_URL=database_url,
        REDIS_URL=redis_url,
        LOCAL_STORAGE_PATH=str(uploads),
        **environment,
    )
