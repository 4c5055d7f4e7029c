"""The composition root: opens, wires and closes everything; the only file that knows everything."""

from __future__ import annotations

import asyncio
import threading
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Self, TypeVar

from data_layer.cache import Cache
from data_layer.config import Settings
from data_layer.database.address import database_address, direct_address, replica_addresses
from data_layer.database.engine import Database
from data_layer.database.listener import Listener
from data_layer.database.migrations.progress import MigrationEvent
from data_layer.database.migrator import Migrator
from data_layer.database.replicas import Replicas
from data_layer.embedded import EmbeddedAddresses, EmbeddedServers
from data_layer.entities.enums import StorageKind
from data_layer.errors import (
    CacheError,
    CacheLoginError,
    ConfigurationError,
    DatabaseMissingError,
    MigrationError,
    NotInitializedError,
    SchemaBehindError,
)
from data_layer.observability.log import get_log
from data_layer.repositories.session_changes import SESSION_CHANNEL
from data_layer.repositories.unit_of_work import UnitOfWork, last_position
from data_layer.services.accounts import AccountService, AccountTools, PasswordHasher
from data_layer.services.audit.buffer import AuditBuffer
from data_layer.services.audit.service import AuditService
from data_layer.services.audit.spill import SpillFolder
from data_layer.services.files import StoragePlaces
from data_layer.services.files.opening import open_files
from data_layer.services.health import HealthService
from data_layer.services.maintenance import MaintenanceService
from data_layer.services.projects import ProjectService
from data_layer.services.seed import SeedService
from data_layer.services.sessions import SessionService
from data_layer.services.sessions.feed import ANSWER_SECONDS
from data_layer.services.statistics import StatisticsService
from data_layer.services.tokens import TokenService
from data_layer.storage.counters import CountedStorage, StorageCounters
from data_layer.storage.opening import make_storage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from types import TracebackType

    from data_layer.database.migrations.progress import MigrationProgress, ProgressListener
    from data_layer.schemas.health import Health
    from data_layer.services.files import FileMaintenance, FileService, LocalFileServer
    from data_layer.services.files.opening import FileServices
    from data_layer.services.statistics import Statistics
    from data_layer.storage import StorageBackend

Result = TypeVar("Result")
log = get_log(__name__)


@dataclass(frozen=True, slots=True)
class _Parts:
    """What exists while the data layer is open."""

    database: Database
    replicas: Replicas
    migrator: Migrator
    cache: Cache
    storage: StorageBackend
    passwords: PasswordHasher
    audit_buffer: AuditBuffer
    sessions: SessionService
    tokens: TokenService
    storage_counters: StorageCounters
    files: FileServices


class DataLayer:
    """Database, cache and storage behind one object, used as ``async with DataLayer(Settings()) as data``.

    While no server is named in the settings, PostgreSQL and Valkey are started from their wheels, and the embedded
    database is created and migrated. A database of one's own is never changed by opening it.

    Args:
        settings: by default those of the environment.
        exclusive: be the one service of the folder of the embedded servers.
        prepare: create and migrate a database of one's own as well.
    """

    def __init__(self, settings: Settings | None = None, *, exclusive: bool = False, prepare: bool = False) -> None:
        self.settings = settings or Settings()
        self._exclusive = exclusive
        self._prepares = prepare
        self._exit_stack: AsyncExitStack | None = None
        self._parts: _Parts | None = None

    async def open(self) -> Self:
        """Start and connect everything. Harmless when it is open.

        A cache that cannot be reached is no reason to fail: the database holds the truth.

        Raises:
            SchemaMismatchError: when the tables are not those of this version; the message names the command to run.
            DataLayerError: when something else that is needed cannot be had; nothing stays open then.
        """
        if self._parts is None:
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

    @property
    def storage_counters(self) -> StorageCounters:
        """What the storage has done since it was opened: operations, bytes, errors and durations."""
        return self._opened.storage_counters

    @property
    def files(self) -> FileService:
        """Files of users: validated, recorded, and removed when nobody refers to them any more."""
        return self._opened.files.service

    @property
    def local_files(self) -> LocalFileServer | None:
        """What serves signed URLs of local files; None where no files are local."""
        return self._opened.files.server

    @property
    def file_maintenance(self) -> FileMaintenance:
        """What operators do with stored files."""
        return self._opened.files.maintenance

    def transaction(self, *, read_only: bool = False, after: str | None = None) -> UnitOfWork:
        """A new transaction, for one ``async with`` block: committed at its end, rolled back on an exception.

        Args:
            read_only: refuse changes, and read from a replica (DB_REPLICA_HOSTS) if one is fresh enough: at most
                DB_REPLICA_MAX_LAG seconds behind, and not behind what this task, or the one that started it, has
                committed itself.
            after: also not behind this ``position``, which another task or process has handed over.

        Raises:
            NotInitializedError: when the data layer is not open.
            InvalidValueError: when ``after`` is no position.
        """
        parts = self._opened
        if read_only:
            return UnitOfWork(parts.replicas.reader(last_position(), after))
        return UnitOfWork(parts.database, self._remove_files, parts.cache.transaction_keys, parts.sessions.forget)

    @property
    def position(self) -> str | None:
        """Where the database was after the last commit of this task, for ``transaction(read_only=True, after=…)``.

        A web application hands it to its client, so that the next request reads what this one has written, whichever
        replica serves it. None without a commit, and without replicas.
        """
        return last_position()

    @property
    def replicas(self) -> Replicas:
        """The replicas that are read from."""
        return self._opened.replicas

    @property
    def accounts(self) -> AccountService:
        """Accounts of people: registering, logging in, changing, ending."""
        return AccountService(AccountTools(self.transaction, self.audit, self._opened.passwords, self.settings))

    @property
    def projects(self) -> ProjectService:
        """Projects and the versions of their code."""
        return ProjectService(self.transaction)

    @property
    def audit(self) -> AuditService:
        """The audit trail."""
        return AuditService(self.transaction, self._opened.audit_buffer)

    @property
    def sessions(self) -> SessionService:
        """Who is logged in."""
        return self._opened.sessions

    @property
    def tokens(self) -> TokenService:
        """Access and refresh tokens, for clients that hold no cookie."""
        return self._opened.tokens

    @property
    def maintenance(self) -> MaintenanceService:
        """Removal of what has expired, and the months of the audit trail."""
        return MaintenanceService(
            self.database, self.transaction, retention_months=self.settings.audit_retention_months
        )

    @property
    def seed(self) -> SeedService:
        """The example data."""
        return SeedService(self.transaction, self.storage)

    async def require_current_schema(self) -> None:
        """Ask the database whether its tables are those of this version; one query.

        Raises:
            SchemaMismatchError: when they are not; the message names the command to run.
            DatabaseError: when it cannot be asked.
        """
        (await self.database.schema()).require_current()

    async def health(self) -> Health:
        """Whether database, cache and storage work."""
        return await HealthService(self.transaction, self.cache.check, self.storage.check).check()

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
        addresses = await stack.enter_async_context(_embedded(self.settings, exclusive=self._exclusive))
        counters = StorageCounters(self.settings.storage_backend)
        storage: StorageBackend = CountedStorage(make_storage(self.settings), counters)
        stack.push_async_callback(storage.close)
        await storage.initialize()
        cache = await stack.enter_async_context(Cache(self.settings, addresses.redis_url))
        await _look_for(cache)
        migrator = Migrator(direct_address(self.settings, addresses.database_url))
        if self._prepares or addresses.database_url is not None:
            _require_direct_address(self.settings)
            await run_in_thread(partial(_prepare, migrator), _log_progress)
        database = Database(self.settings, database_address(self.settings, addresses.database_url))
        stack.push_async_callback(database.close)
        await database.open()
        replicas = Replicas(database, _make_replicas(self.settings), self.settings.db_replica_max_lag)
        stack.push_async_callback(replicas.close)
        await replicas.open()
        (await database.schema()).require_current()
        places = await self._open_places(stack, storage)
        files = await stack.enter_async_context(open_files(self.settings, self.transaction, places))
        log.info("data_layer_opened", database=str(database.address), cache=cache.address)
        passwords = stack.enter_context(PasswordHasher(self.settings.bcrypt_rounds))
        audit_buffer = _make_audit_buffer(self.settings, database)
        stack.push_async_callback(audit_buffer.close)
        audit_buffer.start()
        sessions, tokens = _make_sessions(self.settings, database, cache, addresses)
        stack.push_async_callback(sessions.close)
        return _Parts(
            database, replicas, migrator, cache, storage, passwords, audit_buffer, sessions, tokens, counters, files
        )

    async def _open_places(self, stack: AsyncExitStack, storage: StorageBackend) -> StoragePlaces:
        settings = self.settings
        others: dict[StorageKind, StorageBackend] = {}
        second = settings.storage_second_backend
        if second is not None and second != settings.storage_backend:
            second_settings = settings.model_copy(update={"storage_backend": second})
            others[StorageKind(second)] = await stack.enter_async_context(open_storage(second_settings))
        return StoragePlaces(StorageKind(settings.storage_backend), storage, others)

    async def _remove_files(self, keys: Sequence[str]) -> None:
        await self._opened.files.removal.remove_discarded(keys)


@asynccontextmanager
async def open_migrator(settings: Settings) -> AsyncIterator[Migrator]:
    """The migrator alone, for operators: the database need not exist yet.

    Raises:
        ConfigurationError: when it could only be reached through PgBouncer, which breaks the lock of migrations.
    """
    _require_direct_address(settings)
    async with _embedded(settings, valkey=False) as addresses:
        yield Migrator(direct_address(settings, addresses.database_url))


async def run_in_thread(work: Callable[[ProgressListener], Result], listener: ProgressListener) -> Result:
    """Run what a migrator does without blocking the loop.

    It is told once, not all the time, that another process is being waited for, and a cancellation ends the waiting.
    """
    waiting, cancelled = False, threading.Event()

    def listen(progress: MigrationProgress) -> None:
        nonlocal waiting
        is_waiting = progress.event is MigrationEvent.WAITING
        if is_waiting and cancelled.is_set():
            raise MigrationError("no longer waiting for the other process that is migrating")
        if not (waiting and is_waiting):
            listener(progress)
        waiting = is_waiting

    try:
        return await asyncio.to_thread(work, listen)
    finally:
        cancelled.set()


def describe_database(settings: Settings) -> str:
    """Which database the settings name, for a question to people."""
    if settings.uses_embedded_database:
        return f"the embedded database {settings.db_name} in {settings.data_folder.absolute()}"
    return f"the database {direct_address(settings)}"


@asynccontextmanager
async def open_cache(settings: Settings) -> AsyncIterator[Cache]:
    """The cache alone, for operators: it works without the database."""
    async with _embedded(settings, postgresql=False) as addresses, Cache(settings, addresses.redis_url) as cache:
        yield cache


@asynccontextmanager
async def open_storage(
    settings: Settings, *, create: bool = False, allow_public: bool = False
) -> AsyncIterator[StorageBackend]:
    """The storage alone, for operators: it works without the servers.

    Args:
        settings: which storage.
        create: make the folder, bucket or container first, if it is missing.
        allow_public: accept that everybody can read it; otherwise making it fails.
    """
    storage = make_storage(settings)
    if create:
        await storage.create(allow_public=allow_public)
    await storage.initialize()
    try:
        yield storage
    finally:
        await storage.close()


async def probe(settings: Settings) -> Health:
    """The health of all parts, also of those that would keep the data layer from opening."""
    async with AsyncExitStack() as stack:
        addresses = await stack.enter_async_context(_embedded(settings))
        database = Database(settings, database_address(settings, addresses.database_url))
        stack.push_async_callback(database.close)
        database.prepare()
        cache = await stack.enter_async_context(Cache(settings, addresses.redis_url))
        storage = make_storage(settings)
        stack.push_async_callback(storage.close)

        async def check_storage() -> None:
            await storage.initialize()
            await storage.check()

        return await HealthService(partial(UnitOfWork, database), cache.check, check_storage).check()


@asynccontextmanager
async def _embedded(
    settings: Settings, *, exclusive: bool = False, postgresql: bool = True, valkey: bool = True
) -> AsyncIterator[EmbeddedAddresses]:
    """The addresses of the embedded servers that are needed; none where the settings name servers."""
    postgresql, valkey = postgresql and settings.uses_embedded_database, valkey and settings.uses_embedded_cache
    if not (postgresql or valkey):
        yield EmbeddedAddresses(None, None)
        return
    servers = EmbeddedServers(
        settings.data_folder, postgresql=postgresql, valkey=valkey, database_name=settings.db_name
    )
    addresses = await servers.start(exclusive=exclusive)
    try:
        yield addresses
    finally:
        await servers.stop()


def _make_replicas(settings: Settings) -> list[Database]:
    return [Database(settings, address) for address in replica_addresses(settings)]


def _make_audit_buffer(settings: Settings, database: Database) -> AuditBuffer:
    folder = settings.audit_spill_folder or settings.data_folder / "audit-spill"
    return AuditBuffer(
        database,
        SpillFolder(folder.absolute(), settings.audit_spill_limit),
        capacity=settings.audit_buffer_size,
        interval=settings.audit_flush_interval,
    )


def _make_sessions(
    settings: Settings, database: Database, cache: Cache, addresses: EmbeddedAddresses
) -> tuple[SessionService, TokenService]:
    is_pooled = settings.db_direct_url is None
    address = database.address if is_pooled else direct_address(settings, addresses.database_url)
    connect = partial(Listener.open, address, settings, SESSION_CHANNEL, time_limit=ANSWER_SECONDS)

    def transaction() -> UnitOfWork:
        return UnitOfWork(database, forget_sessions=sessions.forget)

    sessions = SessionService(transaction, cache, connect, settings)
    return sessions, TokenService(transaction, sessions, settings)


async def _look_for(cache: Cache) -> None:
    try:
        await cache.check()
    except CacheLoginError:
        raise
    except CacheError as error:
        log.warning("cache_unavailable", reason=str(error))


def _require_direct_address(settings: Settings) -> None:
    if settings.db_pgbouncer and settings.db_direct_url is None:
        raise ConfigurationError("DB_DIRECT_URL must be set: migrations cannot go through PgBouncer (DB_PGBOUNCER)")


def _prepare(migrator: Migrator, listener: ProgressListener) -> None:
    """The embedded database follows the code: created and migrated whenever it does not fit."""
    try:
        migrator.require_current()
    except (DatabaseMissingError, SchemaBehindError):
        migrator.create()
        migrator.migrate(on_progress=listener)


def _log_progress(progress: MigrationProgress) -> None:
    revision = progress.revision.identifier if progress.revision else None
    log.info("migration_progressed", revision=revision, step=progress.event)
