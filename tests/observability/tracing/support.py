"""Spans as a tree that a test can compare. It has no tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan

Tree = dict[str, Any]


def tree(spans: Sequence[ReadableSpan]) -> Tree:
    """The names of all spans, each with those below it; what has the same name and place counts once."""
    known = {span.context.span_id for span in spans if span.context}
    return _below(None, spans, known)


def _below(parent: int | None, spans: Sequence[ReadableSpan], known: set[int]) -> Tree:
    found: Tree = {}
    for span in spans:
        above = span.parent.span_id if span.parent is not None and span.parent.span_id in known else None
        if above == parent and span.context is not None:
            found.setdefault(span.name, {}).update(_below(span.context.span_id, spans, known))
    return found


def named(spans: Sequence[ReadableSpan], name: str) -> ReadableSpan:
    """The one span with this name."""
    [span] = [span for span in spans if span.name == name]
    return span


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})
