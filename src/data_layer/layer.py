"""The composition root: opens, wires and closes everything; the only file that knows everything."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Self

import structlog

from data_layer.cache import Cache
from data_layer.config import Settings
from data_layer.database.address import database_address, direct_address
from data_layer.database.engine import Database
from data_layer.database.migrator import Migrator
from data_layer.embedded import EmbeddedAddresses, EmbeddedServers
from data_layer.errors import (
    CacheError,
    CacheLoginError,
    DatabaseMissingError,
    DataLayerError,
    NotInitializedError,
    SchemaBehindError,
)
from data_layer.repositories.unit_of_work import UnitOfWork
from data_layer.services.health import HealthService
from data_layer.services.projects import ProjectService
from data_layer.services.statistics import StatisticsService
from data_layer.storage import LocalStorage

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from data_layer.schemas.health import Health
    from data_layer.services.statistics import Statistics
    from data_layer.storage import StorageBackend

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Parts:
    """What exists while the data layer is open."""

    database: Database
    migrator: Migrator
    cache: Cache
    storage: StorageBackend


class DataLayer:
    """Database, cache and storage behind one object, used as ``async with DataLayer(Settings()) as data``.

    While no server is named in the settings, PostgreSQL and Valkey are started from their wheels, and the embedded
    database is created and migrated. A database of one's own is never changed by opening it.

    Args:
        settings: by default those of the environment.
        exclusive: be the one service of the folder of the embedded servers.
    """

    def __init__(self, settings: Settings | None = None, *, exclusive: bool = False) -> None:
        self.settings = settings or Settings()
        self._exclusive = exclusive
        self._exit_stack: AsyncExitStack | None = None
        self._parts: _Parts | None = None

    async def open(self) -> Self:
        """Start and connect everything.

        A cache that cannot be reached is no reason to fail: the database holds the truth.

        Raises:
            SchemaMismatchError: when the tables are not those of this version; the message names the command to run.
            DataLayerError: when something else that is needed cannot be had; nothing stays open then.
        """
        async with AsyncExitStack() as stack:
            parts = await self._open(stack)
            self._parts, self._exit_stack = parts, stack.pop_all()
        return self

    async def close(self) -> None:
        """Close everything, in the opposite order. Harmless when it is closed."""
        stack, self._exit_stack, self._parts = self._exit_stack, None, None
        if stack is not None:
            await stack.aclose()

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def database(self) -> Database:
        """The pool of connections to PostgreSQL."""
        return self._opened.database

    @property
    def migrator(self) -> Migrator:
        """What operators do to the tables."""
        return self._opened.migrator

    @property
    def cache(self) -> Cache:
        """Values with a time to live, in Redis or Valkey."""
        return self._opened.cache

    @property
    def storage(self) -> StorageBackend:
        """Files under keys."""
        return self._opened.storage

    def transaction(self) -> UnitOfWork:
        """A new transaction, for one ``async with`` block: committed at its end, rolled back on an exception.

        Raises:
            NotInitializedError: when the data layer is not open.
        """
        return UnitOfWork(self._opened.database, self._remove_files)

    @property
    def projects(self) -> ProjectService:
        """Projects and the versions of their code."""
        return ProjectService(self.transaction)

    async def health(self) -> Health:
        """Whether database, cache and storage work."""
        return await HealthService(self.transaction, self.cache, self.storage).check()

    async def statistics(self) -> Statistics:
        """Figures of database, cache and storage."""
        service = StatisticsService(
            self.database, self.transaction, self.cache, self.storage, self.settings.storage_backend
        )
        return await service.gather()

    @property
    def _opened(self) -> _Parts:
        if self._parts is None:
            raise NotInitializedError(
                "the data layer is not open: use it inside `async with`, or call initialize_data_layer()"
            )
        return self._parts

    async def _open(self, stack: AsyncExitStack) -> _Parts:
        addresses = await self._start_embedded(stack)
        storage = LocalStorage(self.settings.local_storage_path, max_file_size=self.settings.max_file_size)
        stack.push_async_callback(storage.close)
        await storage.initialize()
        cache = await stack.enter_async_context(Cache(self.settings, addresses.redis_url))
        await _look_for(cache)
        migrator = Migrator(direct_address(self.settings, addresses.database_url))
        prepare = migrator.require_current if addresses.database_url is None else partial(_prepare, migrator)
        await asyncio.to_thread(prepare)
        database = Database(self.settings, database_address(self.settings, addresses.database_url))
        stack.push_async_callback(database.close)
        await database.open()
        log.info("data_layer_opened", database=str(database.address), cache=cache.address)
        return _Parts(database, migrator, cache, storage)

    async def _start_embedded(self, stack: AsyncExitStack) -> EmbeddedAddresses:
        settings = self.settings
        if not (settings.uses_embedded_database or settings.uses_embedded_cache):
            return EmbeddedAddresses(None, None)
        servers = EmbeddedServers(
            settings.data_folder,
            postgresql=settings.uses_embedded_database,
            valkey=settings.uses_embedded_cache,
            database_name=settings.db_name,
        )
        addresses = await servers.start(exclusive=self._exclusive)
        stack.push_async_callback(servers.stop)
        return addresses

    async def _remove_files(self, keys: Sequence[str]) -> None:
        """After a commit: remove the files that no row refers to any more. What fails here stays as a stray file."""
        for key in keys:
            try:
                await self.storage.delete(key)
            except DataLayerError as error:
                log.warning("file_removal_failed", key=key, reason=str(error))


async def _look_for(cache: Cache) -> None:
    try:
        await cache.check()
    except CacheLoginError:
        raise
    except CacheError as error:
        log.warning("cache_unavailable", reason=str(error))


def _prepare(migrator: Migrator) -> None:
    """The embedded database follows the code: created and migrated whenever it does not fit."""
    try:
        migrator.require_current()
    except (DatabaseMissingError, SchemaBehindError):
        migrator.create()
        migrator.migrate()
