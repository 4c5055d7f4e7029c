"""A variant as it was made, put together from its code, what is stored of its growth, and its events."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from data_layer.entities import GeneratedCode
from data_layer.errors import GrowthUnknownError, InvalidValueError
from data_layer.schemas.generations import ReplayedEvent, VariantReplay
from data_layer.services.generations.growth import beginning_of, state_at, steps_of

TimedEvent = tuple[UUID, int, str, dict[str, Any]]
"""The id, whose first 48 bits are the milliseconds since 1970, the number, the kind and the payload."""

_BITS_AFTER_TIME = 80


def replay_of(
    code: GeneratedCode, growth: bytes | None, events: Sequence[TimedEvent], *, has_more_events: bool
) -> VariantReplay:
    """How a variant was made; of a large code it takes a while, so call it in a thread."""
    steps = None if growth is None else steps_of(growth, code.code.encode())
    begun_at = None if growth is None or steps is None else beginning_of(growth)
    if begun_at is None:
        begun_at = int(code.created_at.timestamp() * 1000)
    replayed = [
        ReplayedEvent(at=max(0, (id_.int >> _BITS_AFTER_TIME) - begun_at), sequence=number, kind=kind, payload=payload)
        for id_, number, kind, payload in events
    ]
    last = max([step.at for step in (steps or ())[-1:]] + [event.at for event in replayed], default=0)
    return VariantReplay(
        code_id=code.id,
        generation_id=code.generation_id,
        status=code.status,
        started_at=datetime.fromtimestamp(begun_at / 1000, UTC),
        duration=last,
        is_known=steps is not None,
        steps=tuple(steps or ()),
        events=tuple(replayed),
        has_more_events=has_more_events,
    )


def check_moment(at: int) -> int:
    """The moment itself, if it is one.

    Raises:
        InvalidValueError: it lies before the beginning, or after all times.
    """
    if not 0 <= at < 2**53:
        raise InvalidValueError("at must be milliseconds since the variant began, from 0", field="at")
    return at


def code_at_moment(code: GeneratedCode, growth: bytes | None, at: int) -> str:
    """The code as it was so many milliseconds after the variant began.

    Raises:
        GrowthUnknownError: that was not kept.
    """
    state = None if growth is None else state_at(growth, code.code.encode(), at)
    if state is None:
        raise GrowthUnknownError(
            "it was not kept how this variant grew: it was stored as a whole, or changed later; leave out the moment"
        )
    return state
