"""Makes the spans."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from time import time_ns
from typing import TYPE_CHECKING, Any

from opentelemetry import propagate
from opentelemetry.trace import SpanKind, Status, StatusCode, get_current_span

from data_layer.errors import DataLayerError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from opentelemetry.context import Context
    from opentelemetry.trace import Span, TracerProvider

_SCOPE = "data_layer"
_CORRELATION_ID = "data_layer.correlation_id"


class Spans:
    """Makes the spans of one data layer.

    Args:
        provider: whose tracer is used.
        correlation_id: tells the one of the running task.
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
    def request(self, method: str, parent: Context) -> Iterator[Span]:
        """A span around a request that is answered; the caller names it by its route once that is known."""
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

        Without a span around it there is none: what runs in the background all the time is nobody's request.
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
    """Say that what a span stands for has failed, and with which code."""
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


def parent_in(headers: Sequence[tuple[bytes, bytes]]) -> Context:
    """What the headers of a request say of the span that it comes from (OTEL_PROPAGATORS, by default W3C's)."""
    carrier: dict[str, list[str]] = {}
    for name, value in headers:
        carrier.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
    # Two of them say nothing (W3C Trace Context, 3.2.1), and which one is meant is not ours to choose.
    if len(carrier.get("traceparent", ())) > 1:
        del carrier["traceparent"]
    return propagate.extract(carrier)
