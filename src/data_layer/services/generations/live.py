"""The live part of the stream: what has changed since the last entry, on its way from the writer to followers.

An entry names, for each variant, how much of the beginning and of the end of its code has stayed, and what stands
between them now. Both are the least that has stayed at any moment since the entry before. So a change does not only
continue the state at its ``base``, but any state of the same writer from there up to its ``sequence``: a reader may
come from a checkpoint that no entry knows of. The checksum of the result shows whether it really was such a state.
"""

from __future__ import annotations

import secrets
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import orjson

from data_layer.services.generations.text import is_storable, storable

MAXIMUM_VARIANTS = 16
LIVE_SECONDS = 0.1
"""How often a running generation is published, at most."""
LIVE_TIME_TO_LIVE = 600.0
LARGEST_CHANGE = 2**20
"""Most bytes of the text of a change; what is larger is read from the next checkpoint."""
MOST_WAITING_EVENTS = 2**18
"""Most bytes of events that wait to be published; if there are more, they are read from the next checkpoint."""
EVENT_OVERHEAD = 200
"""Bytes that an event takes beside its payload; so many small ones are bounded, too."""

_TAG_OF_WRITER = 8

PackedEvent = tuple[int, str, str]


def live_key(generation_id: object) -> str:
    """The key of the stream of a generation; in a cluster the id alone decides where it is."""
    return f"live:{{{generation_id}}}"


def new_tag(writer: str) -> str:
    """Distinguishes what one process writes as one writer from what any other writes. It discloses nothing."""
    return writer[:_TAG_OF_WRITER] + secrets.token_hex(4)


def is_tag_of(writer: str, tag: str) -> bool:
    """Whether a tag was made for this writer."""
    return len(tag) > _TAG_OF_WRITER and writer.startswith(tag[:_TAG_OF_WRITER])


class Change(NamedTuple):
    """How the code of a variant has changed; lengths in bytes of UTF-8. ``text`` is None where it is too long."""

    variant: int
    base: int
    sequence: int
    start: int
    end: int
    text: str | None
    checksum: int
    events: Sequence[PackedEvent]
    has_all_events: bool
    note: dict[str, Any]


class LiveEntry(NamedTuple):
    """What is in an entry: changes with the tag of their writer, and variants that have ended.

    ``at`` is when it was added, in milliseconds since 1970 by the clock of the server.
    """

    tag: str
    changes: Sequence[Change]
    ended: Sequence[int]
    at: int = 0


def pack_entry(tag: str, changes: Sequence[Change], ended: Sequence[int] = ()) -> bytes:
    """An entry as it is sent."""
    return orjson.dumps([tag, [tuple(change) for change in changes], list(ended)])


def unpack_entry(packed: object) -> LiveEntry | None:
    """The same, or None where another program or version has written."""
    if not isinstance(packed, bytes):
        return None
    try:
        tag, changes, ended = orjson.loads(packed)
        entry = LiveEntry(str(tag), [Change(*change) for change in changes], [int(index) for index in ended])
    except (TypeError, ValueError):
        return None
    return entry if all(map(_is_valid, entry.changes)) else None


def _is_valid(change: tuple[Any, ...]) -> bool:
    variant, base, sequence, start, end, text, checksum, events, _, note = change
    numbers = (variant, base, sequence, start, end, checksum)
    return (
        all(type(number) is int and number >= 0 for number in numbers)
        and (text is None or isinstance(text, str))
        and isinstance(note, dict)
        and isinstance(events, list)
        and all(isinstance(event, list) and list(map(type, event)) == [int, str, str] for event in events)
    )


class _Published(NamedTuple):
    """A state that followers know; ``is_plain`` where it is stored as it was sent."""

    sequence: int
    length: int
    checksum: int
    is_plain: bool


class Unpublished:
    """What followers do not know yet of a variant: in place of a queue, so it cannot grow and nothing has to wait.

    Args:
        code: what they know, as it is stored.
        sequence: the number of its last piece.
    """

    def __init__(self, code: bytes | bytearray, sequence: int) -> None:
        self._published = self._former = _Published(sequence, len(code), zlib.crc32(code), is_plain=True)
        self._start = self._end = self._former_start = self._former_end = len(code)
        self._events: list[PackedEvent] = []
        self._events_size = 0
        self._has_all_events = True

    @property
    def sequence(self) -> int:
        """The number of the last piece that was published."""
        return self._published.sequence

    def note_appended(self) -> None:
        """Something was added to the end of the code."""
        self._end = 0

    def note_replaced(self, start: int, end: int) -> None:
        """The code was replaced by one that begins and ends with so many bytes of it."""
        self._start = min(self._start, start)
        self._end = min(self._end, end)

    def note_events(self, events: Sequence[PackedEvent]) -> None:
        """Events have been received."""
        if not self._has_all_events:
            return
        self._events_size += sum(len(payload) + EVENT_OVERHEAD for _, _, payload in events)
        if self._events_size > MOST_WAITING_EVENTS:
            self._events, self._has_all_events = [], False
        else:
            self._events += events

    def take(self, variant: int, code: bytearray, sequence: int) -> Change:
        """The change that leads to this state; from now on it counts as published."""
        base, events, has_all_events = self._published, self._events, self._has_all_events
        start, end = self._kept_of(code)
        note: dict[str, Any] = {}
        added = bytes(code[start : len(code) - end])
        if base.is_plain and is_storable(added):
            kept, text, is_plain = start, added.decode(), True
            is_longer = start == base.length and not end
            checksum = zlib.crc32(added, base.checksum) if is_longer else zlib.crc32(code)
        else:
            # What cannot be stored is replaced, which changes lengths; so rare that it may take its time.
            stored, note = storable(code)
            whole, is_plain, end = stored.encode(), not note and is_storable(code), 0
            kept, checksum = len(storable(code[:start])[0].encode()), zlib.crc32(whole)
            text = whole[kept:].decode()
        self._former, self._former_start, self._former_end = base, self._start, self._end
        self._published = _Published(sequence, len(code), checksum, is_plain)
        self._start = self._end = len(code)
        self._events, self._events_size, self._has_all_events = [], 0, True
        shown = text if len(text) <= LARGEST_CHANGE else None
        return Change(variant, base.sequence, sequence, kept, end, shown, checksum, events, has_all_events, note)

    def put_back(self, change: Change) -> None:
        """What was taken last did not arrive, or it is unknown whether it did."""
        self._published = self._former
        self._start = min(self._start, self._former_start)
        self._end = min(self._end, self._former_end)
        newer, self._events, self._events_size = self._events, [], 0
        self._has_all_events = self._has_all_events and change.has_all_events
        self.note_events([*change.events, *newer])

    def _kept_of(self, code: bytearray) -> tuple[int, int]:
        """How much stays at the beginning and at the end, in whole characters."""
        start, end = aligned(code, self._start, self._end, self._published.length)
        # The second half of a pair may come, and make one character of both.
        half = code[max(0, start - _HALF) : start]
        if half[:1] == _SURROGATE_LEAD and half[1] in _FIRST_HALVES:
            start -= _HALF
        return start, end


_HALF, _SURROGATE_LEAD, _FIRST_HALVES = 3, b"\xed", range(0xA0, 0xB0)


def aligned(code: bytes | bytearray, start: int, end: int, former_length: int) -> tuple[int, int]:
    """What two codes have in common, in whole characters that are counted once."""
    length = len(code)
    while 0 < start < length and _is_inside(code, start):
        start -= 1
    end = max(0, min(end, former_length - start, length - start))
    while end and _is_inside(code, length - end):
        end -= 1
    return start, end


def _is_inside(code: bytes | bytearray, place: int) -> bool:
    """Whether the byte there continues a character."""
    return code[place] & 0xC0 == 0x80


def common_start(one: bytes | bytearray, other: bytes | bytearray) -> int:
    """How many bytes at the beginning are the same."""
    same, different = 0, min(len(one), len(other)) + 1
    step = different - 1  # Mostly one continues the other.
    while different - same > 1:
        if one[same : same + step] == other[same : same + step]:
            same += step
        else:
            different = same + step
        step = max(1, (different - same) // 2)
    return same


def common_end(one: bytes | bytearray, other: bytes | bytearray) -> int:
    """How many bytes at the end are the same."""
    same, different = 0, min(len(one), len(other)) + 1
    step = different - 1
    while different - same > 1:
        here, there = len(one) - same, len(other) - same
        if one[here - step : here] == other[there - step : there]:
            same += step
        else:
            different = same + step
        step = max(1, (different - same) // 2)
    return same
