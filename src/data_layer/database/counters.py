"""What a database has done since it was opened: statements, waiting for connections, ends of transactions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from data_layer.observability.metrics.durations import Durations
from data_layer.schemas.outcome import Outcome

if TYPE_CHECKING:
    from data_layer.database.engine import Database

PRIMARY = "primary"
MOST_STATEMENTS = 200
OTHER = "other"
"""Stands for the statements of an application that makes up names without end."""

_TIMEOUT = "database_pool_timeout"
_LIMITS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)


class StatementCounters:
    """Durations and errors by the names of statements; statements that are sent together have the same duration."""

    def __init__(self) -> None:
        self.durations: dict[str, Durations] = {}
        self.errors: Counter[tuple[str, str]] = Counter()

    def note(self, names: Sequence[str], seconds: float, error: str | None) -> None:
        """Statements were answered in one round trip."""
        for name in names:
            durations = self.durations.get(name) or self._first(name)
            durations.note(seconds)
            if error is not None:
                self.errors[name if name in self.durations else OTHER, error] += 1

    def _first(self, name: str) -> Durations:
        return self.durations.setdefault(name if len(self.durations) < MOST_STATEMENTS else OTHER, Durations(_LIMITS))


class DatabaseCounters:
    """Observes one database; see ``DatabaseObserver``.

    Args:
        database: the one whose pool is reported too.
        statements: counts the statements of the primary and of its replicas together.
    """

    def __init__(self, database: Database, statements: StatementCounters) -> None:
        self.database = database
        self._statements = statements
        self.waits = Durations()
        self.pool_timeouts = 0
        self.transactions = dict.fromkeys(Outcome, 0)

    def statements_ended(self, names: Sequence[str], seconds: float, error: str | None) -> None:
        """Counted by name."""
        self._statements.note(names, seconds, error)

    def connection_awaited(self, seconds: float, error: str | None) -> None:
        """Counted, also when there was none in the end."""
        self.waits.note(seconds)
        if error == _TIMEOUT:
            self.pool_timeouts += 1

    def transaction_ended(self, outcome: Outcome, seconds: float) -> None:  # noqa: ARG002  (its statements are timed)
        """Counted by outcome."""
        self.transactions[outcome] += 1


class ServerCounters:
    """The counters of the primary and of its replicas.

    Args:
        primary: what is written to.
        replicas: what is read from as well.
        observing: count; otherwise only what the pools know is known.
    """

    def __init__(self, primary: Database, replicas: Sequence[Database], *, observing: bool) -> None:
        self.statements = StatementCounters()
        self.primary = DatabaseCounters(primary, self.statements)
        self.replicas = {_place(database): DatabaseCounters(database, self.statements) for database in replicas}
        if observing:
            for counters in self.by_server.values():
                counters.database.observation.add(counters)

    @property
    def by_server(self) -> dict[str, DatabaseCounters]:
        """All of them: ``primary``, whichever server that is, and the replicas by host and port."""
        return {PRIMARY: self.primary} | self.replicas


def _place(database: Database) -> str:
    return f"{database.address.url.host}:{database.address.url.port}"
