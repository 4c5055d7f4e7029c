"""Everything that makes spans while traces are on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

from opentelemetry.trace import TracerProvider

from data_layer.observability.log import get_log
from data_layer.observability.tracing.spans import CommandSpans, Spans, StatementSpans, StorageSpans, TracedCalls

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
