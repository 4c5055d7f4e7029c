"""The near copy by itself: what it may answer, what it keeps, and that nobody can change what it holds."""

from __future__ import annotations

import datetime as dt
import enum
import random
from decimal import Decimal
from time import monotonic
from typing import Annotated, Any, Literal
from uuid import UUID

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from pydantic import BaseModel, ConfigDict, Field, ModelWrapValidatorHandler, PrivateAttr, model_validator

from data_layer.cache.codec import Codec
from data_layer.cache.near import MISSING, DecodedValue, NearCopy
from data_layer.cache.objects import copier, is_immutable
from data_layer.schemas.base import share_field_names
from tests.cache.test_codec import JSON

NO_END = -1
codec = Codec()


def near_copy(capacity: int = 10**6, **options: Any) -> NearCopy:
    near = NearCopy(codec, capacity, **options)
    near.turn_on()
    near.trusted_until = monotonic() + 1000
    return near


def keep(near: NearCopy, key: bytes, value: Any, milliseconds: int = NO_END) -> None:
    fetch = near.begin(key)
    assert fetch is not None
    near.keep(key, fetch, monotonic(), codec.encode(value), milliseconds)
    near.end(key, fetch)


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)

    name: str
    born: dt.date
    parts: tuple[int, ...] = ()


class Changeable(BaseModel):
    name: str


class FrozenOutside(BaseModel):
    model_config = ConfigDict(frozen=True)

    names: list[str]


class FrozenWithAPrivatePart(BaseModel):
    model_config = ConfigDict(frozen=True)

    _cache: dict[str, int] = PrivateAttr(default_factory=dict)


class Colour(enum.Enum):
    RED = "red"


def scribble(value: Any) -> None:
    """Changes everything inside a value that can be changed."""
    if isinstance(value, dict):
        for item in value.values():
            scribble(item)
        value["scribbled"] = True
    elif isinstance(value, list):
        for item in value:
            scribble(item)
        value.append("scribbled")


@given(JSON)
def test_whatever_a_caller_does_the_next_one_gets_the_same(value: Any) -> None:
    near = near_copy()
    keep(near, b"key", value)
    for _ in range(4):
        found = near.find(b"key", None)
        assert found == value
        assert type(found) is type(value)
        scribble(found)


@given(JSON)
def test_a_copy_is_equal_and_shares_nothing(value: Any) -> None:
    make = copier(value)
    if make is None:
        return
    first, second = make(), make()
    assert orjson.dumps(first) == orjson.dumps(second) == orjson.dumps(value)
    scribble(first)
    assert second == value


def test_many_containers_are_decoded_instead() -> None:
    value = [{"number": number} for number in range(100)]
    assert copier(value) is None
    near = near_copy()
    keep(near, b"key", value)
    for _ in range(3):
        found = near.find(b"key", None)
        assert found == value
        scribble(found)


def test_frozen_models_are_shared_and_others_are_not() -> None:
    near = near_copy()
    frozen = Frozen(name="Zoë", born=dt.date(2000, 1, 1), parts=(1, 2))
    keep(near, b"frozen", frozen)
    assert near.find(b"frozen", Frozen) == frozen
    assert near.find(b"frozen", Frozen) is near.find(b"frozen", Frozen)
    keep(near, b"changeable", Changeable(name="Zoë"))
    near.find(b"changeable", Changeable).name = "changed"
    assert near.find(b"changeable", Changeable) == Changeable(name="Zoë")
    keep(near, b"outside", FrozenOutside(names=["a"]))
    near.find(b"outside", FrozenOutside).names.append("b")
    assert near.find(b"outside", FrozenOutside).names == ["a"]


def test_what_its_reader_has_decoded_is_shared_with_the_next_one() -> None:
    near = near_copy()
    value = Frozen(name="Zoë", born=dt.date(2000, 1, 1))
    stored = codec.encode(value)
    keep(near, b"key", value)
    near.adopt(b"key", DecodedValue(codec.encode(Frozen(name="older", born=value.born)), Frozen, value, 1))
    assert near.find(b"key", Frozen) is not value, "it means other bytes than those that were read last"
    keep(near, b"key", value)
    near.adopt(b"key", DecodedValue(stored, Frozen, value, len(stored)))
    assert near.find(b"key", Frozen) is value
    assert near.find(b"key", Changeable) in (Changeable(name="Zoë"), MISSING)
    near.drop(b"key")
    near.adopt(b"key", DecodedValue(stored, Frozen, value, len(stored)))
    assert near.find(b"key", Frozen) is MISSING, "it was changed since it was read"


class Folder(BaseModel, frozen=True):
    """A model that holds its own kind."""

    name: str
    folders: tuple[Folder, ...] = ()
    note: Any = None


class FrozenOpen(BaseModel, frozen=True, extra="allow"):
    pass


class FrozenReplaced(BaseModel, frozen=True):
    @model_validator(mode="wrap")
    @classmethod
    def replace(cls, _: Any, __: ModelWrapValidatorHandler[Any]) -> Any:
        return Changeable(name="something else")


class FrozenNested(BaseModel, frozen=True):
    page: Frozen | None = None
    open: FrozenOpen | None = None
    replaced: FrozenReplaced | None = None
    folder: Folder | None = None


class FrozenAround(BaseModel, frozen=True):
    """Some fields need to be looked at, others do not."""

    anything: Any = None
    several: tuple[Frozen | FrozenOutside, ...] = ()
    named: Literal["a", 1] | Colour | None = None
    limited: Annotated[str, Field(max_length=3)] = ""
    numbers: frozenset[int] = frozenset()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (FrozenAround(anything=1, named="a", limited="abc", numbers=frozenset({1})), True),
        (FrozenAround(anything=[]), False),
        (FrozenAround(several=(Frozen(name="a", born=dt.date(2000, 1, 1)),)), True),
        (FrozenAround(several=(Frozen(name="a", born=dt.date(2000, 1, 1)), FrozenOutside(names=[]))), False),
        (Frozen(name="a", born=dt.date(2000, 1, 1)), True),
        (Folder(name="a", folders=(Folder(name="b", note=(1, 2)),)), True),
        (Folder(name="a", folders=(Folder(name="b", note=[1, 2]),)), False),
        (FrozenNested(page=Frozen(name="a", born=dt.date(2000, 1, 1)), folder=Folder(name="a")), True),
        (FrozenNested(folder=Folder(name="a", note={})), False),
        (FrozenNested.model_validate({"open": {"more": []}}), False),
        (FrozenNested.model_validate({"replaced": {}}), False),
        (Changeable(name="a"), False),
        (FrozenOutside(names=[]), False),
        (FrozenWithAPrivatePart(), False),
        ((1, "a", b"a", None, Decimal(1), UUID(int=1), Colour.RED, frozenset({1})), True),
        ((1, [2]), False),
        ({}, False),
        (bytearray(b"a"), False),
        (object(), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_may_be_shared(value: object, expected: bool) -> None:  # noqa: FBT001
    assert is_immutable(value) is expected


def test_one_heavy_item_among_many_light_ones_counts() -> None:
    near = near_copy(10_000_000)
    for place in range(0, 1_000, 37):
        value = ["x"] * 1_000
        value[place] = "y" * 100_000
        keep(near, b"key", value)
        near.find(b"key", None)
        assert near.size > 100_000


def test_another_type_for_the_same_key_is_right_or_a_miss() -> None:
    near = near_copy()
    keep(near, b"key", {"name": "Zoë"})
    assert near.find(b"key", Changeable) == Changeable(name="Zoë")
    assert near.find(b"key", dict[str, str]) == {"name": "Zoë"}
    assert near.find(b"key", Changeable) in (Changeable(name="Zoë"), MISSING)
    keep(near, b"key", {"name": "Zoë"})
    assert near.find(b"key", int) is MISSING


def test_it_answers_only_while_it_is_trusted() -> None:
    near = near_copy()
    keep(near, b"key", 1)
    near.trusted_until = monotonic() - 0.001
    assert near.find(b"key", None) is MISSING
    near.trusted_until = monotonic() + 10
    assert near.find(b"key", None) == 1
    near.turn_off()
    near.turn_on()
    near.trusted_until = monotonic() + 10
    assert near.find(b"key", None) is MISSING


@pytest.mark.parametrize("milliseconds", [-2, 0])
def test_what_has_ended_is_not_kept(milliseconds: int) -> None:
    near = near_copy()
    keep(near, b"key", 1, milliseconds)
    assert near.find(b"key", None) is MISSING


def test_nothing_outlives_its_time_or_the_maximum_age() -> None:
    near = near_copy(maximum_age=0)
    keep(near, b"key", 1, 60_000)
    assert near.find(b"key", None) is MISSING
    near = near_copy()
    fetch = near.begin(b"key")
    assert fetch is not None
    near.keep(b"key", fetch, monotonic() - 10, codec.encode(1), 9_999)  # Read ten seconds ago.
    near.end(b"key", fetch)
    assert near.find(b"key", None) is MISSING


def test_without_room_it_is_off() -> None:
    near = NearCopy(codec, 0)
    near.turn_on()
    assert near.begin(b"key") is None


def test_a_scan_does_not_drive_out_what_is_read_again_and_again() -> None:
    near = near_copy(200_000)
    for number in range(20):
        keep(near, b"hot-%d" % number, "x" * 1000)
        near.find(b"hot-%d" % number, None)
    for number in range(2000):
        keep(near, b"scan-%d" % number, "x" * 1000)
        near.find(b"hot-%d" % (number % 20), None)
    assert sum(near.find(b"hot-%d" % number, None) is not MISSING for number in range(20)) >= 18
    assert near.evictions > 1000


def test_one_large_value_does_not_drive_out_the_others() -> None:
    near = near_copy(100_000)
    small, large = (random.Random(1).randbytes(size).hex() for size in (4_000, 20_000))
    keep(near, b"small", small)
    keep(near, b"large", large)
    assert near.find(b"small", None) == small
    assert near.find(b"large", None) is MISSING


def test_the_bytes_are_about_what_python_needs() -> None:
    """Ten thousand values of a kilobyte; the estimate must not be far below what the process has grown by."""
    import tracemalloc

    near = near_copy(10**9)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(2000):
        keep(near, b"key-%d" % number, {"text": f"{number}" * 250, "n": number})
        near.find(b"key-%d" % number, None)
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert 0.8 * grown < near.size < 2.5 * grown


class Item(BaseModel, frozen=True):
    name: str
    note: str = ""


class Page(BaseModel, frozen=True):
    items: tuple[Item, ...]
    first: Item


def test_models_share_the_names_of_their_fields() -> None:
    """Pydantic makes a set of names for each, which takes more than the values of many fields."""
    near = near_copy()
    whole = Item(name="whole", note="given")
    for key in (b"1", b"2"):
        keep(near, key, Page(items=(whole, Item(name="half")), first=whole))
    one, other = (near.find(key, Page) for key in (b"1", b"2"))
    assert one == other
    assert one.model_fields_set is other.model_fields_set
    assert one.first.model_fields_set is one.items[0].model_fields_set is other.items[0].model_fields_set
    changed = one.model_copy(update={"first": Item(name="third")})
    assert changed.model_fields_set is not one.model_fields_set


def test_fields_that_were_not_given_are_still_not_among_the_names() -> None:
    item = Item(name="half")
    share_field_names(item)
    assert item.model_fields_set == {"name"}


KEYS = st.sampled_from([b"%d" % number for number in range(3)])


class NearMachine(RuleBasedStateMachine):
    """A server whose keys have versions, fetches that overlap changes, and messages that come later but in order."""

    def __init__(self) -> None:
        super().__init__()
        self.near = near_copy(7000)
        self.truth: dict[bytes, int] = {}
        self.known: dict[bytes, int] = {}
        """The oldest version that may still be read: the newest that the process knows of."""
        self.messages: list[bytes] = []
        self.fetches: list[tuple[bytes, Any, int]] = []
        self.version = 0

    @rule(key=KEYS)
    def change(self, key: bytes) -> None:
        self.version += 1
        self.truth[key] = self.version
        self.messages.append(key)

    @precondition(lambda self: self.messages)
    @rule()
    def hear(self) -> None:
        key = self.messages.pop(0)
        self.near.drop(key)
        self.known[key] = max(self.known.get(key, 0), self.truth[key] if key not in self.messages else 0)

    @rule(key=KEYS)
    def begin(self, key: bytes) -> None:
        fetch = self.near.begin(key)
        if fetch is not None:
            self.fetches.append((key, fetch, self.truth.get(key, 0)))

    @precondition(lambda self: self.fetches)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        key, fetch, version = self.fetches.pop(data.draw(st.integers(0, len(self.fetches) - 1)))
        value = {"version": version, "text": "x" * data.draw(st.sampled_from([1, 300]))}
        self.near.keep(key, fetch, monotonic(), codec.encode(value), NO_END)
        self.near.end(key, fetch)
        self.read(key)

    @precondition(lambda self: self.version % 4 == 3)
    @rule()
    def lose_the_line(self) -> None:
        self.near.turn_off()
        self.messages.clear()
        self.known = dict(self.truth)
        self.near.turn_on()
        self.near.trusted_until = monotonic() + 1000

    @rule(number=st.integers(0, 30))
    def crowd(self, number: int) -> None:
        keep(self.near, b"crowd-%d" % number, "x" * 300)

    @rule(key=KEYS)
    def read(self, key: bytes) -> None:
        for _ in range(2):  # The first time it is decoded.
            found = self.near.find(key, None)
        if found is not MISSING:
            assert found["version"] >= self.known.get(key, 0)

    @invariant()
    def it_stays_in_bounds(self) -> None:
        near = self.near
        entries = [*near._probation.values(), *near._proven.values()]
        assert near.size == sum(entry.size for entry in entries) <= near.capacity
        assert near._probation_size == sum(entry.size for entry in near._probation.values())
        assert not near._probation.keys() & near._proven.keys()

    @invariant()
    def no_fetch_is_forgotten(self) -> None:
        assert len(self.near._fetches) <= len(self.fetches)


TestNearMachine = NearMachine.TestCase
TestNearMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
