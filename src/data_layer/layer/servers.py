"""The embedded servers that the settings ask for, and the database on them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from data_layer.config import Settings
from data_layer.database.migrations.execution import MigrationEvent, MigrationProgress, ProgressListener
from data_layer.database.migrator import Migrator
from data_layer.embedded import EmbeddedAddresses, EmbeddedServers
from data_layer.errors import (
    ConfigurationError,
    DatabaseMissingError,
    MigrationError,
    SchemaBehindError,
)
from data_layer.observability.log import get_log
from data_layer.settings.database import DatabaseSettings

Result = TypeVar("Result")
log = get_log(__name__)


@asynccontextmanager
async def embedded_servers(
    settings: Settings, *, exclusive: bool = False, postgresql: bool = True, valkey: bool = True
) -> AsyncIterator[EmbeddedAddresses]:
    """The addresses of the embedded servers that are needed; none where the settings name servers."""
    postgresql, valkey = postgresql and settings.database.is_embedded, valkey and settings.redis.is_embedded
    if not (postgresql or valkey):
        yield EmbeddedAddresses(None, None)
        return
    servers = EmbeddedServers(
        settings.general.data_folder, postgresql=postgresql, valkey=valkey, database_name=settings.database.db_name
    )
    addresses = await servers.start(exclusive=exclusive)
    try:
        yield addresses
    finally:
        await servers.stop()


async def run_in_thread(work: Callable[[ProgressListener], Result], listener: ProgressListener) -> Result:
    """Run what a migrator does without blocking the loop.

    That another process is being waited for is reported once, and a cancellation ends the waiting.
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


def require_direct_address(settings: DatabaseSettings) -> None:
    """Refuse to migrate through PgBouncer.

    Raises:
        ConfigurationError: when nothing else is possible.
    """
    if settings.db_pgbouncer and settings.db_direct_url is None:
        raise ConfigurationError("DB_DIRECT_URL must be set: migrations cannot go through PgBouncer (DB_PGBOUNCER)")


def prepare(migrator: Migrator, listener: ProgressListener) -> None:
    """The embedded database follows the code: created and migrated whenever it does not fit."""
    try:
        migrator.require_current()
    except (DatabaseMissingError, SchemaBehindError):
        migrator.create()
        revisions = migrator.migrate(on_progress=listener)
        log.info("database_migrated", revisions=len(revisions))


def log_progress(progress: MigrationProgress) -> None:
    """Listen to a migration on behalf of the log; a first start has a hundred steps, which few people want to see."""
    revision = progress.revision.identifier if progress.revision else None
    log.debug("migration_progressed", revision=revision, step=progress.event)
