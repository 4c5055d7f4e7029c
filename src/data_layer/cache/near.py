"""The copy in this process: what was read lately, bounded by bytes and age, answering only while it is surely true."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from time import monotonic
from typing import Any, Final

from data_layer.cache.codec import Codec, UndecodableValueError
from data_layer.cache.objects import copier, is_immutable, weigh
from data_layer.schemas.base import share_field_names

MISSING: Final = object()
MAXIMUM_AGE = 60.0
"""Seconds after which an entry is fetched again, whatever its time to live."""

_UNREAD: Final = object()
OVERHEAD = 500
_LARGEST_SHARE = 8
_PROBATION_SHARE = 10


class Fetch:
    """A read of one key that is under way. It is clean as long as nobody has changed the key meanwhile."""

    __slots__ = ("is_clean", "readers", "started")

    def __init__(self) -> None:
        self.is_clean = True
        self.readers = 0
        self.started = 0.0


class DecodedValue:
    """A value that nobody can change, and the bytes that were decoded to it.

    Args:
        stored: the bytes, as they are in Redis.
        as_type: what they were decoded as.
        value: what came out.
        payload_size: bytes of the JSON.
    """

    __slots__ = ("_size", "as_type", "payload_size", "stored", "value")

    def __init__(self, stored: bytes, as_type: Any, value: Any, payload_size: int) -> None:
        self.stored = stored
        self.as_type = as_type
        self.value = value
        self.payload_size = payload_size
        self._size: int | None = None

    @property
    def size(self) -> int:
        """About how many bytes the value takes in memory, once its models share the names of their fields."""
        if self._size is None:
            share_field_names(self.value)
            # Of a long list only some items are weighed; those that are heavy are in its JSON too.
            self._size = max(weigh(self.value), self.payload_size)
        return self._size


class _Entry:
    """One value, in the form that is quickest to hand out without giving it away.

    What nobody can change is shared (``value``, no ``make``); dicts and lists are copied and everything else is
    decoded again at each read (``make``). ``stored`` is kept only where it is needed for that.
    """

    __slots__ = ("as_type", "end", "make", "size", "stored", "value", "was_read")

    def __init__(self, key: bytes, stored: bytes, end: float) -> None:
        self.stored: bytes | None = stored
        self.end = end
        self.size = OVERHEAD + len(key) + len(stored)
        self.was_read = False
        self.as_type: Any = _UNREAD
        self.value: Any = None
        self.make: Callable[[], Any] | None = None


class NearCopy:
    """Values by their full keys. It is filled by fetches that stayed clean, and emptied of a key that is changed.

    It answers only before ``trusted_until`` (monotonic time), which ``Tracking`` moves on as long as it surely
    receives all changes. A new entry is on probation in a tenth of the room, so that a scan does not drive out what is
    read again and again; in the rest, what was read since the last look stays (S3-FIFO without ghosts).

    Args:
        codec: decodes what was stored.
        capacity: bytes, with an estimate of what Python needs; 0 turns the copy off.
        maximum_age: seconds.
    """

    def __init__(self, codec: Codec, capacity: int, maximum_age: float = MAXIMUM_AGE) -> None:
        self.capacity = capacity
        self.trusted_until = 0.0
        self.size = 0
        self.hits = 0
        self.evictions = 0
        self.invalidations = 0
        self._codec = codec
        self._maximum_age = maximum_age
        self.is_filled = False
        self._probation: OrderedDict[bytes, _Entry] = OrderedDict()
        self._proven: OrderedDict[bytes, _Entry] = OrderedDict()
        self._probation_size = 0
        self._fetches: dict[bytes, Fetch] = {}

    def __len__(self) -> int:
        return len(self._probation) + len(self._proven)

    def __contains__(self, key: bytes) -> bool:
        return key in self._proven or key in self._probation

    @property
    def is_answering(self) -> bool:
        """Whether it may answer at this moment."""
        return monotonic() < self.trusted_until

    def find(self, key: bytes, as_type: Any) -> Any:
        """The value as the type, or MISSING."""
        entry = self._proven.get(key) or self._probation.get(key)
        if entry is None:
            return MISSING
        now = monotonic()
        if now >= self.trusted_until:
            return MISSING
        if now >= entry.end:
            self._remove(key)
            return MISSING
        if entry.as_type is not as_type and not self._prepare(key, entry, as_type):
            return MISSING
        entry.was_read = True
        self.hits += 1
        return entry.value if entry.make is None else entry.make()

    def find_many(self, names: Mapping[bytes, str], as_type: Any) -> tuple[dict[str, Any], list[bytes]]:
        """What ``find`` finds of these keys, by their names, and the keys of which it finds nothing; in their order."""
        now = monotonic()
        if now >= self.trusted_until:
            return {}, list(names)
        proven, probation = self._proven, self._probation
        found: dict[str, Any] = {}
        missing: list[bytes] = []
        for key, name in names.items():
            entry = proven.get(key) or probation.get(key)
            if (
                entry is None
                or now >= entry.end
                or (entry.as_type is not as_type and not self._prepare(key, entry, as_type))
            ):
                missing.append(key)
                continue
            entry.was_read = True
            found[name] = entry.value if entry.make is None else entry.make()
        self.hits += len(found)
        return found, missing

    def begin(self, key: bytes) -> Fetch | None:
        """Announce that a key is being read; None while the copy takes nothing in. Ends with ``end``."""
        if not self.is_filled:
            return None
        fetch = self._fetches.get(key)
        if fetch is None:
            fetch = self._fetches[key] = Fetch()
        fetch.readers += 1
        fetch.started = monotonic()
        return fetch

    def keep(self, key: bytes, fetch: Fetch, started: float, stored: bytes, milliseconds: int) -> None:
        """Take in what a fetch has read, unless somebody has changed the key since.

        Args:
            key: the full key.
            fetch: from ``begin``.
            started: monotonic time before the read was sent.
            stored: the bytes at the key.
            milliseconds: what PTTL said: the life that the key had left, -1 without end, -2 if it is gone.
        """
        if not fetch.is_clean or milliseconds == -2:
            return
        life = self._maximum_age if milliseconds < 0 else min(self._maximum_age, milliseconds / 1000)
        self._remove(key)
        entry = _Entry(key, stored, started + life)
        if entry.size * _LARGEST_SHARE <= self.capacity:
            self._probation[key] = entry
            self._probation_size += entry.size
            self.size += entry.size
            self._make_room()

    def adopt(self, key: bytes, decoded: DecodedValue) -> None:
        """Let later readers share a value that was decoded from what ``keep`` has just taken in."""
        entry = self._probation.get(key)
        if entry is not None and entry.stored is not None and entry.stored == decoded.stored:
            self._share(key, entry, decoded)

    def end(self, key: bytes, fetch: Fetch) -> None:
        """The read has ended, however it did."""
        fetch.readers -= 1
        if not fetch.readers and self._fetches.get(key) is fetch:
            del self._fetches[key]

    def drop(self, *keys: bytes) -> None:
        """The keys are being changed, or were: forget them, and do not keep what is being read of them."""
        # Each write comes by here three times and more, mostly with keys of which there is nothing.
        fetches, proven, probation = self._fetches, self._proven, self._probation
        for key in keys:
            if key in fetches:
                fetches.pop(key).is_clean = False
            if key in proven or key in probation:
                self._remove(key)
                self.invalidations += 1

    def turn_on(self) -> None:
        """Take in what is read from now on."""
        self.is_filled = self.capacity > 0

    def turn_off(self) -> None:
        """Forget everything, takes nothing in and does not answer."""
        self.is_filled = False
        self.trusted_until = 0.0
        self.clear()

    def clear(self) -> None:
        """Forget everything, and does not keep what is being read."""
        for fetch in self._fetches.values():
            fetch.is_clean = False
        self._fetches.clear()
        self._probation.clear()
        self._proven.clear()
        self.size = self._probation_size = 0

    def _prepare(self, key: bytes, entry: _Entry, as_type: Any) -> bool:
        """Bring an entry into the form for its first reader, or for another type; False where that cannot be."""
        if entry.as_type == as_type:  # An equal type, such as another list[Model].
            return True
        if entry.stored is None:
            self._remove(key)
            return False
        try:
            kind, payload = self._codec.unseal(entry.stored)
            value = self._codec.read(kind, payload, as_type)
        except UndecodableValueError:
            self._remove(key)
            return False
        entry.was_read = True
        if is_immutable(value):
            self._share(key, entry, DecodedValue(entry.stored, as_type, value, len(payload)))
            return True
        entry.as_type, entry.value, entry.make = as_type, None, copier(value)
        if entry.make is not None:
            entry.value, entry.stored = value, None
            self._resize(key, entry, max(weigh(value), len(payload)))
        else:
            entry.make = partial(self._codec.read, kind, payload, as_type)
            entry.stored = self._codec.seal_plainly(kind, payload)
            # The payload is held twice: in the envelope, and cut out of it.
            self._resize(key, entry, len(payload) * 2)
        return True

    def _share(self, key: bytes, entry: _Entry, decoded: DecodedValue) -> None:
        entry.as_type, entry.value, entry.make, entry.stored = decoded.as_type, decoded.value, None, None
        self._resize(key, entry, decoded.size)

    def _resize(self, key: bytes, entry: _Entry, size: int) -> None:
        size += OVERHEAD + len(key)
        growth, entry.size = size - entry.size, size
        self.size += growth
        if key in self._probation:
            self._probation_size += growth
        self._make_room()

    def _remove(self, key: bytes) -> bool:
        entry = self._proven.pop(key, None)
        if entry is None:
            entry = self._probation.pop(key, None)
            if entry is None:
                return False
            self._probation_size -= entry.size
        self.size -= entry.size
        return True

    def _make_room(self) -> None:
        while self.size > self.capacity:
            if self._probation and (self._probation_size * _PROBATION_SHARE > self.capacity or not self._proven):
                self._examine_probation()
            else:
                self._examine_proven()

    def _examine_probation(self) -> None:
        key, entry = self._probation.popitem(last=False)
        self._probation_size -= entry.size
        if entry.was_read:
            entry.was_read = False
            self._proven[key] = entry
        else:
            self.size -= entry.size
            self.evictions += 1

    def _examine_proven(self) -> None:
        key, entry = self._proven.popitem(last=False)
        if entry.was_read:
            entry.was_read = False
            self._proven[key] = entry
        else:
            self.size -= entry.size
            self.evictions += 1
