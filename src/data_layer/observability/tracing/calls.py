"""Spans of service calls, without a word about them in the services.

A service that the composition root hands out is made an instance of a subclass whose public methods open a span around
what they do. Off means that nobody does this: the services are what they are.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

from opentelemetry.trace import use_span

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine
    from types import TracebackType

    from data_layer.observability.tracing.spans import Spans

Service = TypeVar("Service")

_NO_CALLS = frozenset({"close"})


class TracedCalls:
    """Makes services open spans."""

    def __init__(self, spans: Spans) -> None:
        self._spans = spans
        self._classes: dict[tuple[str, type], type] = {}

    def of(self, name: str, service: Service) -> Service:
        """The same service, whose calls have spans that are called ``name.method``."""
        key = (name, type(service))
        if key not in self._classes:
            self._classes[key] = self._traced_class(name, type(service))
        # Not by assignment: some services are frozen.
        object.__setattr__(service, "__class__", self._classes[key])
        return service

    def _traced_class(self, name: str, kind: type) -> type:
        methods = {
            method_name: self._traced(f"{name}.{method_name}", method)
            for method_name, method in inspect.getmembers(kind, inspect.isfunction)
            if not method_name.startswith("_") and method_name not in _NO_CALLS
        }
        about = {"__slots__": (), "__module__": kind.__module__, "__doc__": kind.__doc__}
        return type(kind.__name__, (kind,), about | methods)

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
