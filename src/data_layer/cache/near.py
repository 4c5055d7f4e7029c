"""The copy in this process: what was read lately, bounded by bytes and age, answering only while it is surely true."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import sys
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from functools import cache, partial
from itertools import islice
from time import monotonic
from types import UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from data_layer.cache.codec import Codec, UndecodableValueError
from data_layer.schemas.base import FrozenList, FrozenObject, share_field_names

_SCALARS = frozenset(
    {
        *(type(None), bool, int, float, str, bytes),
        *(dt.date, dt.datetime, dt.time, dt.timedelta),
        *(decimal.Decimal, uuid.UUID),
    }
)
_UNCHANGEABLE = _SCALARS | {FrozenObject, FrozenList}
_MOST_CONTAINERS = 64
_WEIGHED = 16
"""Of a longer container so many items are weighed, in equal distances, and the others are taken to weigh as much."""


def is_immutable(value: object) -> bool:
    """Whether nobody who holds the value can change it, nor anything inside it.

    A pydantic model is immutable when it is frozen, has no private attributes, and all its fields are immutable. Fields
    whose type says so are not looked at: pydantic has validated them.
    """
    if type(value) in _UNCHANGEABLE or isinstance(value, enum.Enum):
        return True
    if type(value) in {tuple, frozenset}:
        return all(map(is_immutable, value))  # type: ignore[call-overload]  # Both can be iterated over.
    if isinstance(value, BaseModel):
        return (
            not value.__pydantic_private__
            and not value.__pydantic_extra__
            and (names := _fields_to_check(type(value))) is not None
            and all(is_immutable(getattr(value, name)) for name in names)
        )
    return False


@cache
def _fields_to_check(model: type[BaseModel]) -> tuple[str, ...] | None:
    """The fields that may hold something that can be changed; None if the model itself can be changed."""
    if not model.model_config.get("frozen"):
        return None
    return tuple(name for name, field in model.model_fields.items() if not _holds_immutable(field.annotation))


def _holds_immutable(kind: Any) -> bool:
    """Whether all values of a type are immutable; a model of pydantic is looked at as a value."""
    origin = get_origin(kind)
    if origin is None:
        return kind is None or kind in _UNCHANGEABLE or (isinstance(kind, type) and issubclass(kind, enum.Enum))
    if origin is Literal:
        return True
    if origin in {Union, UnionType, tuple, frozenset, Annotated}:
        kinds = get_args(kind)[:1] if origin is Annotated else get_args(kind)
        return all(each is Ellipsis or _holds_immutable(each) for each in kinds)
    return False


def copier(value: object) -> Callable[[], Any] | None:
    """Make equal dicts and lists, all the way down; None for what is neither, holds other things, or is too large.

    For a few containers it is several times as quick as decoding the JSON again, and about as quick for 64.
    """
    return _copier(value, [_MOST_CONTAINERS]) if type(value) in {dict, list} else None


def weigh(value: object) -> int:
    """About how many bytes a value takes in memory."""
    size = sys.getsizeof(value)
    if type(value) in _SCALARS:  # Nearly always, and quicker than the questions below.
        return size
    if isinstance(value, dict):
        return size + _weigh_all(value, len(value)) + _weigh_all(value.values(), len(value))
    if isinstance(value, list | tuple | frozenset):
        return size + _weigh_all(value, len(value))
    if isinstance(value, BaseModel):
        fields = vars(value)  # Their names are shared by all instances.
        return size + sys.getsizeof(fields) + sum(map(weigh, fields.values()))
    return size


def _weigh_all(items: Iterable[object], count: int) -> int:
    if count <= 2 * _WEIGHED:
        return sum(map(weigh, items))
    step = count // _WEIGHED
    weighed = sum(map(weigh, islice(items, step // 2, None, step)))
    return weighed * count // len(range(step // 2, count, step))


def _copier(value: Any, allowance: list[int]) -> Callable[[], Any] | None:
    allowance[0] -= 1
    if allowance[0] < 0:
        return None
    places = value.items() if type(value) is dict else enumerate(value)
    inner: list[tuple[Any, Callable[[], Any]]] = []
    for place, item in places:
        if type(item) in _UNCHANGEABLE:
            continue
        make = _copier(item, allowance) if type(item) in {dict, list} else None
        if make is None:
            return None
        inner.append((place, make))
    if not inner:
        return value.copy  # type: ignore[no-any-return]  # Of dict or list.
    if len(inner) == len(value) and type(value) is list:
        return partial(_copy_list, [make for _, make in inner])
    return partial(_copy, value, inner)


def _copy_list(makers: list[Callable[[], Any]]) -> list[Any]:
    return [make() for make in makers]


def _copy(value: Any, inner: list[tuple[Any, Callable[[], Any]]]) -> Any:
    copy = value.copy()
    for place, make in inner:
        copy[place] = make()
    return copy


MISSING: Final = object()
MAXIMUM_AGE = 60.0
"""Seconds after which an entry is fetched again, whatever its time to live."""

_UNREAD: Final = object()
_OVERHEAD = 500
_LARGEST_SHARE = 8
_PROBATION_SHARE = 10


class Fetch:
    """A read of one key that is under way. It is clean as long as nobody has changed the key meanwhile."""

    __slots__ = ("is_clean", "readers", "started")

    def __init__(self) -> None:
        self.is_clean = True
        self.readers = 0
        self.started = 0.0


class _Entry:
    """One value, in the form that is quickest to hand out without giving it away.

    What nobody can change is shared (``value``, no ``make``); dicts and lists are copied and everything else is
    decoded again at each read (``make``). ``stored`` is kept only where it is needed for that.
    """

    __slots__ = ("as_type", "end", "make", "size", "stored", "value", "was_read")

    def __init__(self, key: bytes, stored: bytes, end: float) -> None:
        self.stored: bytes | None = stored
        self.end = end
        self.size = _OVERHEAD + len(key) + len(stored)
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
        entry.as_type = as_type
        make = copier(value)
        if make is not None or is_immutable(value):
            share_field_names(value)
            entry.value, entry.make, entry.stored = value, make, None
            # Of a long list only some items are weighed; those that are heavy are in its JSON too.
            size = max(weigh(value), len(payload))
        else:
            entry.value, entry.make = None, partial(self._codec.read, kind, payload, as_type)
            entry.stored = self._codec.seal_plainly(kind, payload)
            # The payload is held twice: in the envelope, and cut out of it.
            size = len(payload) * 2
        self._resize(key, entry, _OVERHEAD + len(key) + size)
        return True

    def _resize(self, key: bytes, entry: _Entry, size: int) -> None:
        growth, entry.size = size - entry.size, size
        self.size += growth
        if key in self._probation:
            self._probation_size += growth
        entry.was_read = True
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
