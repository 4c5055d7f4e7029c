"""Traces, wired: who is told of what, while they are on."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from data_layer.cache.observed import CommandObserver
from data_layer.config import Settings
from data_layer.context import current_context
from data_layer.database.engine import Database
from data_layer.observability.tracing.current import current_traceparent
from data_layer.observability.tracing.opening import open_tracing
from data_layer.services.files.opening import FileServices
from data_layer.services.sessions import SessionService
from data_layer.services.tokens import TokenService
from data_layer.storage.counters import StorageCounters

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

    from data_layer.observability.tracing.tracing import Tracing


def enter_tracing(settings: Settings, stack: AsyncExitStack, provider: TracerProvider | None) -> Tracing | None:
    """Traces, if somebody wants them; the stack ends them.

    Raises:
        ConfigurationError: when the settings ask for traces that cannot be had.
    """
    tracing = open_tracing(settings.tracing, lambda: current_context().correlation_id, provider)
    if tracing is not None:
        stack.push_async_callback(tracing.close)
    return tracing


def trace_storage(tracing: Tracing | None, counters: StorageCounters) -> None:
    """Make spans of what a storage does."""
    if tracing is not None:
        counters.observer = tracing.of_storage(counters.backend)


def cache_observer(tracing: Tracing | None) -> CommandObserver | None:
    """What makes spans of a cache's commands."""
    return None if tracing is None else tracing.of_cache()


def trace_database(tracing: Tracing | None, database: Database) -> None:
    """Make spans of what a database does."""
    if tracing is not None:
        database.observation.add(tracing.of_database(database.address.name))
        if database.observation.comments is not None:
            database.observation.comments.traceparent = current_traceparent


def trace_services(
    tracing: Tracing | None, sessions: SessionService, tokens: TokenService, files: FileServices
) -> None:
    """Make spans of calls of the services that are made once; ``DataLayer`` makes the others when asked for them."""
    if tracing is None:
        return
    named = {"sessions": sessions, "tokens": tokens, "files": files.service, "file_maintenance": files.maintenance}
    named["public_files"] = files.public
    for name, service in named.items():
        tracing.calls.of(name, service)
    if files.server is not None:
        tracing.calls.of("local_files", files.server)
