"""Values to bytes and back: JSON or raw bytes in a small versioned envelope, compressed where it pays. Never pickle.

An envelope is two bytes and the payload. The first byte, 0xC1, occurs in no UTF-8 text, so what another program
wrote is recognised; it is also the version. The second says what the payload is (0 JSON, 1 bytes; plus 0x80 when it
is compressed). A whole number of 64 bits has no envelope: it is Redis's own integer, so that INCRBY works on it.

The kinds 2, 3 and 4 are markers, not values: the lease of the caller that loads the value, the intents of writers about
to change it, and a lock. ``markers.py`` says what is in them; for readers of values the key is absent.
"""

from __future__ import annotations

import marshal
import math
import re
from functools import lru_cache
from typing import Any

import orjson
import zstandard
from pydantic import BaseModel, TypeAdapter

from data_layer.cache.objects import plain_fields

MAXIMUM_VALUE_SIZE = 8 * 2**20
COMPRESSION_THRESHOLD = 1024
WORTHWHILE_RATIO = 0.9
LOWEST_INTEGER, HIGHEST_INTEGER = -(2**63), 2**63 - 1

VERSION = b"\xc1"
LEASE, INTENTS, LOCK = 0x02, 0x03, 0x04

_HEADER_SIZE = 2
_JSON, _BYTES = 0x00, 0x01
_BARE_INTEGER = -1
_PLAIN_JSON = VERSION + bytes((_JSON,))
_MARKERS = tuple(VERSION + bytes((kind,)) for kind in (LEASE, INTENTS, LOCK))
_NULL = b"null"
_MARSHAL_VERSION = 2  # Later ones also look for objects that occur twice.
_COMPRESSED = 0x80
_UNCHANGED = frozenset({str, int, bool, type(None)})
_INTEGER = re.compile(rb"0|-?[1-9][0-9]{0,18}")


class UnencodableValueError(Exception):
    """The value cannot be carried; the text says why and fits behind a colon."""


class UndecodableValueError(Exception):
    """The stored bytes are not a value of this version or of the type that was asked for."""


class Codec:
    """Encodes and decodes values up to a maximum size, in bytes before compression.

    ``compressed_values`` and ``compression_saved`` count what was encoded smaller, and the bytes that this saved.
    """

    def __init__(self, maximum_size: int = MAXIMUM_VALUE_SIZE) -> None:
        self._maximum_size = maximum_size
        self._compressor = zstandard.ZstdCompressor()
        self._decompressor = zstandard.ZstdDecompressor()
        self.compressed_values = 0
        self.compression_saved = 0

    def encode(self, value: object) -> bytes:
        """The bytes for Redis.

        Raises:
            UnencodableValueError: when JSON cannot carry the value, or it is too large.
        """
        return self.seal(*self.write(value))

    def write(self, value: object) -> tuple[int, bytes]:
        """The kind of a value and its payload.

        Raises:
            UnencodableValueError: when JSON cannot carry the value, or it is too large.
        """
        if isinstance(value, int) and not isinstance(value, bool) and LOWEST_INTEGER <= value <= HIGHEST_INTEGER:
            return _BARE_INTEGER, b"%d" % value
        if isinstance(value, bytes | bytearray | memoryview):
            kind, payload = _BYTES, bytes(value)
        else:
            kind, payload = _JSON, _to_json(value)
        if len(payload) > self._maximum_size:
            raise UnencodableValueError(f"it has {len(payload)} bytes, and at most {self._maximum_size} are allowed")
        return kind, payload

    def decode(self, stored: bytes, as_type: Any = None) -> Any:
        """The value, as the type if one is given.

        Raises:
            UndecodableValueError: when the bytes are foreign, of an unknown version, corrupt, too large once
                decompressed, or do not fit the type.
        """
        if as_type is None and stored.startswith(_PLAIN_JSON):  # Nearly always, and many at once in get_many.
            try:
                return orjson.loads(stored[_HEADER_SIZE:])
            except ValueError as error:
                raise UndecodableValueError(_explain(error, as_type)) from None
        return self.read(*self.unseal(stored), as_type)

    def read(self, kind: int, payload: bytes, as_type: Any = None) -> Any:
        """The value in a payload, as the type if one is given; a stored None is None whatever the type.

        Raises:
            UndecodableValueError: when the payload is corrupt or does not fit the type.
        """
        try:
            if as_type is not None and not (kind == _JSON and payload == _NULL):
                return _as_type(kind, payload, as_type)
            return payload if kind == _BYTES else orjson.loads(payload)
        except ValueError as error:
            raise UndecodableValueError(_explain(error, as_type)) from None

    def seal(self, kind: int, payload: bytes) -> bytes:
        """The bytes for Redis, compressed where it pays."""
        if kind == _BARE_INTEGER:
            return payload
        if len(payload) >= COMPRESSION_THRESHOLD:
            compressed = self._compressor.compress(payload)
            if len(compressed) <= len(payload) * WORTHWHILE_RATIO:
                self.compressed_values += 1
                self.compression_saved += len(payload) - len(compressed)
                return VERSION + bytes((kind | _COMPRESSED,)) + compressed
        return self.seal_plainly(kind, payload)

    def seal_plainly(self, kind: int, payload: bytes) -> bytes:
        """The envelope without compression."""
        return VERSION + bytes((kind,)) + payload

    def unseal(self, stored: bytes) -> tuple[int, bytes]:
        """The kind of a value and its payload, decompressed.

        Raises:
            UndecodableValueError: when the bytes are foreign, of an unknown version, or too large once decompressed.
        """
        if not stored.startswith(VERSION):
            if _INTEGER.fullmatch(stored):
                return _JSON, stored
            raise UndecodableValueError("it was written by another program or version")
        if len(stored) < _HEADER_SIZE or stored[1] & ~_COMPRESSED not in {_JSON, _BYTES}:
            raise UndecodableValueError("its kind is unknown to this version")
        payload = stored[_HEADER_SIZE:]
        return stored[1] & ~_COMPRESSED, self._decompress(payload) if stored[1] & _COMPRESSED else payload

    def _decompress(self, payload: bytes) -> bytes:
        try:
            # The size is checked first because zstandard allocates whatever the frame declares.
            size = zstandard.frame_content_size(payload)
            if not 0 <= size <= self._maximum_size:
                raise UndecodableValueError("its compressed frame declares no size or one over the limit")
            return self._decompressor.decompress(payload, allow_extra_data=False)
        except zstandard.ZstdError:
            raise UndecodableValueError("its compressed frame is broken") from None


def is_marker(stored: bytes) -> bool:
    """Whether a marker is stored at a key: for readers the key is absent."""
    return stored.startswith(_MARKERS)


def _to_json(value: object) -> bytes:
    dumped: list[object] = []

    def dump_model(item: object) -> object:
        if not isinstance(item, BaseModel):
            raise TypeError(f"JSON cannot carry {type(item).__name__}")
        if (fields := plain_fields(item)) is not None:
            return fields
        # By name, because an alias may differ between validation and serialization.
        plain = item.model_dump(mode="json", by_alias=False, round_trip=True)
        dumped.append(plain)
        return plain

    try:
        payload = orjson.dumps(value, default=dump_model)
    except (TypeError, ValueError, RecursionError) as error:
        raise UnencodableValueError(str(error.__cause__ or error)) from None
    if dumped or _NULL in payload or not _is_plain(value):
        # After orjson, which has refused cycles, so that this walk ends.
        _refuse_what_would_change([value, *dumped])
    return payload


def _is_plain(value: Any) -> bool:
    """Whether only built-in types are in a value, and no subclass of them.

    marshal refuses everything else, and looks at a value five times as fast as code in Python. What orjson takes of the
    rest comes back equal, but for floats that become null.
    """
    try:
        marshal.dumps(value, _MARSHAL_VERSION)
    except ValueError:
        return False
    return True


def _refuse_what_would_change(items: list[object]) -> None:
    """What orjson accepts but would not come back equal: NaN becomes null, a UUID or a date becomes text."""
    while items:
        item = items.pop()
        if type(item) in _UNCHANGED:  # Nearly always, and quicker than the questions below.
            continue
        if isinstance(item, dict):
            items.extend([value for value in item.values() if type(value) not in _UNCHANGED])
        elif isinstance(item, list | tuple):
            items.extend([value for value in item if type(value) not in _UNCHANGED])
        elif isinstance(item, float):
            if not math.isfinite(item):
                raise UnencodableValueError(f"JSON cannot carry {item}")
        elif not isinstance(item, str | int | BaseModel):
            raise UnencodableValueError(
                f"JSON cannot carry {type(item).__name__}; convert it, or store a pydantic model"
            )


def _as_type(kind: int, payload: bytes, as_type: Any) -> Any:
    adapter = _adapter(as_type)
    if kind == _BYTES:
        return adapter.validate_python(payload)
    return adapter.validate_json(payload, by_alias=False, by_name=True)


@lru_cache(maxsize=256)
def _adapter(as_type: Any) -> TypeAdapter[Any]:
    return TypeAdapter(as_type)


def _explain(error: ValueError, as_type: Any) -> str:
    """Why, without the value: pydantic and orjson quote what they read, and that may be somebody's data."""
    if as_type is None or isinstance(error, orjson.JSONDecodeError):
        return "its payload is not JSON"
    return f"it does not fit {getattr(as_type, '__name__', as_type)}"
