from __future__ import annotations

import datetime as dt
import enum
import math
import struct
from functools import cached_property
from typing import Any
from uuid import UUID

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, RootModel, ValidationError, field_serializer, model_serializer

from data_layer.cache.codec import (
    COMPRESSION_THRESHOLD,
    MAXIMUM_VALUE_SIZE,
    Codec,
    UndecodableValueError,
    UnencodableValueError,
)
from data_layer.cache.objects import plain_fields

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
NUMBERS = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
    max_leaves=30,
)
codec = Codec()


class Page(BaseModel):
    title: str = Field(validation_alias="readTitle", serialization_alias="writtenTitle")
    parts: tuple[int, ...] = ()


class Colour(enum.IntEnum):
    RED = 1


class Size(enum.Enum):
    SMALL = "small"


class Measured(BaseModel, frozen=True):
    length: float | None


class Plain(BaseModel, frozen=True):
    """All that orjson writes itself, and models of both kinds."""

    id: UUID
    name: str = Field(validation_alias="readName", serialization_alias="writtenName")
    note: str | int | None
    number: int
    is_new: bool
    colour: Colour | None
    size: Size
    born: dt.date
    at: dt.datetime
    tags: tuple[str, ...] = ()
    pair: tuple[int, str] | None = None
    page: Page | None = None
    measured: tuple[Measured, ...] = ()
    inner: Plain | None = None


WHOLE = st.integers(-(2**63), 2**64 - 1)
TIMES = (
    st.datetimes()
    | st.datetimes(timezones=st.just(dt.UTC))
    | st.datetimes(timezones=st.integers(-720, 720).map(lambda minutes: dt.timezone(dt.timedelta(minutes=minutes))))
)
PLAIN = st.fixed_dictionaries(
    {
        "id": st.uuids(),
        "readName": TEXT,
        "note": TEXT | WHOLE | st.none(),
        "number": WHOLE,
        "is_new": st.booleans(),
        "colour": st.sampled_from(Colour) | st.none(),
        "size": st.sampled_from(Size),
        "born": st.dates(),
        "at": TIMES,
        "tags": st.lists(TEXT).map(tuple),
        "pair": st.tuples(WHOLE, TEXT) | st.none(),
        "page": st.builds(Page, readTitle=TEXT, parts=st.lists(WHOLE).map(tuple)) | st.none(),
        "measured": st.lists(st.builds(Measured, length=st.floats(-1e9, 1e9) | st.none()), max_size=3).map(tuple),
    }
)


@given(PLAIN, PLAIN)
def test_plain_models_come_back_as_pydantic_would_bring_them(outer: dict[str, Any], inner: dict[str, Any]) -> None:
    value = Plain(**outer, inner=Plain(**inner))
    assert plain_fields(value) == vars(value)
    assert codec.decode(codec.encode(value), Plain) == value
    as_json = value.model_dump_json(by_alias=False, round_trip=True)
    assert codec.decode(codec.encode(value), Plain) == Plain.model_validate_json(as_json, by_alias=False, by_name=True)
    assert codec.decode(codec.encode([value, {"a": value}]), list[Plain | dict[str, Plain]]) == [value, {"a": value}]


@given(PLAIN, st.sampled_from([math.nan, math.inf, -math.inf]))
def test_no_infinity_hides_in_a_plain_model(fields: dict[str, Any], number: float) -> None:
    value = Plain(**fields | {"measured": (Measured(length=1), Measured(length=number))})
    with pytest.raises(UnencodableValueError):
        codec.encode([value])


class Changeable(BaseModel):
    name: str


class WithFloat(BaseModel, frozen=True):
    number: tuple[float, ...] | None


class WithAnything(BaseModel, frozen=True):
    anything: Any


class WithMore(BaseModel, frozen=True, extra="allow"):
    name: str


class WithSecret(BaseModel, frozen=True):
    name: str
    secret: str = Field(exclude=True)


class WithLimit(BaseModel, frozen=True):
    name: str = Field(max_length=3)


class WithFieldSerializer(BaseModel, frozen=True):
    name: str

    @field_serializer("name")
    def shout(self, name: str) -> str:
        return name.upper()


class WithModelSerializer(BaseModel, frozen=True):
    name: str

    @model_serializer
    def shorten(self) -> dict[str, str]:
        return {"n": self.name}


class WithRoot(RootModel[str], frozen=True):
    pass


class WithOwnDump(BaseModel, frozen=True):
    name: str

    def model_dump(self, **_: Any) -> dict[str, Any]:
        return {"n": self.name}


class WithTime(BaseModel, frozen=True):
    time: dt.time


class WithCachedProperty(BaseModel, frozen=True):
    name: str

    @cached_property
    def letters(self) -> set[str]:
        return set(self.name)


def with_cached_property() -> WithCachedProperty:
    value = WithCachedProperty(name="a")
    assert value.letters == {"a"}
    return value


@pytest.mark.parametrize(
    "model",
    [
        *(Changeable(name="a"), WithFloat(number=(1.5,)), WithAnything(anything=1), WithMore(name="a")),
        *(WithSecret(name="a", secret="b"), WithLimit(name="a"), WithRoot("a"), WithOwnDump(name="a")),
        *(WithFieldSerializer(name="a"), WithModelSerializer(name="a"), WithTime(time=dt.time())),
        with_cached_property(),
    ],
    ids=lambda model: type(model).__name__,
)
def test_other_models_are_left_to_pydantic(model: BaseModel) -> None:
    assert plain_fields(model) is None


def test_how_a_model_is_serialized_is_what_it_says_itself() -> None:
    assert codec.decode(codec.encode([WithFieldSerializer(name="a")])) == [{"name": "A"}]
    assert codec.decode(codec.encode([WithModelSerializer(name="a")])) == [{"n": "a"}]
    assert codec.decode(codec.encode([with_cached_property()])) == [{"name": "a"}]
    assert codec.decode(codec.encode([WithOwnDump(name="a"), WithRoot("a")])) == [{"n": "a"}, "a"]


@given(JSON | st.binary())
def test_every_value_comes_back(value: object) -> None:
    found = codec.decode(codec.encode(value))
    assert found == value
    assert type(found) is type(value)


@given(st.text("ab<>/", min_size=COMPRESSION_THRESHOLD) | st.binary(min_size=COMPRESSION_THRESHOLD))
def test_every_large_value_comes_back_and_compression_never_costs(value: str | bytes) -> None:
    stored = codec.encode(value)
    assert codec.decode(stored) == value
    assert len(stored) <= len(value) + 4


@given(st.binary() | st.binary().map(b"\xc1".__add__) | st.binary().map(b"\xc1\x80".__add__))
def test_decoding_never_fails_in_another_way(stored: bytes) -> None:
    for as_type in (None, Page, bytes, list[Page]):
        try:
            codec.decode(stored, as_type)
        except UndecodableValueError as error:
            assert str(error)  # noqa: PT017  (success is fine too)


@given(JSON | st.binary(), st.data())
def test_a_damaged_value_never_fails_in_another_way(value: object, data: st.DataObject) -> None:
    stored = bytearray(codec.encode(value))
    position = data.draw(st.integers(0, len(stored) - 1))
    stored[position] ^= data.draw(st.integers(1, 255))
    try:
        codec.decode(bytes(stored))
    except UndecodableValueError as error:
        assert str(error)  # noqa: PT017  (a flipped bit in a text is a text)


@given(JSON)
def test_a_truncated_compressed_value_is_undecodable(value: object) -> None:
    stored = codec.encode(["x" * 5000, value])
    assert stored[1] == 0x80
    for end in (1, 2, 3, len(stored) // 2, len(stored) - 1):
        with pytest.raises(UndecodableValueError):
            codec.decode(stored[:end])


def test_a_model_with_aliases_comes_back() -> None:
    page = Page(readTitle="Home", parts=(1, 2))
    assert codec.decode(codec.encode(page), Page) == page
    assert codec.decode(codec.encode({"pages": [page]}), dict[str, list[Page]]) == {"pages": [page]}


def test_an_integer_is_what_redis_counts_with() -> None:
    assert codec.encode(-12) == b"-12"
    assert codec.encode(Colour.RED) == b"1"
    assert codec.decode(b"12", int) == 12
    for foreign in (b"012", b"+1", b"-0", b"1.0", b" 1", b"1\n", b"9" * 20):
        with pytest.raises(UndecodableValueError):
            codec.decode(foreign)


@pytest.mark.parametrize("declared", [None, 10, MAXIMUM_VALUE_SIZE + 1, 2**40])
def test_a_bomb_is_refused_before_it_goes_off(declared: int | None) -> None:
    """A thousand-fold frame, with no size, a size that is a lie, and sizes over the limit."""
    bomb = zstandard.ZstdCompressor(write_content_size=False).compress(b"\0" * (64 * 2**20))
    if declared is not None:
        bomb = _declare(bomb, declared)
    with pytest.raises(UndecodableValueError):
        codec.decode(b"\xc1\x80" + bomb)


def _declare(frame: bytes, size: int) -> bytes:
    """The frame with another header (RFC 8878, 3.1.1.1): eight bytes of size, then its window."""
    window = frame[5:6]
    return frame[:4] + bytes([0b11000000]) + window + struct.pack("<Q", size) + frame[6:]


def test_a_frame_at_the_limit_is_read_and_one_of_a_larger_codec_is_not() -> None:
    value = b"\0" * MAXIMUM_VALUE_SIZE
    assert codec.decode(codec.encode(value)) == value
    larger = Codec(maximum_size=MAXIMUM_VALUE_SIZE + 1).encode(value + b"\0")
    with pytest.raises(UndecodableValueError):
        codec.decode(larger)


def test_two_frames_are_not_one() -> None:
    frame = zstandard.ZstdCompressor().compress(b"[1]")
    assert codec.decode(b"\xc1\x80" + frame) == [1]
    with pytest.raises(UndecodableValueError):
        codec.decode(b"\xc1\x80" + frame + frame)


def test_pickle_is_never_read() -> None:
    with pytest.raises(UndecodableValueError):
        codec.decode(b"\x80\x04cos\nsystem\n(S'true'\ntR.")


def test_reasons_do_not_quote_the_value() -> None:
    stored = codec.encode({"title": ["private"]})
    with pytest.raises(UndecodableValueError) as failure:
        codec.decode(stored, Page)
    assert str(failure.value) == "it does not fit Page"
    assert not isinstance(failure.value.__cause__, ValidationError)


def test_deep_nesting_and_cyclic_models_are_refused() -> None:
    class Node(BaseModel):
        next: Node | None = None

    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    node = Node()
    node.next = node
    for value in (deep, node, [{"node": node}]):
        with pytest.raises(UnencodableValueError):
            codec.encode(value)
    with pytest.raises(UndecodableValueError):
        codec.decode(b"\xc1\x00" + b"[" * 100_000)


@given(st.sampled_from([math.nan, math.inf, -math.inf]), st.integers(0, 5))
def test_no_infinity_hides_inside(number: float, depth: int) -> None:
    value: object = number
    for _ in range(depth):
        value = [{"a": (1, value)}, None]
    with pytest.raises(UnencodableValueError):
        codec.encode(value)
