"""The JSON of answers, written once for as long as the same values are answered."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import NamedTuple

from data_layer.schemas.base import Value

Write = Callable[[Value], bytes]

_CAPACITY = 4 * 2**20
_OVERHEAD = 4 * 1024
"""Bytes that an entry counts for beside its JSON: its value lives as long."""
_LARGEST_SHARE = 8


class _Written(NamedTuple):
    value: Value
    body: bytes


class WrittenAnswers:
    """What was written lately.

    Nobody can change a value, and the cache hands the same objects to all its readers (``schemas.base``). So a value
    whose fields are the very objects of one before has the same JSON. An entry holds its value, so that no other object
    gets the id of one in it; the entries that were used longest ago are dropped first.

    Args:
        capacity: bytes of JSON.
    """

    def __init__(self, capacity: int = _CAPACITY) -> None:
        self._capacity = capacity
        self._size = 0
        self._entries: OrderedDict[Hashable, _Written] = OrderedDict()

    def json(self, value: Value, write: Write) -> bytes:
        """Return the JSON of a value.

        Args:
            value: what is answered.
            write: makes the JSON; always the same for values of one type.
        """
        key = (type(value), *map(id, vars(value).values()))
        found = self._entries.get(key)
        if found is not None:
            self._entries.move_to_end(key)
            return found.body
        body = write(value)
        if len(body) <= self._capacity // _LARGEST_SHARE:
            self._keep(key, _Written(value, body))
        return body

    def _keep(self, key: Hashable, written: _Written) -> None:
        self._entries[key] = written
        self._size += len(written.body) + _OVERHEAD
        while self._size > self._capacity:
            _, dropped = self._entries.popitem(last=False)
            self._size -= len(dropped.body) + _OVERHEAD
