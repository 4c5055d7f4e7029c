"""Figures of all parts, gathered at once; a part that fails does not hide the others."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from data_layer.cache.statistics import CacheStatistics
from data_layer.errors import DataLayerError
from data_layer.repositories.statistics import read_statistics
from data_layer.schemas.statistics import DatabaseStatistics, FileStatistics, Frozen

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from data_layer.cache import Cache
    from data_layer.database.engine import Database
    from data_layer.services.transactions import Transactions
    from data_layer.storage import StorageBackend

Figures = TypeVar("Figures")


class Statistics(Frozen):
    """All parts; one that could not be asked is missing, and ``errors`` says why."""

    database: DatabaseStatistics | None
    cache: CacheStatistics | None
    storage: FileStatistics | None
    errors: dict[str, str]


class StatisticsService:
    """Asks the database, the cache and the storage for their figures."""

    def __init__(
        self, database: Database, transactions: Transactions, cache: Cache, storage: StorageBackend, backend: str
    ) -> None:
        self._database = database
        self._transactions = transactions
        self._cache = cache
        self._storage = storage
        self._backend = backend

    async def gather(self) -> Statistics:
        """The figures of all parts. Counting the files of a large storage takes its time."""
        errors: dict[str, str] = {}
        database, cache, storage = await asyncio.gather(
            _or_none("database", self._of_database(), errors),
            _or_none("cache", self._cache.stats(), errors),
            _or_none("storage", self._of_storage(), errors),
        )
        return Statistics(database=database, cache=cache, storage=storage, errors=errors)

    async def _of_database(self) -> DatabaseStatistics:
        async with self._transactions() as tx:
            return await read_statistics(self._database, tx)

    async def _of_storage(self) -> FileStatistics:
        figures = await self._storage.statistics()
        return FileStatistics(
            backend=self._backend,
            file_count=figures.file_count,
            total_size=figures.total_size,
            free_size=figures.free_size,
        )


async def _or_none(name: str, figures: Awaitable[Figures], errors: dict[str, str]) -> Figures | None:
    try:
        return await figures
    except DataLayerError as error:
        errors[name] = str(error)
        return None
