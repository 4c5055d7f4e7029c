"""What was said on one connection, until it is recorded: bounded, because the newest code takes the former one's place.

Listening costs a few microseconds for a message, whatever the database does.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from data_layer.concurrency import is_set_within
from data_layer.entities.enums import GenerationStatus
from data_layer.observability.log import get_log
from data_layer.recorder.protocol import (
    MOST_VARIANTS,
    Kind,
    Message,
    code_variant,
    parse_message,
    variant_count,
    variant_models,
    without_secrets,
)
from data_layer.schemas.generations import VariantEvent, VariantModel, VariantResult
from data_layer.services.generations.growth import Growth
from data_layer.services.generations.text import encoded, is_storable

log = get_log(__name__)

MOST_EVENT_BYTES = 2**20
"""Of one variant, while they wait."""
LARGEST_CODE = 5 * 2**20
_EVENT_OVERHEAD = 200
_EVENTS = frozenset({Kind.THINKING, Kind.ASSISTANT, Kind.TOOL_START, Kind.TOOL_RESULT, Kind.STATUS})
_PIECES = frozenset({Kind.THINKING, Kind.ASSISTANT})


@dataclass(frozen=True, slots=True)
class End:
    """How a variant has ended."""

    status: GenerationStatus
    message: str | None = None


@dataclass(slots=True)
class VariantTape:
    """What waits of a variant."""

    raw: str | None = None
    """The last message with the whole code, as it came."""
    code: str = ""
    """The code that was read of it."""
    is_changed: bool = False
    events: deque[Message] = field(default_factory=deque)
    events_size: int = 0
    end: End | None = None
    growth: Growth = field(default_factory=Growth.begun)
    noted: tuple[str, bytes] = ("", b"")
    """The code that was noted last, as it is and as bytes."""
    used: VariantResult | None = None
    """What it has used, if the application has said so."""
    speaker: asyncio.Task[Any] | None = None
    """The task of the application that has spoken of it last."""

    def read(self) -> str:
        """The code so far."""
        if self.raw is not None:
            message = parse_message(self.raw)
            self.raw = None
            if message is not None and message.text is not None and len(message.text) <= LARGEST_CODE:
                self.is_changed = self.is_changed or message.text != self.code
                self.code = message.text
        return self.code

    def note_growth(self) -> None:
        """Note how far the code is, in case that all of it must be recorded later."""
        code = self.read()
        if code is not self.noted[0]:
            as_bytes = encoded(code)
            self.growth.note_whole(self.noted[1], as_bytes)
            self.noted = code, as_bytes

    def packed_growth(self) -> bytes:
        """How the code has grown."""
        self.note_growth()
        code = self.noted[1]
        return self.growth.packed(code, is_plain=is_storable(code))

    def add_event(self, message: Message, size: int) -> None:
        """Keep an event; pieces of one text become one."""
        last = self.events[-1] if self.events else None
        room = MOST_EVENT_BYTES - self.events_size
        if size > room:
            return
        if last is not None and message.kind in _PIECES and (last.kind, last.event_id) == _identity(message):
            text = (last.text or "") + (message.text or "")
            self.events[-1] = Message(message.kind, message.variant, text, message.data, message.event_id)
            self.events_size += len(message.text or "")
        else:
            self.events.append(message)
            self.events_size += size + _EVENT_OVERHEAD

    def take_events(self) -> list[Message]:
        """The events that wait, which wait no more."""
        taken = list(self.events)
        self.events.clear()
        self.events_size = 0
        return taken

    def return_events(self, taken: Sequence[Message]) -> None:
        """Let events wait again that could not be handed over."""
        self.events.extendleft(reversed(taken))
        self.events_size += sum(len(each.text or "") + _EVENT_OVERHEAD for each in taken)


class Tape:
    """One connection: its request, and what the application has answered so far."""

    def __init__(self) -> None:
        self.request: str | bytes | None = None
        self.count: int | None = None
        self.models: Sequence[VariantModel] = ()
        self.variants: dict[int, VariantTape] = {}
        self.error: str | None = None
        self.has_ended = False
        self.is_cancelled = False
        self.reason: str | None = None
        """Why it ended, where nobody said so."""
        self._news = asyncio.Event()
        self._is_broken = False
        self._speakers: WeakKeyDictionary[asyncio.Task[Any], int | None] = WeakKeyDictionary()
        """Of which variant each task of the application speaks; None for one that speaks of several."""

    def record_request(self, text: str | bytes) -> None:
        """The page has sent its message; another one changes nothing."""
        if self.request is None and not self.has_ended:
            self.request = text
            self._news.set()

    def record(self, text: str | bytes) -> None:
        """The application has sent a message. It neither waits nor fails.

        While the application is being stopped, nothing that it says ends a variant.
        """
        if self.is_cancelled:
            return
        try:
            self._record(text if isinstance(text, str) else text.decode())
        except Exception as error:  # noqa: BLE001  (whatever it is: what passes here must pass)
            if not self._is_broken:
                self._is_broken = True
                log.warning("message_not_recorded", reason=type(error).__name__)

    def _record(self, text: str) -> None:
        index = code_variant(text)
        if index is not None and index < MOST_VARIANTS:
            variant = self._variant(index)
            variant.raw = text
            self._note_speaker(variant, index)
        elif (message := parse_message(text)) is not None:
            self._note(message, len(text))
        else:
            return
        if not self._news.is_set():
            self._news.set()

    def _note(self, message: Message, size: int) -> None:
        kind, index = message.kind, message.variant
        if kind is Kind.VARIANT_COUNT:
            self.count = variant_count(message) or self.count
        elif kind is Kind.VARIANT_MODELS:
            self.models = variant_models(message)
        elif kind is Kind.ERROR and index is None:
            self.error = message.text or "the application reported an error"
        elif index is not None:
            variant = self._variant(index)
            self._note_of_variant(variant, message, size)
            self._note_speaker(variant, index)

    def _note_speaker(self, variant: VariantTape, index: int) -> None:
        task = asyncio.current_task()
        if task is None or task is variant.speaker:
            return
        variant.speaker = task
        if self._speakers.setdefault(task, index) != index:
            self._speakers[task] = None

    def note_usage(self, used: VariantResult) -> None:
        """The application has said, in this task, what the variant has used of which the task speaks."""
        task = asyncio.current_task()
        index = None if task is None else self._speakers.get(task)
        if index is not None:
            self._variant(index).used = used

    def _note_of_variant(self, variant: VariantTape, message: Message, size: int) -> None:
        match message.kind:
            case Kind.SET_CODE if message.text is not None and len(message.text) <= LARGEST_CODE:
                variant.raw, variant.code, variant.is_changed = None, message.text, True
            case Kind.CHUNK if message.text and len(variant.read()) + len(message.text) <= LARGEST_CODE:
                variant.code += message.text
                variant.is_changed = True
            case Kind.VARIANT_COMPLETE:
                variant.end = variant.end or End(GenerationStatus.COMPLETED)
            case Kind.VARIANT_ERROR | Kind.ERROR:
                variant.end = variant.end or End(GenerationStatus.FAILED, message.text or "the variant failed")
            case kind if kind in _EVENTS:
                variant.add_event(message, size)

    def end(self, reason: str | None = None) -> None:
        """Nothing more will come.

        Args:
            reason: why variants that have not ended did not, unless the application itself has said so.
        """
        if not self.has_ended:
            self.has_ended, self.reason = True, reason
            self._news.set()

    def cancel(self) -> None:
        """The person wants no more of it."""
        if not self.has_ended:
            self.is_cancelled = True
            self.end()

    async def news(self, seconds: float) -> None:
        """Return when there is something new, or after so many seconds."""
        await is_set_within(self._news, seconds)
        self._news.clear()

    @property
    def number(self) -> int | None:
        """How many variants there are, once that is known."""
        if self.count is not None:
            return self.count
        return max(self.variants, default=-1) + 1 or None if self.has_ended else None

    def end_of(self, index: int) -> End | None:
        """How a variant has ended; None while it has not."""
        variant = self.variants.get(index)
        end = None if variant is None else variant.end
        if end is not None and end.status is GenerationStatus.COMPLETED and not (variant and variant.read().strip()):
            # It completed without code: why is said afterwards, or never.
            end = End(GenerationStatus.FAILED, self.error or "the application made no code") if self._is_over else None
        if end is None and self.is_cancelled:
            return End(GenerationStatus.CANCELLED)
        if end is None and self._is_over:
            return End(GenerationStatus.FAILED, self.error or self.reason or "the application ended without a result")
        return end

    @property
    def _is_over(self) -> bool:
        return self.has_ended or self.error is not None

    def _variant(self, index: int) -> VariantTape:
        variant = self.variants.get(index)
        if variant is None:
            variant = self.variants[index] = VariantTape()
        return variant


def _identity(message: Message) -> tuple[Kind, str | None]:
    return message.kind, message.event_id


def event_of(message: Message, secrets: Sequence[str]) -> VariantEvent:
    """An event as it is stored, by the names of the application, without the secrets of its request."""
    payload: dict[str, object] = {}
    if message.text is not None:
        payload["value"] = message.text
    if message.data:
        payload["data"] = message.data
    if message.event_id is not None:
        payload["eventId"] = message.event_id
    return VariantEvent(kind=message.kind.value, payload=without_secrets(payload, secrets))
