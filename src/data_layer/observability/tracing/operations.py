"""Spans of statements, cache commands and storage operations, made when these are over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from data_layer.observability.tracing.spans import Spans

# A shorter wait for a connection is none.
_WAIT_SECONDS = 0.001


class StatementSpans:
    """Observes a database; see ``DatabaseObserver``."""

    def __init__(self, spans: Spans, database: str) -> None:
        self._spans = spans
        self._attributes = {"db.system.name": "postgresql", "db.namespace": database}

    def statements_ended(self, names: Sequence[str], seconds: float, error: str | None) -> None:
        """One span for each round trip, named after the statements that travelled together."""
        name = ", ".join(dict.fromkeys(names))
        attributes: dict[str, Any] = self._attributes | {"db.query.summary": name}
        if len(names) == 1:
            attributes["db.operation.name"] = name.rpartition(".")[2]
        else:
            attributes["db.operation.name"] = "BATCH"
            attributes["db.operation.batch.size"] = len(names)
        self._spans.operation_ended(name, seconds, error, attributes)

    def connection_awaited(self, seconds: float, error: str | None) -> None:
        """A span for a connection that had to be waited for."""
        if seconds >= _WAIT_SECONDS or error is not None:
            self._spans.operation_ended("database.connect", seconds, error, self._attributes)

    def transaction_ended(self, _outcome: str, _seconds: float) -> None:
        """No span: the statement that ended it has one."""


class CommandSpans:
    """Observes a cache; see ``CommandObserver``."""

    def __init__(self, spans: Spans) -> None:
        self._spans = spans

    def __call__(self, name: str, size: int, seconds: float, error: str | None) -> None:
        """One span for each command, or for those that travelled together."""
        attributes: dict[str, Any] = {"db.system.name": "redis", "db.operation.name": name}
        if size > 1:
            attributes["db.operation.batch.size"] = size
        self._spans.operation_ended(name, seconds, error, attributes)


class StorageSpans:
    """Observes a storage; see ``StorageObserver``."""

    def __init__(self, spans: Spans, backend: str) -> None:
        self._spans = spans
        self._attributes = {"data_layer.storage.backend": backend}

    def __call__(self, operation: str, seconds: float, error: str | None) -> None:
        """One span for each operation."""
        self._spans.operation_ended(f"storage.{operation}", seconds, error, self._attributes)
