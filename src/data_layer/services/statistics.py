"""Figures of all parts, gathered at once; a part that fails or is slow does not hide the others."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from data_layer.cache import Cache
from data_layer.cache.statistics import CacheStatistics
from data_layer.database.engine import Database
from data_layer.database.replicas import Replicas
from data_layer.errors import DataLayerError, StatementTimeoutError
from data_layer.repositories.statistics import (
    limit_time,
    read_server,
    read_size,
    read_slots,
    read_standbys,
    read_statements,
    read_stored,
    read_tables,
    read_unused_indexes,
)
from data_layer.repositories.unit_of_work import Transactions, UnitOfWork
from data_layer.schemas.actors import SYSTEM, Actor
from data_layer.schemas.base import Value
from data_layer.schemas.statistics import (
    DatabaseStatistics,
    FileStatistics,
    PoolStatistics,
    ReplicaStatistics,
)
from data_layer.services.health import within
from data_layer.services.permissions import Permission, as_of_now, require
from data_layer.settings.storage import StorageSettings

Figures = TypeVar("Figures")

_PART_SECONDS = 10.0
_FREE_SECONDS = 2.0
_SLOW = "it took too long and was given up, so that it disturbs nobody"
_HIDDEN = "this role sees only its own; GRANT pg_monitor TO {role} shows all"


class Statistics(Value):
    """All parts; one that could not be asked is missing, and ``errors`` says why."""

    taken_at: datetime
    database: DatabaseStatistics | None
    cache: CacheStatistics | None
    storage: FileStatistics | None
    errors: dict[str, str]


class StatisticsService:
    """Asks the database, the cache and the storage for their figures.

    Args:
        database: whose pool is described.
        replicas: of DB_REPLICA_HOSTS.
        transactions: where the database is asked.
        cache: asked for its own figures.
        storage: which one it is; what is in it, the database knows.
    """

    def __init__(
        self,
        database: Database,
        replicas: Replicas,
        transactions: Transactions,
        cache: Cache,
        storage: StorageSettings,
    ) -> None:
        self._database = database
        self._replicas = replicas
        self._transactions = transactions
        self._cache = cache
        self._settings = storage

    async def gather(self, actor: Actor = SYSTEM) -> Statistics:
        """The figures of all parts, after about ten seconds at most.

        Args:
            actor: an administrator, or the operator, who sees them also while the database is away.

        Raises:
            PermissionDeniedError: the actor may not read them.
        """
        require(actor, Permission.READ_STATISTICS)
        if not actor.is_system:
            async with self._transactions() as tx:
                require(await as_of_now(tx, actor), Permission.READ_STATISTICS)
        errors: dict[str, str] = {}
        database, cache, storage = await asyncio.gather(
            _or_none("database", self._of_database(), errors),
            _or_none("cache", self._cache.stats(), errors),
            _or_none("storage", self._of_storage(), errors),
        )
        return Statistics(taken_at=datetime.now(UTC), database=database, cache=cache, storage=storage, errors=errors)

    async def _of_database(self) -> DatabaseStatistics:
        server = await self._read(read_server)
        notes: dict[str, str] = {}
        # One after the other: figures may not take a pool's connections away from users.
        figures = {
            "size": await self._noted("size", read_size, notes),
            "tables": await self._noted("tables", read_tables, notes),
            "unused_indexes": await self._noted("unused_indexes", read_unused_indexes, notes),
            "statements": await self._noted("statements", read_statements, notes),
            "standbys": await self._noted("standbys", read_standbys, notes),
            "slots": await self._noted("slots", read_slots, notes),
        }
        if not server.sees_everything:
            hidden = _HIDDEN.format(role=server.role)
            notes |= {name: hidden for name in ("connections_by_state", "statements", "standbys") if name not in notes}
        return DatabaseStatistics(
            **server.model_dump(),
            **figures,
            pool=PoolStatistics(**self._database.pool_figures()),
            replicas=tuple(ReplicaStatistics.model_validate(replica) for replica in self._replicas.figures()),
            notes=notes,
        )

    async def _of_storage(self) -> FileStatistics:
        notes: dict[str, str] = {}
        stored = await self._noted("files", read_stored, notes)
        figures: dict[str, Any] = {} if stored is None else stored.model_dump()
        backend, free_size = self._settings.storage_backend, await self._free(notes)
        return FileStatistics(backend=backend, free_size=free_size, notes=notes, **figures)

    async def _free(self, notes: dict[str, str]) -> int | None:
        if self._settings.storage_backend != "local":
            return None
        try:
            return await within(_FREE_SECONDS, asyncio.to_thread(_free_space, self._settings.local_storage_path))
        except TimeoutError:
            notes["free_size"] = _SLOW
        except OSError as error:
            notes["free_size"] = error.strerror or str(error)
        return None

    async def _noted(
        self, name: str, read: Callable[[UnitOfWork], Awaitable[Figures]], notes: dict[str, str]
    ) -> Figures | None:
        """What can be read, or nothing and the reason."""
        try:
            return await self._read(read)
        except StatementTimeoutError:
            notes[name] = _SLOW
        except DataLayerError as error:
            notes[name] = str(error)
        return None

    async def _read(self, read: Callable[[UnitOfWork], Awaitable[Figures]]) -> Figures:
        async with self._transactions() as tx:
            await limit_time(tx)
            return await read(tx)


async def _or_none(name: str, figures: Coroutine[Any, Any, Figures], errors: dict[str, str]) -> Figures | None:
    try:
        return await within(_PART_SECONDS, figures)
    except TimeoutError:
        errors[name] = f"no answer within {_PART_SECONDS:g} s"
    except DataLayerError as error:
        errors[name] = str(error)
    return None


def _free_space(folder: Path) -> int:
    """Bytes that are free where the folder is, or will be."""
    while not folder.exists():
        folder = folder.absolute().parent
    return shutil.disk_usage(folder).free
