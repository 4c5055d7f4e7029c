"""Single parts of the data layer, for administrators: each works while the others are broken."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from pydantic import SecretStr

from data_layer.cache import Cache
from data_layer.config import Settings
from data_layer.database.address import database_address, direct_address
from data_layer.database.engine import Database
from data_layer.database.migrator import Migrator
from data_layer.layer.container import make_replicas
from data_layer.layer.servers import embedded_servers, require_direct_address
from data_layer.repositories.unit_of_work import UnitOfWork
from data_layer.schemas.operations import Health
from data_layer.services.health import HealthService
from data_layer.services.statistics import StatisticsService
from data_layer.settings.storage import StorageSettings
from data_layer.storage import StorageBackend
from data_layer.storage.selection import make_storage


@asynccontextmanager
async def open_migrator(settings: Settings) -> AsyncIterator[Migrator]:
    """The migrator alone, for administrators: the database need not exist yet.

    Raises:
        ConfigurationError: when it could only be reached through PgBouncer, which breaks the lock of migrations.
    """
    require_direct_address(settings.database)
    async with embedded_servers(settings, valkey=False) as addresses:
        yield Migrator(direct_address(settings.database, addresses.database_url))


def describe_database(settings: Settings) -> str:
    """Which database the settings name, for a question to people."""
    if settings.database.is_embedded:
        return f"the embedded database {settings.database.db_name} in {settings.general.data_folder.absolute()}"
    return f"the database {direct_address(settings.database)}"


@asynccontextmanager
async def open_transactions(settings: Settings) -> AsyncIterator[Callable[[], UnitOfWork]]:
    """The database alone, for administrators: it works without cache and storage."""
    async with AsyncExitStack() as stack:
        addresses = await stack.enter_async_context(embedded_servers(settings, valkey=False))
        database = Database(settings.database, database_address(settings.database, addresses.database_url))
        stack.push_async_callback(database.close)
        database.prepare()
        yield partial(UnitOfWork, database)


@asynccontextmanager
async def open_cache(settings: Settings) -> AsyncIterator[Cache]:
    """The cache alone, for administrators: it works without the database."""
    async with (
        embedded_servers(settings, postgresql=False) as addresses,
        Cache(settings.redis, addresses.redis_url) as cache,
    ):
        yield cache


async def create_storage(settings: Settings, *, allow_public: bool) -> Sequence[str]:
    """Make the folder, bucket or container if it is missing; what the server did not say about it."""
    return await make_storage(settings.storage, settings.security.session_secret).create(allow_public=allow_public)


@asynccontextmanager
async def open_storage(settings: StorageSettings, session_secret: SecretStr) -> AsyncIterator[StorageBackend]:
    """The storage alone, for administrators: it works without the servers."""
    storage = make_storage(settings, session_secret)
    await storage.initialize()
    try:
        yield storage
    finally:
        await storage.close()


async def probe(settings: Settings) -> Health:
    """The health of all parts, also of those that would keep the data layer from opening."""
    async with AsyncExitStack() as stack:
        addresses = await stack.enter_async_context(embedded_servers(settings))
        database = Database(settings.database, database_address(settings.database, addresses.database_url))
        stack.push_async_callback(database.close)
        database.prepare()
        cache = await stack.enter_async_context(Cache(settings.redis, addresses.redis_url))
        storage = make_storage(settings.storage, settings.security.session_secret)
        stack.push_async_callback(storage.close)

        async def check_storage() -> None:
            await storage.initialize()
            await storage.check()

        return await HealthService(partial(UnitOfWork, database), cache.check, check_storage).check()


@asynccontextmanager
async def open_statistics(settings: Settings) -> AsyncIterator[StatisticsService]:
    """What gathers figures, also while parts are broken; each call asks again."""
    async with AsyncExitStack() as stack:
        addresses = await stack.enter_async_context(embedded_servers(settings))
        database = Database(settings.database, database_address(settings.database, addresses.database_url))
        stack.push_async_callback(database.close)
        database.prepare()
        replicas = make_replicas(settings.database, database)
        stack.push_async_callback(replicas.close)
        await replicas.open()
        cache = await stack.enter_async_context(Cache(settings.redis, addresses.redis_url))
        transactions = partial(UnitOfWork, database)
        yield StatisticsService(database, replicas, transactions, cache, settings.storage)
