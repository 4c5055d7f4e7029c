"""What columns hold: texts, choices and JSON, and what PostgreSQL cannot store in one.

A JSON value is copied when it is assigned, so a column never shares a dict or list with its caller or with another row,
and everything that a jsonb column could not return unchanged is refused there, with the path to it:

- keys are text: ``{1: …, "1": …}`` would lose an entry;
- numbers are integers of 64 bits and finite floats. jsonb keeps numbers as decimals, so a float from 2^53 on is stored
  as the integer that it is;
- no tuples, sets, times or other types, which would come back as something else;
- no NUL and no lone surrogates, which PostgreSQL cannot store;
- at most 100 levels and ``MAXIMUM_TEXT_SIZE`` bytes.

What is read back is a `JsonObject` or `JsonList` of such values: an ordinary dict or list that checks what is put into
it and marks its row as changed.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Iterable
from enum import StrEnum
from typing import Any, Self, SupportsIndex, TypeVar

import idna
from sqlalchemy import Dialect, Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.mutable import MutableDict, MutableList
from sqlalchemy.types import TypeDecorator
from typing_extensions import override

from data_layer.errors import InvalidTextError, InvalidValueError, ValueTooLongError

_ADDRESS = re.compile(r"[^@\s]+@[^@\s]+")

MAXIMUM_TEXT_SIZE = 5 * 2**20
"""Largest text or JSON value of one column, in bytes of UTF-8: 5 MiB."""

WHITE_SPACE = "\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000\ufeff" + "".join(
    map(chr, range(0x2000, 0x200B))
)
"""What applications strip from the ends of a code: Python's white space, and the byte order mark of JavaScript's."""

DEEPEST = 100
"""How many dicts and lists may be inside each other. orjson, which fills the cache, and pydantic have limits too."""

_LARGEST = 2**64
_SMALLEST = -(2**63)
_EXACT = 2**53


def check_text(name: str, value: str, *, field: str | None = None) -> None:
    """Refuse what PostgreSQL cannot store in a text: NUL, lone surrogates, and more than 5 MiB.

    Args:
        name: what the error calls the text.
        value: the text.
        field: the column, where the text is only a part of it.

    Raises:
        InvalidTextError: for NUL and lone surrogates.
        ValueTooLongError: over ``MAXIMUM_TEXT_SIZE``.
    """
    field = field or name
    if "\0" in value:
        raise InvalidTextError(
            f"{_shown(name)} holds a NUL character, which PostgreSQL cannot store; remove it", field=field
        )
    try:
        size = len(value) if value.isascii() else len(value.encode())
    except UnicodeEncodeError:
        raise InvalidTextError(
            f"{_shown(name)} holds half a surrogate pair, which is not a character; decode the text correctly",
            field=field,
        ) from None
    if size > MAXIMUM_TEXT_SIZE:
        raise ValueTooLongError(
            f"{_shown(name)} may have {MAXIMUM_TEXT_SIZE} bytes at most; this one has {size}. "
            "Keep large content in storage",
            field=field,
        )


def _shown(name: str) -> str:
    return name.encode(errors="replace").decode().replace("\0", "?")


def normalize_email(address: str, *, field: str = "email") -> str:
    """Return the one spelling of an e-mail address, so that letter case and encodings make no second account.

    Lower case, composed (NFC), the domain in Unicode (RFC 5891 and UTS 46). Computed here and compared byte for byte,
    because ``lower()`` of a database depends on its collation: in a Turkish one ``I`` and ``i`` are different letters.
    Whether an address can receive mail is another question; ``admin@localhost`` has a spelling, too.

    Raises:
        InvalidValueError: for what is not an address.
    """
    text = unicodedata.normalize("NFC", address.strip())
    if not _ADDRESS.fullmatch(text) or not text.isprintable():
        raise InvalidValueError(f"{field} must be an e-mail address, such as name@example.com", field=field)
    local, _, domain = text.rpartition("@")
    try:
        domain = idna.decode(idna.encode(domain, uts46=True))
    except (idna.IDNAError, UnicodeError):
        domain = domain.lower()  # A name of a private network, such as one with an underscore.
    return unicodedata.normalize("NFC", f"{local.lower()}@{domain}")


class Choice(TypeDecorator[StrEnum]):
    """A value of an enumeration, stored as text; the table gets a CHECK constraint named after the column."""

    impl = Text
    cache_ok = True

    def __init__(self, values: type[StrEnum]) -> None:
        super().__init__()
        self.values = values

    @override
    def process_bind_param(self, value: StrEnum | None, dialect: Dialect) -> str | None:
        return None if value is None else str(value)

    @override
    def process_result_value(self, value: str | None, dialect: Dialect) -> StrEnum | None:
        return None if value is None else self.values(value)


class _Node:
    """What a container inside a column knows: the container that it is in, and under which key or index."""

    _owner: JsonObject | JsonList | None = None
    _step: str | int = "value"
    _is_touched = False

    def _own(self, step: str | int, value: Any) -> Any:
        """Return a checked copy of a value that is put in here."""
        return _tracked(step, value, self, DEEPEST - _depth(self))

    def changed(self) -> None:
        """Mark the row as changed."""
        self._is_touched = True
        if self._owner is None:
            super().changed()  # type: ignore[misc]  # Of Mutable, whose subclasses this is mixed into.
        else:
            self._owner.changed()


class JsonObject(_Node, MutableDict[str, Any]):
    """A JSON object of a row, or inside of one."""

    @classmethod
    @override
    def coerce(cls, key: str, value: Any) -> JsonObject:
        return value if isinstance(value, JsonObject) else json_object_of(key, value)

    @override
    def __setitem__(self, key: str, value: Any) -> None:
        self.update({key: value})

    @override
    def setdefault(self, key: str, default: Any = None, /) -> Any:
        if key not in self:
            self[key] = default
        return self[key]

    @override
    def update(self, *others: Any, **named: Any) -> None:
        values = dict(*others, **named)
        dict.update(self, {_key(self, key): self._own(key, value) for key, value in values.items()})
        self.changed()

    @override
    def __ior__(self, other: Any) -> Self:  # type: ignore[override]  # dict has more overloads.
        self.update(other)
        return self


class JsonList(_Node, MutableList[Any]):
    """A JSON list inside of a row's value."""

    @override
    def __setitem__(self, index: SupportsIndex | slice, value: Any) -> None:
        if isinstance(index, slice):
            list.__setitem__(self, index, [self._own(number, item) for number, item in enumerate(value)])
        else:
            list.__setitem__(self, index, self._own(index.__index__(), value))
        self.changed()

    @override
    def append(self, x: Any) -> None:
        self.extend([x])

    @override
    def extend(self, x: Iterable[Any]) -> None:
        list.extend(self, [self._own(number, value) for number, value in enumerate(list(x), len(self))])
        self.changed()

    @override
    def insert(self, i: SupportsIndex, x: Any) -> None:
        list.insert(self, i, self._own(i.__index__(), x))
        self.changed()

    @override
    def __iadd__(self, x: Iterable[Any]) -> Self:
        self.extend(x)
        return self

    @override
    def __imul__(self, count: SupportsIndex) -> Self:
        self[:] = list(self) * count
        return self


class TextList(JsonList):
    """A JSON list of a row that holds texts only, such as tags."""

    @classmethod
    @override
    def coerce(cls, key: str, value: Any) -> TextList:
        return value if isinstance(value, TextList) else text_list_of(key, value)

    @override
    def _own(self, step: str | int, value: Any) -> Any:
        if not isinstance(value, str):
            raise _refused(self, step, f"must be text, not {_described(value)}")
        return super()._own(step, value)


Container = JsonObject | JsonList
C = TypeVar("C", JsonObject, JsonList, TextList)


class Json(TypeDecorator[Any]):
    """A jsonb column that holds an object, or a list of texts.

    A row that was given another shape by hand is read as empty, so that it does not fail every list that shows it.

    Args:
        container: ``JsonObject`` or ``TextList``.
    """

    impl = JSONB
    cache_ok = True

    def __init__(self, container: type[Container]) -> None:
        super().__init__()
        self.container = container
        self.field = "value"

    @override
    def coerce_compared_value(self, op: Any, value: Any) -> Any:
        return self.impl_instance.coerce_compared_value(op, value)

    @override
    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        # Each part was checked when it was put inside; only together they can have become too large.
        if getattr(value, "_is_touched", False):
            check_text(self.field, json.dumps(value, ensure_ascii=False))
        return value

    @override
    def process_result_value(self, value: Any, dialect: Dialect) -> Container:
        if self.container is TextList:
            texts = _made(TextList(), self.field, None)
            list.extend(texts, (item for item in value if isinstance(item, str)) if isinstance(value, list) else ())
            return texts
        loaded: JsonObject = _loaded(self.field, value if isinstance(value, dict) else {}, None)
        return loaded


def json_object_of(name: str, value: Any) -> JsonObject:
    """Copy a dict for a column.

    Raises:
        InvalidValueError: for what JSON cannot carry unchanged; the message has the path to it.
        InvalidTextError: for NUL and lone surrogates.
        ValueTooLongError: over ``MAXIMUM_TEXT_SIZE``.
    """
    if not isinstance(value, dict):
        raise InvalidValueError(f"{name} must be a JSON object, not {_described(value)}", field=name)
    copied: JsonObject = _tracked(name, value, None, DEEPEST) if value else _made(JsonObject(), name, None)
    _check_size(name, copied)
    return copied


def text_list_of(name: str, value: Any) -> TextList:
    """Copy a list of texts for a column.

    Raises:
        InvalidValueError: when it is not a list, or holds anything but text.
        InvalidTextError: for NUL and lone surrogates.
        ValueTooLongError: over ``MAXIMUM_TEXT_SIZE``.
    """
    if not isinstance(value, list):
        raise InvalidValueError(f"{name} must be a list of texts, not {_described(value)}", field=name)
    copied = _made(TextList(), name, None)
    copied.extend(value)
    _check_size(name, copied)
    return copied


def _check_size(name: str, container: Container) -> None:
    if container:
        check_text(name, json.dumps(container, ensure_ascii=False))
    container._is_touched = False  # noqa: SLF001  (made here)


def _tracked(step: str | int, value: Any, owner: Any, levels: int) -> Any:
    """Return a checked copy of a JSON value, whose containers report changes to their owner."""
    match value:
        case None | bool():
            return value
        case str():
            return _text(owner, step, value)
        case int():
            return _integer(owner, step, value)
        case float():
            return _float(owner, step, value)
        case dict() | list() if not levels:
            raise _refused(owner, step, f"is too deep: {DEEPEST} levels are the most")
        case dict():
            made = _made(JsonObject(), step, owner)
            items = {_key(made, key): _tracked(key, item, made, levels - 1) for key, item in value.items()}
            dict.update(made, items)
            return made
        case list():
            listed = _made(JsonList(), step, owner)
            list.extend(listed, [_tracked(number, item, listed, levels - 1) for number, item in enumerate(value)])
            return listed
    raise _refused(owner, step, f"is {_described(value)}, which JSON cannot carry unchanged")


def _loaded(step: str | int, value: Any, owner: Any) -> Any:
    """Return a value as PostgreSQL sent it, with containers that report changes."""
    if isinstance(value, dict):
        made = _made(JsonObject(), step, owner)
        if value:
            dict.update(made, {key: _loaded(key, item, made) for key, item in value.items()})
        return made
    if isinstance(value, list):
        listed = _made(JsonList(), step, owner)
        list.extend(listed, [_loaded(number, item, listed) for number, item in enumerate(value)])
        return listed
    return value


def _made(container: C, step: str | int, owner: Any) -> C:
    container._step, container._owner = step, owner  # noqa: SLF001  (made here)
    return container


def _depth(node: _Node) -> int:
    depth = 1
    while node._owner is not None:  # noqa: SLF001  (its own kind)
        node, depth = node._owner, depth + 1  # noqa: SLF001
    return depth


def _key(owner: Any, key: Any) -> str:
    if not isinstance(key, str):
        raise _refused(owner, str(key)[:50], "has a key that is not text, as keys of JSON objects are")
    return _text(owner, key, key)


def _text(owner: Any, step: str | int, value: str) -> str:
    if "\0" in value or not value.isascii():
        path = _path(owner, step)
        check_text(path, value, field=_field(path))
    return str.__str__(value)


def _integer(owner: Any, step: str | int, value: int) -> int:
    if not _SMALLEST <= value < _LARGEST:
        raise _refused(owner, step, "is an integer of more than 64 bits; store it as text")
    return int(value)


def _float(owner: Any, step: str | int, value: float) -> float | int:
    if not math.isfinite(value):
        raise _refused(owner, step, f"is {value!r}, which JSON cannot carry")
    return float(value) if abs(value) < _EXACT else _integer(owner, step, int(value))


def _described(value: Any) -> str:
    return "None" if value is None else type(value).__name__


def _path(owner: Any, step: str | int) -> str:
    steps = [step]
    while owner is not None:
        steps.append(owner._step)  # noqa: SLF001  (its own kind)
        owner = owner._owner  # noqa: SLF001
    first, *others = (str(step)[:50] if isinstance(step, str) else step for step in reversed(steps))
    return str(first) + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in others[:10])


def _field(path: str) -> str:
    return path.partition(".")[0].partition("[")[0]


def _refused(owner: Any, step: str | int, reason: str) -> InvalidValueError:
    path = _path(owner, step)
    return InvalidValueError(f"{path.encode(errors='replace').decode()} {reason}", field=_field(path))
