"""What this process has stored lately, with the values that the bytes mean: reading them back needs no decoding.

A change makes Redis inform every process, the one that stored it too, so the near copy has to read a value once more
after it was loaded. The bytes decide: those that are equal mean the same, no matter when they were stored.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from data_layer.cache.near import OVERHEAD, DecodedValue

_BYTES_OF_OBJECTS = 4
"""About how many bytes Python's objects take for each byte of their JSON."""


class RecentlyStored:
    """The values by their full keys; the oldest give way.

    Args:
        capacity: estimated bytes of memory; 0 remembers nothing.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._values: OrderedDict[bytes, DecodedValue] = OrderedDict()
        self._size = 0

    def add(self, key: bytes, decoded: DecodedValue) -> None:
        """Remember a value until others need the room. One that does not fit is not taken."""
        self._remove(key)
        if _size_of(decoded) > self.capacity:
            return
        self._values[key] = decoded
        self._size += _size_of(decoded)
        while self._size > self.capacity:
            self._remove(next(iter(self._values)))

    def find(self, key: bytes, stored: bytes, as_type: Any) -> DecodedValue | None:
        """What these bytes mean as this type, if they are those that were stored."""
        decoded = self._values.get(key)
        return decoded if decoded is not None and decoded.stored == stored and decoded.as_type == as_type else None

    def _remove(self, key: bytes) -> None:
        decoded = self._values.pop(key, None)
        if decoded is not None:
            self._size -= _size_of(decoded)


def _size_of(decoded: DecodedValue) -> int:
    """About how many bytes of memory it takes; most are never read back, so they are not weighed."""
    return OVERHEAD + len(decoded.stored) + _BYTES_OF_OBJECTS * decoded.payload_size
