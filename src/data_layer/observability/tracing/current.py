"""The span of the running task, for what must not import OpenTelemetry when nobody uses it."""

from __future__ import annotations

import sys


def current_traceparent() -> str | None:
    """The current span, in the form of W3C's ``traceparent``."""
    found = _current_context()
    if found is None:
        return None
    trace_id, span_id, flags = found
    return f"00-{trace_id:032x}-{span_id:016x}-{flags:02x}"


def current_trace_fields() -> dict[str, str]:
    """What a log event says of the current span; nothing without one."""
    found = _current_context()
    return {} if found is None else {"trace_id": f"{found[0]:032x}", "span_id": f"{found[1]:016x}"}


def _current_context() -> tuple[int, int, int] | None:
    # Without the module there can be no span; importing it here would cost every program its import.
    module = sys.modules.get("opentelemetry.trace")
    if module is None:
        return None
    context = module.get_current_span().get_span_context()
    return (context.trace_id, context.span_id, int(context.trace_flags)) if context.is_valid else None
