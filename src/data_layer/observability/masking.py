"""Replaces secrets in events, whatever the events hold, with bounded work."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from itertools import islice
from pathlib import PurePath
from typing import TYPE_CHECKING, Any
from uuid import UUID

from data_layer.observability.secret_names import is_measure, is_secret_name
from data_layer.observability.secret_patterns import MASK, mask_patterns

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_SHORTEST_SECRET = 6
_LONGEST_TEXT = 16_384
# So much more is searched and then dropped: a secret that is cut in two at the end would not be recognised.
_OVERLAP = 4_096
_LONGEST_BYTES = 1_024
_DEPTH = 8
_ITEMS = 100
_VALUES = 1_000
_CHARACTERS = 131_072
_LEFT_OUT = "…"

_PLAIN = frozenset({int, float, bool, type(None)})
_LARGEST_NUMBER = 2**63
_SHORT_TEXT = frozenset({UUID, datetime, date, time, timedelta, Decimal})
_CONTAINERS = (dict, list, tuple, set, frozenset)
_REMEMBERED_NAMES = 1_024


class Masker:
    """Knows the secrets of this process and what secrets look like."""

    def __init__(self, secrets: Sequence[str] = ()) -> None:
        self._secrets = tuple(secrets)
        self._harmless_names: set[str] = set()

    def event(self, event: dict[str, Any]) -> dict[str, Any]:
        """A copy made of JSON's types only, without secrets."""
        return _Walk(self).fields(event.items(), _DEPTH)

    def text(self, text: str) -> str:
        """The text without secrets; of a very long one the beginning."""
        if len(text) <= _LONGEST_TEXT:
            return self._mask(text)
        beginning = self._mask(text[: _LONGEST_TEXT + _OVERLAP])[:-_OVERLAP]
        return f"{beginning}{_LEFT_OUT} ({len(text)} characters)"

    def name(self, name: str) -> str:
        """The name of a field without secrets. There are few names, so the harmless ones are remembered."""
        if name in self._harmless_names:
            return name
        masked = self.text(name)
        if masked == name and len(self._harmless_names) < _REMEMBERED_NAMES:
            self._harmless_names.add(name)
        return masked

    def _mask(self, text: str) -> str:
        if len(text) < _SHORTEST_SECRET:
            return text
        for secret in self._secrets:
            if secret in text:
                text = text.replace(secret, MASK)
        return mask_patterns(text)


class _Walk:
    """One pass through one event; what exceeds its budget is left out."""

    __slots__ = ("_characters", "_masker", "_values")

    def __init__(self, masker: Masker) -> None:
        self._masker = masker
        self._values = _VALUES
        self._characters = _CHARACTERS

    def fields(self, items: Iterable[tuple[Any, Any]], depth: int) -> dict[str, Any]:
        return {self._name(name): self._field(name, value, depth) for name, value in islice(items, _ITEMS)}

    def _name(self, name: Any) -> str:
        return _encodable(self._masker.name(name) if type(name) is str else self._text(_read(name)))

    def _field(self, name: Any, value: Any, depth: int) -> Any:
        return MASK if _is_secret(name, value) else self._value(value, depth)

    def _value(self, value: Any, depth: int) -> Any:
        self._values -= 1
        if self._values < 0:
            return _LEFT_OUT
        if type(value) is str:
            return self._text(value)
        if type(value) in _PLAIN and not (type(value) is int and abs(value) >= _LARGEST_NUMBER):
            return value
        if type(value) in _SHORT_TEXT:
            return str(value)
        try:
            return self._compound(value, depth - 1)
        except Exception:  # noqa: BLE001  (foreign code, or a dictionary that another thread is changing)
            return _unreadable(value)

    def _compound(self, value: Any, depth: int) -> Any:
        if isinstance(value, Enum):
            return self._value(value.value, depth)
        if isinstance(value, _CONTAINERS):
            return self._container(value, depth) if depth > 0 else _LEFT_OUT
        return self._text(_read(value))

    def _container(self, value: Any, depth: int) -> Any:
        if isinstance(value, dict):
            return self.fields(value.items(), depth)
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return self.fields(zip(value._fields, value, strict=False), depth)
        if isinstance(value, (tuple, list)) and len(value) == 2 and _is_secret(*value):
            return [self._value(value[0], depth), MASK]  # A header, as ASGI writes it.
        return [self._value(item, depth) for item in islice(value, _ITEMS)]

    def _text(self, text: str) -> str:
        if self._characters <= 0:
            return _LEFT_OUT
        masked = self._masker.text(text)
        self._characters -= len(masked)
        return _encodable(masked)


def _encodable(text: str) -> str:
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()


def _is_secret(name: Any, value: Any) -> bool:
    # By type: isinstance asks the value, which can be anything.
    if type(value) in {type(None), bool} or not issubclass(type(name), (str, bytes)):
        return False
    text = name if issubclass(type(name), str) else name[:_LONGEST_BYTES].decode(errors="replace")
    return is_secret_name(text) and not (type(value) in {int, float} and is_measure(text))


def _read(value: Any) -> str:
    try:
        if isinstance(value, str):
            return str.__str__(value)
        if isinstance(value, (bytes, bytearray, memoryview)):
            return _read_bytes(value)
        return str(value) if isinstance(value, PurePath) else repr(value)
    except Exception:  # noqa: BLE001  (foreign code)
        return _unreadable(value)


def _read_bytes(value: bytes | bytearray | memoryview) -> str:
    size = len(value)
    return f"<{size} bytes>" if size > _LONGEST_BYTES else bytes(value).decode(errors="backslashreplace")


def _unreadable(value: Any) -> str:
    return f"<{type(value).__name__}: unreadable>"
