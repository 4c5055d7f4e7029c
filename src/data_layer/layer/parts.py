"""What exists while the data layer is open, and how it is opened."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from data_layer.cache import Cache
from data_layer.config import Settings
from data_layer.database.address import database_address, direct_address
from data_layer.database.counters import ServerCounters
from data_layer.database.engine import Database
from data_layer.database.listener import Listener
from data_layer.database.migrator import Migrator
from data_layer.database.replicas import Replicas
from data_layer.embedded import EmbeddedAddresses
from data_layer.entities.enums import StorageKind
from data_layer.errors import (
    CacheError,
    CacheLoginError,
)
from data_layer.layer.operators import make_replicas, open_storage
from data_layer.layer.servers import embedded_servers, log_progress, prepare, require_direct_address, run_in_thread
from data_layer.layer.tracing import cache_observer, enter_tracing, trace_database, trace_services, trace_storage
from data_layer.observability.log import get_log
from data_layer.repositories.session_changes import SESSION_CHANNEL
from data_layer.repositories.unit_of_work import AfterCommit, CommitHooks, UnitOfWork
from data_layer.services.accounts import PasswordHasher
from data_layer.services.audit.buffer import AuditBuffer, SpillFolder
from data_layer.services.fetching import Fetcher
from data_layer.services.files import StorageBackends
from data_layer.services.files.opening import FileServices, open_files
from data_layer.services.generations import GenerationStreams, LiveStreams
from data_layer.services.image_files import ImageFiles
from data_layer.services.sessions import SessionService
from data_layer.services.sessions.change_stream import ANSWER_SECONDS
from data_layer.services.tokens import TokenService
from data_layer.services.view_counts import ViewCounts
from data_layer.storage import StorageBackend
from data_layer.storage.counters import StorageCounters, counted
from data_layer.storage.opening import make_storage

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

    from data_layer.observability.tracing.tracing import Tracing


log = get_log(__name__)


@dataclass(frozen=True, slots=True)
class Parts:
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
    commit_hooks: CommitHooks
    storage_counters: StorageCounters
    all_storage_counters: tuple[StorageCounters, ...]
    server_counters: ServerCounters
    files: FileServices
    image_files: ImageFiles
    generation_streams: GenerationStreams
    view_counts: ViewCounts
    tracing: Tracing | None


async def open_parts(
    settings: Settings,
    stack: AsyncExitStack,
    transaction: Callable[[], UnitOfWork],
    *,
    exclusive: bool,
    prepares: bool,
    tracer_provider: TracerProvider | None,
) -> Parts:
    """Open everything, one after the other; the stack closes it in the opposite order.

    Args:
        settings: what, where and how.
        stack: what is opened is entered there.
        transaction: begins one, once everything is open.
        exclusive: be the one service of the folder of the embedded servers.
        prepares: create and migrate a database of one's own as well.
        tracer_provider: of the application, for the spans.
    """
    tracing = enter_tracing(settings, stack, tracer_provider)
    addresses = await stack.enter_async_context(embedded_servers(settings, exclusive=exclusive))
    storage, counters = await _open_counted_storage(settings, stack, tracing)
    cache = await stack.enter_async_context(
        Cache(settings.redis, addresses.redis_url, observer=cache_observer(tracing))
    )
    await _look_for(cache)
    migrator = await _make_migrator(settings, addresses, prepares=prepares)
    database = Database(settings.database, database_address(settings.database, addresses.database_url))
    trace_database(tracing, database)
    stack.push_async_callback(database.close)
    await database.open()
    replicas = make_replicas(settings.database, database)
    stack.push_async_callback(replicas.close)
    await replicas.open()
    (await database.schema()).require_current()
    backends, second = await _open_backends(settings, stack, storage)
    files = await stack.enter_async_context(
        open_files(settings.files, settings.storage, settings.security.session_secret, transaction, backends)
    )
    fetcher = Fetcher(max_size=settings.storage.max_file_size)
    stack.callback(fetcher.close)
    log.info("data_layer_opened", database=str(database.address), cache=cache.address)
    passwords = stack.enter_context(PasswordHasher(settings.security.bcrypt_rounds))
    audit_buffer = _make_audit_buffer(settings, database)
    stack.push_async_callback(audit_buffer.close)
    audit_buffer.start()
    sessions, tokens = _make_sessions(settings, database, cache, addresses)
    stack.push_async_callback(sessions.close)
    commit_hooks = _make_commit_hooks(cache, sessions, files)
    # Its last checkpoints and views come while the data layer closes and begins no transactions for others any more.
    generation_streams = GenerationStreams(partial(UnitOfWork, database, commit_hooks), LiveStreams(cache))
    stack.push_async_callback(generation_streams.close)
    view_counts = ViewCounts(partial(UnitOfWork, database))
    stack.push_async_callback(view_counts.close)
    view_counts.start()
    trace_services(tracing, sessions, tokens, files)
    return Parts(
        database,
        replicas,
        migrator,
        cache,
        storage,
        passwords,
        audit_buffer,
        sessions,
        tokens,
        commit_hooks,
        counters,
        (counters, *second),
        ServerCounters(database, replicas.databases, observing=settings.metrics.enable_metrics),
        files,
        ImageFiles(files.service, fetcher),
        generation_streams,
        view_counts,
        tracing,
    )


async def _make_migrator(settings: Settings, addresses: EmbeddedAddresses, *, prepares: bool) -> Migrator:
    migrator = Migrator(direct_address(settings.database, addresses.database_url))
    if prepares or addresses.database_url is not None:
        require_direct_address(settings.database)
        await run_in_thread(partial(prepare, migrator), log_progress)
    return migrator


async def _open_counted_storage(
    settings: Settings, stack: AsyncExitStack, tracing: Tracing | None
) -> tuple[StorageBackend, StorageCounters]:
    counters = StorageCounters(settings.storage.storage_backend)
    trace_storage(tracing, counters)
    storage: StorageBackend = counted(make_storage(settings.storage, settings.security.session_secret), counters)
    stack.push_async_callback(storage.close)
    await storage.initialize()
    return storage, counters


async def _open_backends(
    settings: Settings, stack: AsyncExitStack, storage: StorageBackend
) -> tuple[StorageBackends, list[StorageCounters]]:
    others: dict[StorageKind, StorageBackend] = {}
    counters: list[StorageCounters] = []
    if (second := settings.storage.second) is not None:
        opened = await stack.enter_async_context(open_storage(second, settings.security.session_secret))
        counters.append(StorageCounters(second.storage_backend))
        others[StorageKind(second.storage_backend)] = counted(opened, counters[0])
    return StorageBackends(StorageKind(settings.storage.storage_backend), storage, others), counters


def _make_commit_hooks(cache: Cache, sessions: SessionService, files: FileServices) -> CommitHooks:
    return CommitHooks(
        changed_keys=cache.transaction_keys,
        ended_sessions=partial(AfterCommit, sessions.forget),
        discarded_files=partial(AfterCommit, files.removal.remove_discarded),
    )


def _make_audit_buffer(settings: Settings, database: Database) -> AuditBuffer:
    return AuditBuffer(
        database,
        SpillFolder(settings.spill_folder, settings.audit.audit_spill_limit),
        capacity=settings.audit.audit_buffer_size,
        interval=settings.audit.audit_flush_interval,
    )


def _make_sessions(
    settings: Settings, database: Database, cache: Cache, addresses: EmbeddedAddresses
) -> tuple[SessionService, TokenService]:
    is_pooled = settings.database.db_direct_url is None
    address = database.address if is_pooled else direct_address(settings.database, addresses.database_url)
    connect = partial(
        Listener.open,
        address,
        settings.database,
        SESSION_CHANNEL,
        time_limit=ANSWER_SECONDS,
        observation=database.observation,
    )

    def transaction() -> UnitOfWork:
        return UnitOfWork(database, CommitHooks(ended_sessions=lambda: AfterCommit(sessions.forget)))

    sessions = SessionService(transaction, cache, connect, settings.security)
    return sessions, TokenService(transaction, sessions, settings.security)


async def _look_for(cache: Cache) -> None:
    try:
        await cache.check()
    except CacheLoginError:
        raise
    except CacheError as error:
        log.warning("cache_unavailable", reason=str(error))
