"""What a database does, measured, logged and counted: statements, waiting for connections, ends of transactions.

Measuring costs two looks at the clock while nobody observes.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from time import perf_counter
from types import TracebackType
from typing import Any, Protocol

from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine import ExceptionContext, ExecutionContext

from data_layer.context import current_context
from data_layer.database.driver import translate
from data_layer.database.statements import SqlComments, Statement, StatementNames
from data_layer.errors import DataLayerError
from data_layer.observability.log import get_log
from data_layer.observability.metrics.counters import Durations
from data_layer.schemas.base import Outcome
from data_layer.settings.database import DatabaseSettings

log = get_log(__name__)

MOST_STATEMENTS = 200
OTHER = "other"
"""Stands for the statements of an application that makes up names without end."""

_TIMEOUT = "database_pool_timeout"
_LIMITS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
_CANCELLED = "cancelled"
_UNEXPECTED = "unexpected"


class DatabaseObserver(Protocol):
    """Receives each event at once, in the task whose work it is: it must be quick, and must not raise.

    ``error`` is the stable code of an error, ``cancelled``, or ``None``; all times are in seconds.
    """

    def statements_ended(self, names: Sequence[str], seconds: float, error: str | None) -> None:
        """Statements that were sent together, mostly one, were answered; the time is that of the round trip."""

    def connection_awaited(self, seconds: float, error: str | None) -> None:
        """A connection was had from the pool, or could not be had."""

    def transaction_ended(self, outcome: Outcome, seconds: float) -> None:
        """A transaction that had used the database ended; the time is since its first use."""


class Observation:
    """Measures the work of one database, informs observers, and logs what was slow."""

    def __init__(self, settings: DatabaseSettings) -> None:
        self.observers: tuple[DatabaseObserver, ...] = ()
        self.comments = SqlComments() if settings.db_sql_comments else None
        self.slow_after = settings.db_slow_statement or float("inf")
        """Seconds from which on a statement is logged."""

    def add(self, observer: DatabaseObserver) -> None:
        """Inform one more from now on."""
        self.observers = (*self.observers, observer)

    def timed(self, *statements: Statement) -> Timer:
        """Measure statements that are sent together while they run inside."""
        return Timer(self, statements)

    def statements_ended(self, names: Sequence[str], seconds: float, error: BaseException | None) -> None:
        """Inform observers of statements that were answered, and the log of those that took too long."""
        code = None if error is None else code_of(error)
        if seconds >= self.slow_after:
            self._log_slow(names, seconds, code)
        for observer in self.observers:
            observer.statements_ended(names, seconds, code)

    @staticmethod
    def _log_slow(names: Sequence[str], seconds: float, code: str | None) -> None:
        known = {"error": code, "correlation_id": current_context().correlation_id}
        fields = {name: value for name, value in known.items() if value is not None}
        statement = ", ".join(dict.fromkeys(names))
        log.warning("statement_slow", statement=statement, duration_ms=round(seconds * 1000, 1), **fields)

    def connection_awaited(self, started: float, error: BaseException | None = None) -> None:
        """Inform observers how long a connection was waited for, since ``started`` by ``perf_counter``."""
        for observer in self.observers:
            observer.connection_awaited(perf_counter() - started, None if error is None else code_of(error))

    def transaction_ended(self, outcome: Outcome, started: float) -> None:
        """Inform observers that a transaction ended that was begun at ``started`` by ``perf_counter``."""
        for observer in self.observers:
            observer.transaction_ended(outcome, perf_counter() - started)

    def observe_engine(self, engine: Engine) -> None:
        """Measure what SQLAlchemy executes, too."""
        _EngineListener(self).listen_to(engine)


class Timer:
    """Measures what happens inside; see ``Observation.timed``."""

    __slots__ = ("_observation", "_started", "_statements")

    def __init__(self, observation: Observation, statements: Sequence[Statement]) -> None:
        self._observation = observation
        self._statements = statements

    def __enter__(self) -> None:
        self._started = perf_counter()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        seconds = perf_counter() - self._started
        observation = self._observation
        if observation.observers or seconds >= observation.slow_after:
            observation.statements_ended([sql.name for sql, _ in self._statements], seconds, error)


class _EngineListener:
    """Listens to SQLAlchemy's engine."""

    def __init__(self, observation: Observation) -> None:
        self._observation = observation
        self._names = StatementNames()

    def listen_to(self, engine: Engine) -> None:
        event.listen(engine, "before_cursor_execute", self._begin, retval=True)
        event.listen(engine, "after_cursor_execute", self._end)
        event.listen(engine, "handle_error", self._fail)

    def _begin(
        self, _connection: Connection, _cursor: Any, sql: str, parameters: Any, context: Any, *_: Any
    ) -> tuple[str, Any]:
        if context is not None:
            context.data_layer_started = perf_counter()
        comments = self._observation.comments
        return (sql if comments is None else comments.add(sql, has_parameters=True)), parameters

    def _end(self, _connection: Connection, _cursor: Any, _sql: str, _parameters: Any, context: Any, *_: Any) -> None:
        self._inform(context, None)

    def _fail(self, failure: ExceptionContext) -> None:
        self._inform(failure.execution_context, failure.original_exception)

    def _inform(self, context: ExecutionContext | None, error: BaseException | None) -> None:
        started: float | None = getattr(context, "data_layer_started", None)
        if context is None or started is None:
            return
        seconds = perf_counter() - started
        if self._observation.observers or seconds >= self._observation.slow_after:
            self._observation.statements_ended([self._names.of(context)], seconds, error)


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
    """Counts what one database has done since it was opened; a ``DatabaseObserver``.

    Args:
        statements: counts the statements of the primary and of its replicas together.
    """

    def __init__(self, statements: StatementCounters) -> None:
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


def code_of(error: BaseException) -> str:
    """The stable code of an error, wherever it was raised."""
    match error:
        case DataLayerError():
            return error.code
        case asyncio.CancelledError():
            return _CANCELLED
        case Exception():
            return translate(error).code
        case _:
            return _UNEXPECTED
