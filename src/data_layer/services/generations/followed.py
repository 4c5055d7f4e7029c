"""A variant as a process that follows it knows it: its code now, and how it came from what readers have."""

from __future__ import annotations

import re
import zlib
from collections import deque
from typing import NamedTuple
from uuid import UUID

from data_layer.entities.enums import GenerationStatus
from data_layer.errors import InvalidValueError
from data_layer.repositories.generations import StoredVariant, VariantProgress
from data_layer.schemas.generation_stream import CodePatch, CodeState
from data_layer.services.generations.live import (
    EVENT_OVERHEAD,
    Change,
    PackedEvent,
    aligned,
    common_end,
    common_start,
)

MOST_STEPS = 1000
"""Steps that are remembered of a variant; a reader that is further behind gets the whole code."""
MOST_EVENT_BYTES = 2**20
"""Most bytes of events that are kept of a variant; readers that are further behind get them from the database."""


_LONGEST_POSITION = 4000
_VARIANT_POSITION = re.compile(r"(\d{1,4}):(\d{1,10})\.([0-9a-f]{8})\.(\d{1,10})\.([0-9a-f]{0,32})(z?)", re.ASCII)


class VariantPosition(NamedTuple):
    """Where a reader is in a variant: which code it has, of which writer, up to which event, and whether to the end."""

    sequence: int
    checksum: int
    event: int
    tag: str
    has_end: bool

    def __str__(self) -> str:
        return f"{self.sequence}.{self.checksum:08x}.{self.event}.{self.tag}{'z' if self.has_end else ''}"


class Position(dict[int, VariantPosition]):
    """Where a reader is in a generation: its place in each variant. As text it is what ``after`` takes."""

    @classmethod
    def parsed(cls, text: object) -> Position:
        """The position in a text that an event carried.

        Raises:
            InvalidValueError: it carries none.
        """
        position = cls()
        places = text.split("-") if isinstance(text, str) and len(text) <= _LONGEST_POSITION else [""]
        for each in places:
            found = _VARIANT_POSITION.fullmatch(each)
            if found is None:
                raise InvalidValueError("after must be the position of an event of this generation", field="after")
            index, sequence, checksum, event, tag, end = found.groups()
            position[int(index)] = VariantPosition(int(sequence), int(checksum, 16), int(event), tag, bool(end))
        return position

    def __str__(self) -> str:
        return "-".join(f"{index}:{place}" for index, place in self.items())


class _Step(NamedTuple):
    """From one state to the next; ``is_live`` if it also continues the states of the same writer between them."""

    base: int
    base_checksum: int | None
    sequence: int
    start: int
    end: int
    is_live: bool


class FollowedVariant:
    """The code of a variant, kept up to date by changes and by what is stored."""

    def __init__(self, stored: StoredVariant) -> None:
        self.id: UUID = stored.id
        self.index = stored.index
        self.status = stored.status
        self.sequence = stored.last_sequence
        self.error_message = stored.error_message
        self.code = stored.code.encode()
        self.checksum = zlib.crc32(self.code)
        self.note: dict[str, object] = {}
        self.events: deque[PackedEvent] = deque()
        self.first_event = stored.last_sequence
        """All events after this number, up to ``sequence``, are in ``events``."""
        self._events_size = 0
        self._steps: deque[_Step] = deque(maxlen=MOST_STEPS)
        self.tag = ""
        """Of the writer whose changes came last."""
        self.wanted: int | None = None
        """A change did not continue the code: read the database until there is a way to this number."""
        self.is_doubtful = False
        """The code is not one of the present writer: what is stored goes on, even if it is older."""

    @property
    def has_ended(self) -> bool:
        """Whether nothing can change any more."""
        return not self.status.is_running

    def apply(self, tag: str, change: Change) -> bool:
        """Continue with a change of the writer with this tag, if possible; whether there is something new."""
        if self.has_ended:
            return False
        if change.sequence <= self.sequence:
            self._remember(tag, change)
            return False
        code = self._continued(change)
        if code is None:
            self.wanted = change.sequence
            return False
        if change.base < self.sequence and not self._leads_here(tag):
            self._add_live_step(tag, change, change.base, None, self.sequence)
        self._add_live_step(tag, change, self.sequence, self.checksum, change.sequence)
        self._add_events(change)
        self.code, self.checksum, self.sequence = code, change.checksum, change.sequence
        self.note = change.note
        self.wanted = None
        self.status = GenerationStatus.PROCESSING
        return True

    def is_behind(self, stored: VariantProgress | StoredVariant) -> bool:
        """Whether what is stored is to be read: it is newer, or the end, or this code is doubtful."""
        return not self.has_ended and (
            self.is_doubtful or not stored.status.is_running or stored.last_sequence > self.sequence
        )

    def replace(self, stored: StoredVariant) -> bool:
        """Go on from what is stored, if it has to be; whether that is something new."""
        if not self.is_behind(stored):
            return False
        code = stored.code.encode()
        checksum = zlib.crc32(code)
        if (stored.last_sequence, checksum) != (self.sequence, self.checksum):
            if stored.last_sequence < self.sequence:
                self._steps.clear()
            else:
                start, end = aligned(code, common_start(self.code, code), common_end(self.code, code), len(self.code))
                self._steps.append(_Step(self.sequence, self.checksum, stored.last_sequence, start, end, is_live=False))
        if stored.last_sequence != self.sequence:
            self.events.clear()
            self._events_size, self.first_event = 0, stored.last_sequence
        self.code, self.checksum, self.sequence = code, checksum, stored.last_sequence
        self.status, self.error_message = stored.status, stored.error_message
        self.is_doubtful = False
        if self.wanted is not None and (self.has_ended or self.sequence >= self.wanted):
            self.wanted = None
        return True

    def news(self, place: VariantPosition | None) -> CodeState | CodePatch | None:
        """What a reader at this place lacks of the code; the position is left to the caller."""
        if place is not None and (place.sequence, place.checksum) == (self.sequence, self.checksum):
            return None
        kept = None if place is None else self._kept(place)
        if kept is None:
            return CodeState(self.index, self.sequence, self.status, self.code.decode(), "")
        start, end = kept
        text = self.code[start : len(self.code) - end].decode()
        before, after = len(self.code[:start].decode()), len(self.code[len(self.code) - end :].decode())
        return CodePatch(self.index, self.sequence, before, after, text, "")

    def _kept(self, place: VariantPosition) -> tuple[int, int] | None:
        """How many bytes of the beginning and the end of a reader's code have stayed; None if that is unknown."""
        start = end = len(self.code)
        expected = self.sequence
        for step in reversed(self._steps):
            if step.sequence != expected:
                return None
            start, end, expected = min(start, step.start), min(end, step.end), step.base
            if step.base <= place.sequence:
                is_same_writer = step.is_live and place.tag == self.tag and place.sequence < step.sequence
                is_exact = step.base == place.sequence and step.base_checksum is not None
                is_known = step.base_checksum == place.checksum if is_exact else is_same_writer
                return (start, min(end, len(self.code) - start)) if is_known else None
        return None

    def _remember(self, tag: str, change: Change) -> None:
        """Note a change that leads to a state before this one, for readers that come from there."""
        if self._steps and (self._leads_here(tag) or self._steps[-1].sequence >= change.sequence):
            return
        if change.sequence == self.sequence and change.checksum != self.checksum:
            self._steps.clear()
        else:
            self._add_live_step(tag, change, change.base, None, change.sequence)

    def _leads_here(self, tag: str) -> bool:
        return bool(self._steps) and self._steps[-1].sequence == self.sequence and self.tag == tag

    def _add_live_step(self, tag: str, change: Change, base: int, base_checksum: int | None, sequence: int) -> None:
        if self._steps and (self.tag != tag or self._steps[-1].sequence != base):
            self._steps.clear()
        self.tag = tag
        self._steps.append(_Step(base, base_checksum, sequence, change.start, change.end, is_live=True))

    def _continued(self, change: Change) -> bytes | None:
        """The code after a change, if the checksum proves that it continues this one."""
        if change.text is None or change.base > self.sequence:
            return None
        added, length = change.text.encode(), len(self.code)
        if change.start == length and not change.end:
            code, checksum = self.code + added, zlib.crc32(added, self.checksum)
        else:
            code = b"".join((self.code[: change.start], added, self.code[max(0, length - change.end) :]))
            checksum = zlib.crc32(code)
        self.is_doubtful = checksum != change.checksum
        return None if self.is_doubtful else code

    def _add_events(self, change: Change) -> None:
        if not change.has_all_events:
            self.events.clear()
            self._events_size, self.first_event = 0, change.sequence
            return
        for event in change.events:
            if event[0] > self.sequence:
                self.events.append((event[0], event[1], event[2]))
                self._events_size += len(event[2]) + EVENT_OVERHEAD
        while self._events_size > MOST_EVENT_BYTES:
            number, _, payload = self.events.popleft()
            self._events_size -= len(payload) + EVENT_OVERHEAD
            self.first_event = number
