"""How the code of a variant grew: a bounded list of points, stored beside the code by the statement that stores it.

A point says that the code had so many bytes at a moment. Code mostly grows at its end, so the last state is enough to
know the ones before: they are its beginnings. Where the code was replaced, the point keeps what was removed, as the
difference to what came in its place. So the states are found from the last one to the first.

============================  =========================================================================================
it happens                    what is kept
============================  =========================================================================================
text is added                 one point for each interval: 100 ms at first
there are 256 points          every second one that can be left out is left out, and the interval is doubled
the code is replaced          a point with what was removed: 256 KiB at most
64 points, or 32 KiB of       the oldest becomes a gap: before it only those states are kept that the later ones begin
what was removed, are kept    with
another process goes on       the stored points, which it reads with the code
other code is stored later    the points, as long as the code begins with the last state; else they say nothing
============================  =========================================================================================

It is stored as a version, the milliseconds of the beginning since 1970, the interval, the size and CRC-32 of the last
state, then the points: the milliseconds since the one before, and what has changed. All numbers are unsigned LEB128.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice, pairwise
from time import time_ns
from typing import NamedTuple

import zstandard

from data_layer.schemas.generations import GrowthStep
from data_layer.services.generations.live import aligned, common_end, common_start
from data_layer.services.generations.text import is_storable, stored_lengths

MOST_POINTS = 256
MOST_CUTS = 64
"""Points that keep what was removed."""
LARGEST_REMOVED = 2**18
"""Most bytes of a text that is kept when it is removed."""
MOST_REMOVED = 2**15
"""Most bytes that all removed texts take, compressed."""
INTERVAL = 100
"""Milliseconds between two points, at first."""

_VERSION = 1
_ADDED, _CUT, _COMPRESSED_CUT, _GAP = range(4)
_LARGEST = 2 * MOST_REMOVED
_KIND_BITS = 2
_MOST_BITS = 63
_SHORT = 200
"""A removed text of fewer bytes is not compressed."""
_LEVEL = 3


class Cut(NamedTuple):
    """What was removed when the code was replaced; lengths in bytes.

    Attributes:
        start: so much of the beginning stayed.
        end: so much of the end stayed.
        size: of what stood between them.
        removed: that text, compressed with what came in its place unless it is short; None: it was not kept.
    """

    start: int
    end: int
    size: int
    removed: bytes | None


_NOT_KEPT = Cut(0, 0, 0, None)


class Point:
    """A state of the code: when, how long it was then, and how it came from the one before unless by adding to it."""

    __slots__ = ("at", "cut", "length")

    def __init__(self, at: int, length: int, cut: Cut | None = None) -> None:
        self.at = at
        self.length = length
        self.cut = cut

    @property
    def kind(self) -> int:
        """How it is stored."""
        if self.cut is None:
            return _ADDED
        if self.cut.removed is None:
            return _GAP
        return _CUT if self.cut.size < _SHORT else _COMPRESSED_CUT


class Growth:
    """The growth of a variant that this process writes.

    Args:
        begun_at: milliseconds since 1970.
    """

    def __init__(self, begun_at: int) -> None:
        self._begun_at = begun_at
        self._interval = INTERVAL
        self._points: list[Point] = []
        self._moves_until = 0
        """Until then the last point moves with the code."""
        self._encoded = bytearray()
        """All points but the last."""
        self._checksum = self._checked = 0
        """The CRC-32 of so many bytes of the code."""

    @classmethod
    def begun(cls) -> Growth:
        """The growth of a variant that begins now."""
        return cls(time_ns() // 1_000_000)

    @classmethod
    def resumed(cls, packed: bytes | None, code: bytes, started_at: datetime) -> Growth:
        """The growth that is stored with a code, which may have been written by a process that keeps none."""
        stored = None if packed is None else _unpacked(packed, code)
        growth = cls(int(started_at.timestamp() * 1000) if stored is None else stored.begun_at)
        if stored is not None:
            growth._interval = max(INTERVAL, stored.interval)
            growth._take(list(stored.points))
        elif code:
            growth._add(Point(growth._moment(None), len(code), _NOT_KEPT))
        growth.note_continued(len(code))
        return growth

    def note_continued(self, length: int, *, at: int | None = None) -> None:
        """The code has this many bytes, and begins with what it was before.

        Args:
            length: so many.
            at: since then, in milliseconds since 1970; by default since now.
        """
        points = self._points
        if not points:
            if length:
                self._add(Point(self._moment(at), length))
            return
        last = points[-1]
        if length == last.length:
            return
        moment = self._moment(at)
        if moment < self._moves_until:
            last.at, last.length = moment, length
        else:
            self._add(Point(moment, length))

    def note_whole(self, old: bytes | bytearray, new: bytes, *, at: int | None = None) -> None:
        """The code was sent as a whole: it goes on, or was replaced."""
        start = common_start(old, new)
        if start < len(old):
            self.note_replaced(old, new, start, common_end(old, new), at=at)
        else:
            self.note_continued(len(new), at=at)

    def note_replaced(self, old: bytes | bytearray, new: bytes, start: int, end: int, *, at: int | None = None) -> None:
        """The code was replaced; it begins and ends with so many bytes of the old one."""
        self.note_continued(len(old), at=at)
        start, end = aligned(new, start, end, len(old))
        removed = bytes(old[start : len(old) - end])
        is_kept = len(removed) <= LARGEST_REMOVED and is_storable(removed)
        kept = _deflated(removed, new[start : len(new) - end]) if is_kept else None
        self._checksum = self._checked = 0
        self._add(Point(self._moment(at), len(new), Cut(start, end, len(removed), kept)))
        if kept is None:
            self._forget_before(len(self._points) - 1)
        self._forget_what_is_too_much()

    def packed(self, code: bytes | bytearray, *, is_plain: bool) -> bytes:
        """It as it is stored.

        Args:
            code: as it was sent.
            is_plain: whether it is stored as it was sent; else lengths and texts differ.
        """
        if not is_plain:
            return self._packed_as_stored(code)
        self._checksum = zlib.crc32(code[self._checked :], self._checksum)
        self._checked = len(code)
        packed = bytearray(_head(self._begun_at, self._interval, len(code), self._checksum))
        packed += self._encoded
        if self._points:
            packed += _encoded(self._points[-1], self._points[-2] if len(self._points) > 1 else None)
        return bytes(packed)

    def _packed_as_stored(self, code: bytes | bytearray) -> bytes:
        """It with the lengths that the stored text has; so rare that what was removed is not kept then."""
        copy = Growth(self._begun_at)
        copy._take([Point(point.at, point.length, point.cut) for point in self._points])
        last = max((place for place, point in enumerate(copy._points) if point.cut is not None), default=None)
        if last is not None:
            copy._forget_before(last)
        lengths = [point.length for point in copy._points]
        text, stored = stored_lengths(code, lengths)
        points = [Point(point.at, length, point.cut) for point, length in zip(copy._points, stored, strict=True)]
        whole = text.encode()
        return bytes(_head(self._begun_at, self._interval, len(whole), zlib.crc32(whole)) + _encoded_all(points))

    def _moment(self, at: int | None) -> int:
        """Milliseconds since the beginning, which never go back."""
        now = (time_ns() // 1_000_000 if at is None else at) - self._begun_at
        last = self._points[-1].at if self._points else 0
        return now if now > last else last  # noqa: FURB136  (on the way of every piece, and max takes three times as long)

    def _add(self, point: Point) -> None:
        points = self._points
        if len(points) >= MOST_POINTS:
            self._interval *= 2
            self._take(_thinned(points))
            points = self._points
        if points:
            self._encoded += _encoded(points[-1], points[-2] if len(points) > 1 else None)
        points.append(point)
        self._moves_until = 0 if point.cut is not None else point.at + self._interval

    def _take(self, points: list[Point]) -> None:
        self._points = points
        self._encoded = _encoded_all(points[:-1])
        self._moves_until = points[-1].at + self._interval if points and points[-1].cut is None else 0

    def _forget_what_is_too_much(self) -> None:
        """Make gaps of the oldest points that keep what was removed, until the others are few and small enough."""
        removed = [each.cut.removed for each in self._points if each.cut is not None and each.cut.removed is not None]
        size = sum(map(len, removed))
        too_much = 0
        while len(removed) - too_much > MOST_CUTS or size > MOST_REMOVED:
            size -= len(removed[too_much])
            too_much += 1
        if too_much:
            cuts = (
                place
                for place, each in enumerate(self._points)
                if each.cut is not None and each.cut.removed is not None
            )
            self._forget_before(next(islice(cuts, too_much - 1, None)))

    def _forget_before(self, place: int) -> None:
        """Make a point a gap: of what came before, keep what it begins with."""
        points = self._points
        same = min((point.cut.start for point in points[: place + 1] if point.cut is not None), default=0)
        kept: list[Point] = []
        for point in points[:place]:
            if point.cut is not None or point.length > same:
                break
            kept.append(point)
        gap = points[place]
        gap.cut = Cut(kept[-1].length if kept else 0, 0, 0, None)
        moves_until = self._moves_until
        self._take([*kept, gap, *points[place + 1 :]])
        self._moves_until = moves_until


class StoredGrowth(NamedTuple):
    """What is stored."""

    begun_at: int
    interval: int
    length: int
    points: Sequence[Point]


def checked(packed: bytes | None, code: bytes) -> bytes | None:
    """The growth of a code that was noted elsewhere, if it is one of this code."""
    if packed is None or len(packed) > _LARGEST or steps_of(packed, code) is None:
        return None
    return packed


def end_of(packed: bytes) -> datetime:
    """When a code that was ``checked`` changed for the last time."""
    begun_at, place = _number(packed, 1)
    for _ in range(3):
        _, place = _number(packed, place)
    points = _points(packed, place)
    return datetime.fromtimestamp((begun_at + (points[-1].at if points else 0)) / 1000, UTC)


def beginning_of(packed: bytes) -> int | None:
    """When a variant began, in milliseconds since 1970, as its growth says."""
    try:
        return _number(packed, 1)[0] if packed[:1] == bytes((_VERSION,)) else None
    except ValueError:
        return None


def steps_of(packed: bytes, code: bytes) -> Sequence[GrowthStep] | None:
    """The states of a code as steps from one to the next, from nothing; None if they are not those of this code."""
    stored = _unpacked(packed, code)
    if stored is None:
        return None
    try:
        changes = list(_changes(stored.points, code))
    except (ValueError, zstandard.ZstdError):
        return None
    steps: list[GrowthStep] = []
    length = 0
    for point, start, end, text in reversed(changes):
        kept = length if start is None else start
        length = kept + len(text) + end
        is_gap = point.kind == _GAP
        steps.append(GrowthStep(at=point.at, start=kept, end=end, text=text, length=length, is_gap=is_gap))
    if stored.length < len(code):  # It was stored later, and nobody knows when.
        text = code[stored.length :].decode()
        last = steps[-1].at if steps else 0
        steps.append(GrowthStep(at=last, start=length, end=0, text=text, length=length + len(text), is_gap=True))
    return steps


def state_at(packed: bytes, code: bytes, at: int) -> str | None:
    """The code as it was so many milliseconds after its beginning; None if that is not known."""
    stored = _unpacked(packed, code)
    if stored is None:
        return None
    if stored.length < len(code) and (not stored.points or at >= stored.points[-1].at):
        return code.decode()
    try:
        for point, state in _states(stored.points, code):
            if point.at <= at:
                return state[: point.length].decode()
    except (ValueError, zstandard.ZstdError):
        return None
    return ""


def _states(points: Sequence[Point], code: bytes) -> Iterator[tuple[Point, bytes]]:
    """The points, last one first, each with a text that its state begins."""
    state = code
    for place in range(len(points) - 1, -1, -1):
        point = points[place]
        yield point, state
        if point.cut is not None and point.cut.removed is not None:
            start, rest = point.cut.start, point.length - point.cut.end
            state = state[:start] + _inflated(point.cut, state[start:rest]) + state[rest : point.length]
            if place and len(state) != points[place - 1].length:
                raise ValueError("a text that was removed has another length")


def _changes(points: Sequence[Point], code: bytes) -> Iterator[tuple[Point, int | None, int, str]]:
    """The points, last one first, each with what its state has of the former one, in characters, and what is new.

    The start is None where the state begins with the whole former one.
    """
    lengths = [0, *(point.length for point in points)]
    for place, (point, state) in zip(range(len(points) - 1, -1, -1), _states(points, code), strict=True):
        if point.cut is None or point.cut.removed is None:
            yield point, None, 0, state[lengths[place] : point.length].decode()
        else:
            start, rest = point.cut.start, point.length - point.cut.end
            end = len(state[rest : point.length].decode())
            yield point, len(state[:start].decode()), end, state[start:rest].decode()


def _thinned(points: Sequence[Point]) -> list[Point]:
    """Without every second point that is not needed: one between two others, and nothing was replaced."""
    kept = [points[0]]
    was_left_out = False
    for point, following in pairwise(points[1:]):
        was_left_out = not was_left_out and point.cut is None and following.cut is None
        if not was_left_out:
            kept.append(point)
    return [*kept, points[-1]]


def _deflated(removed: bytes, added: bytes) -> bytes:
    """A text that was removed, as the difference to what came in its place."""
    if len(removed) < _SHORT:
        return removed
    return zstandard.ZstdCompressor(level=_LEVEL, dict_data=_dictionary(added)).compress(removed)


def _inflated(cut: Cut, added: bytes) -> bytes:
    """The text that was removed.

    Raises:
        ValueError, ZstdError: it cannot be read.
    """
    packed = cut.removed or b""
    if cut.size < _SHORT:
        removed = packed
    elif cut.size > LARGEST_REMOVED or zstandard.frame_content_size(packed) != cut.size:
        raise ValueError("the size of a text that was removed is wrong")
    else:
        removed = zstandard.ZstdDecompressor(dict_data=_dictionary(added)).decompress(packed)
    if len(removed) != cut.size:
        raise ValueError("the size of a text that was removed is wrong")
    return removed


def _dictionary(added: bytes) -> zstandard.ZstdCompressionDict | None:
    if not added:
        return None
    return zstandard.ZstdCompressionDict(added[:LARGEST_REMOVED], dict_type=zstandard.DICT_TYPE_RAWCONTENT)


def _head(begun_at: int, interval: int, length: int, checksum: int) -> bytearray:
    return bytearray((_VERSION,)) + _packed_numbers(begun_at, interval, length, checksum)


def _encoded_all(points: Sequence[Point]) -> bytearray:
    encoded = bytearray()
    for place, point in enumerate(points):
        encoded += _encoded(point, points[place - 1] if place else None)
    return encoded


def _encoded(point: Point, former: Point | None) -> bytearray:
    kind, cut = point.kind, point.cut
    since = point.at - (former.at if former else 0)
    if kind == _ADDED or cut is None:
        return _packed_numbers(since, (point.length - (former.length if former else 0)) << _KIND_BITS)
    encoded = _packed_numbers(since, point.length << _KIND_BITS | kind)
    if cut.removed is not None:
        encoded += _packed_numbers(cut.start, cut.end, cut.size, len(cut.removed)) + cut.removed
    return encoded


def _packed_numbers(*numbers: int) -> bytearray:
    packed = bytearray()
    for number in numbers:
        rest = number
        while rest > 0x7F:
            packed.append(rest & 0x7F | 0x80)
            rest >>= 7
        packed.append(rest)
    return packed


def _number(packed: bytes, place: int) -> tuple[int, int]:
    """The number at a place, and the place after it.

    Raises:
        ValueError: the bytes end within it, or it is larger than anything that was stored.
    """
    number = shift = 0
    while place < len(packed) and shift < _MOST_BITS:
        byte = packed[place]
        place += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, place
        shift += 7
    raise ValueError("the growth of a code ends within a number")


def _unpacked(packed: bytes, code: bytes) -> StoredGrowth | None:
    """What is stored, if it is about the beginning of this code."""
    if packed[:1] != bytes((_VERSION,)):
        return None
    try:
        begun, place = _number(packed, 1)
        interval, place = _number(packed, place)
        length, place = _number(packed, place)
        checksum, place = _number(packed, place)
        points = _points(packed, place)
    except ValueError:
        return None
    if (points[-1].length if points else 0) != length or zlib.crc32(code[:length]) != checksum:
        return None
    return StoredGrowth(begun, interval, length, points) if length <= len(code) else None


def _points(packed: bytes, place: int) -> list[Point]:
    points: list[Point] = []
    at = length = 0
    while place < len(packed):
        since, place = _number(packed, place)
        value, place = _number(packed, place)
        kind, number = value & ~(-1 << _KIND_BITS), value >> _KIND_BITS
        at += since
        if kind == _ADDED:
            length += number
            points.append(Point(at, length))
            continue
        cut = Cut(length, 0, 0, None)
        if kind != _GAP:
            start, place = _number(packed, place)
            end, place = _number(packed, place)
            size, place = _number(packed, place)
            stored, place = _number(packed, place)
            cut = Cut(start, end, size, packed[place : place + stored])
            place += stored
        if cut.start + cut.end > number or place > len(packed):
            raise ValueError("a point of a growth keeps more than there is")
        length = number
        points.append(Point(at, length, cut))
    return points
