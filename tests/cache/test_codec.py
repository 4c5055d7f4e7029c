from __future__ import annotations

import enum
import math
import struct

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, ValidationError

from data_layer.cache.codec import (
    COMPRESSION_THRESHOLD,
    MAXIMUM_VALUE_SIZE,
    Codec,
    UndecodableValueError,
    UnencodableValueError,
)

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
