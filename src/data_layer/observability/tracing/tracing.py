"""Everything that makes spans while traces are on: of requests, service calls, statements, cache and storage."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from functools import wraps
from time import time_ns
from types import MethodType, TracebackType
from typing import Any, TypeVar

from opentelemetry import propagate
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, TracerProvider, get_current_span, use_span

from data_layer.errors import DataLayerError
from data_layer.observability.log import get_log

_SCOPE = "data_layer"
_CORRELATION_ID = "data_layer.correlation_id"


class Spans:
    """Makes the spans of one data layer.

    Args:
        provider: whose tracer is used.
        correlation_id: returns the one of the running task.
    """

    def __init__(self, provider: TracerProvider, correlation_id: Callable[[], str | None]) -> None:
        self._tracer = provider.get_tracer(_SCOPE)
        self._correlation_id = correlation_id

    @contextmanager
    def call(self, name: str) -> Iterator[Span]:
        """A span around a call of a service."""
        with self._open(name, SpanKind.INTERNAL, {}) as span:
            yield span

    @contextmanager
    def request(self, method: str, headers: Sequence[tuple[bytes, bytes]]) -> Iterator[Span]:
        """A span around a request that is answered, below the span that its headers name.

        The caller names it by its route once that is known.
        """
        parent = _parent_in(headers)
        with self._open(method, SpanKind.SERVER, {"http.request.method": method}, parent) as span:
            yield span

    @contextmanager
    def started(self, name: str) -> Iterator[Span]:
        """A span around work of a service that is done in several pieces; it is not the current one by itself."""
        span = self._tracer.start_span(name, attributes=self._with_correlation({}))
        try:
            with _failures_shown(span):
                yield span
        finally:
            span.end()

    def operation_ended(self, name: str, seconds: float, error: str | None, attributes: Mapping[str, Any]) -> None:
        """A span for something outside this process that has just ended.

        Without a span around it there is none: what runs in the background all the time belongs to no request.
        """
        if not get_current_span().get_span_context().is_valid:
            return
        now = time_ns()
        span = self._tracer.start_span(
            name, kind=SpanKind.CLIENT, attributes=attributes, start_time=now - int(seconds * 1e9)
        )
        if error is not None:
            set_error(span, error)
        span.end(now)

    @contextmanager
    def _open(
        self, name: str, kind: SpanKind, attributes: dict[str, Any], parent: Context | None = None
    ) -> Iterator[Span]:
        # Messages and stack traces of exceptions are for the log, which masks secrets.
        with (
            self._tracer.start_as_current_span(
                name,
                parent,
                kind=kind,
                attributes=self._with_correlation(attributes),
                record_exception=False,
                set_status_on_exception=False,
            ) as span,
            _failures_shown(span),
        ):
            yield span

    def _with_correlation(self, attributes: dict[str, Any]) -> dict[str, Any]:
        correlation_id = self._correlation_id()
        return attributes | {_CORRELATION_ID: correlation_id} if correlation_id else attributes


@contextmanager
def _failures_shown(span: Span) -> Iterator[None]:
    try:
        yield
    except GeneratorExit:
        raise
    except BaseException as error:
        set_error(span, code_of(error))
        raise


def set_error(span: Span, code: str) -> None:
    """Mark a span as failed, with the code of the error."""
    span.set_attribute("error.type", code)
    span.set_status(Status(StatusCode.ERROR, code))


def code_of(error: BaseException) -> str:
    """The stable code of an error; of one that is not ours its class."""
    match error:
        case DataLayerError():
            return error.code
        case asyncio.CancelledError():
            return "cancelled"
        case _:
            return type(error).__qualname__


def _parent_in(headers: Sequence[tuple[bytes, bytes]]) -> Context:
    """What the headers of a request say of the span that it comes from (OTEL_PROPAGATORS, by default W3C's)."""
    carrier: dict[str, list[str]] = {}
    for name, value in headers:
        carrier.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
    # Two of them say nothing (W3C Trace Context, 3.2.1), and which one is meant is not ours to choose.
    if len(carrier.get("traceparent", ())) > 1:
        del carrier["traceparent"]
    return propagate.extract(carrier)


# A shorter wait for a connection is none.
_WAIT_SECONDS = 0.001


class StatementSpans:
    """Observes a database; see ``DatabaseObserver``."""

    def __init__(self, spans: Spans, database: str) -> None:
        self._spans = spans
        self._attributes = {"db.system.name": "postgresql", "db.namespace": database}

    def statements_ended(self, names: Sequence[str], seconds: float, error: str | None) -> None:
        """One span for each round trip, named after the statements that were sent together."""
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
        """One span for each command, or for those that were sent together."""
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


Service = TypeVar("Service")

_NO_CALLS = frozenset({"close"})


class TracedCalls:
    """Makes services open spans."""

    def __init__(self, spans: Spans) -> None:
        self._spans = spans
        self._methods: dict[tuple[str, type], dict[str, Callable[..., Any]]] = {}

    def of(self, name: str, service: Service) -> Service:
        """The same service, whose calls have spans that are called ``name.method``."""
        key = (name, type(service))
        if key not in self._methods:
            self._methods[key] = self._traced_methods(name, type(service))
        for method_name, method in self._methods[key].items():
            # Not by assignment: some services are frozen.
            object.__setattr__(service, method_name, MethodType(method, service))
        return service

    def _traced_methods(self, name: str, kind: type) -> dict[str, Callable[..., Any]]:
        return {
            method_name: self._traced(f"{name}.{method_name}", method)
            for method_name, method in inspect.getmembers(kind, inspect.isfunction)
            if not method_name.startswith("_") and method_name not in _NO_CALLS
        }

    def _traced(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            result: Any = method(*args, **kwargs)
            if inspect.iscoroutine(result):
                return self._awaited(name, result)
            if isinstance(result, AsyncGenerator):
                return self._iterated(name, result)
            if isinstance(result, AbstractAsyncContextManager):
                return _TracedBlock(name, result, self._spans)
            return result

        return call

    async def _awaited(self, name: str, work: Coroutine[Any, Any, Any]) -> Any:
        with self._spans.call(name):
            return await work

    async def _iterated(self, name: str, items: AsyncGenerator[Any]) -> AsyncIterator[Any]:
        """The same items; the span is current while the next one is being made, and not while it is being used."""
        with self._spans.started(name) as span:
            try:
                while True:
                    with use_span(span, record_exception=False, set_status_on_exception=False):
                        try:
                            item = await anext(items)
                        except StopAsyncIteration:
                            return
                    yield item
            finally:
                await items.aclose()


class _TracedBlock(AbstractAsyncContextManager[Any]):
    """An ``async with`` block with a span around entering it; what is done inside is the caller's."""

    def __init__(self, name: str, block: AbstractAsyncContextManager[Any], spans: Spans) -> None:
        self._name = name
        self._block = block
        self._spans = spans

    async def __aenter__(self) -> Any:
        with self._spans.call(self._name):
            return await self._block.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await self._block.__aexit__(kind, error, trace)


log = get_log(__name__)

FLUSH_SECONDS = 3.0
"""How long the end waits for spans that were not sent yet; what is left then is lost."""


class Tracing:
    """Makes the spans of one data layer.

    Args:
        provider: whose tracer is used.
        correlation_id: returns the one of the running task.
        end: sends what was not sent yet, and ends the provider; None for a provider that is not ours.
    """

    def __init__(
        self,
        provider: TracerProvider,
        correlation_id: Callable[[], str | None],
        end: Callable[[], None] | None = None,
    ) -> None:
        self.spans = Spans(provider, correlation_id)
        self.calls = TracedCalls(self.spans)
        self._end = end

    def of_database(self, name: str) -> StatementSpans:
        """What makes spans of a database's statements."""
        return StatementSpans(self.spans, name)

    def of_cache(self) -> CommandSpans:
        """What makes spans of a cache's commands."""
        return CommandSpans(self.spans)

    def of_storage(self, backend: str) -> StorageSpans:
        """What makes spans of a storage's operations."""
        return StorageSpans(self.spans, backend)

    async def close(self) -> None:
        """Send what was not sent yet, for at most ``FLUSH_SECONDS``."""
        if self._end is None:
            return
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        # A thread that ends with the process: a receiver that does not answer must not keep it.
        thread = threading.Thread(target=_call, args=(self._end, loop, ended), name="traces-end", daemon=True)
        thread.start()
        try:
            await asyncio.wait_for(ended.wait(), FLUSH_SECONDS)
        except TimeoutError:
            log.warning("traces_lost", reason=f"their receiver did not take them within {FLUSH_SECONDS:g} s")


def _call(end: Callable[[], None], loop: asyncio.AbstractEventLoop, ended: asyncio.Event) -> None:
    try:
        end()
    except Exception as error:  # noqa: BLE001  (exporters are foreign code, and nothing depends on them)
        log.warning("traces_lost", reason=type(error).__name__)
    finally:
        if not loop.is_closed():
            loop.call_soon_threadsafe(ended.set)
