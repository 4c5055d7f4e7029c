"""What is of another type than it must be is refused before anything happens, with the name of the argument.

Type checkers see most of it, but not a value that came from outside.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from data_layer.errors import InvalidStorageKeyError, InvalidValueError

_LARGEST = 2**63 - 1
_LONGEST = timedelta(days=365_000)


def check_text(value: object, *, field: str) -> str:
    """The value itself, when it is a text; of a subclass, such as a marked-up text, its characters.

    Raises:
        InvalidValueError: it is something else.
    """
    if not isinstance(value, str):
        raise InvalidValueError(f"{field} must be text, not {type(value).__name__}", field=field)
    return str.__str__(value)


def check_integer(value: object, *, field: str) -> int:
    """The value itself, when it is a number of bytes.

    Raises:
        InvalidValueError: it is negative, has more than 63 bits, or is something else.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _LARGEST:
        raise InvalidValueError(f"{field} must be a number of bytes, 0 or more", field=field)
    return value


def check_flag(value: object, *, field: str) -> bool:
    """The value itself, when it is True or False.

    Raises:
        InvalidValueError: it is something else, of which nobody knows what it means.
    """
    if not isinstance(value, bool):
        raise InvalidValueError(f"{field} must be True or False, not {type(value).__name__}", field=field)
    return value


def check_duration(value: object, shortest: timedelta, longest: timedelta, *, field: str) -> timedelta:
    """The value itself, when it is a duration within limits.

    Raises:
        InvalidValueError: it is shorter, longer, or something else.
    """
    if not isinstance(value, timedelta) or not shortest <= value <= longest:
        raise InvalidValueError(f"{field} must be a timedelta from {shortest} to {longest}", field=field)
    return value


def check_age(value: object, *, field: str) -> timedelta:
    """The value itself, when it is a duration of a thousand years at most; a negative one reaches into the future.

    Raises:
        InvalidValueError: it is longer, or something else.
    """
    return check_duration(value, -_LONGEST, _LONGEST, field=field)


def check_handler(value: object, *, field: str) -> None:
    """See that it can be called.

    Raises:
        InvalidValueError: it cannot.
    """
    if not callable(value):
        raise InvalidValueError(f"{field} must be a function, not {type(value).__name__}", field=field)


def check_range(start: object, end: object) -> None:
    """See that both are limits of a range of bytes; that it has an end is not needed.

    Raises:
        InvalidValueError: one is negative or no integer.
    """
    check_integer(start, field="start")
    if end is not None:
        check_integer(end, field="end")


def check_keys(keys: Iterable[str]) -> list[str]:
    """The keys as a list; what each must be is another question.

    Raises:
        InvalidStorageKeyError: they are none, such as a single text, which would be taken for its characters.
    """
    if isinstance(keys, str | bytes) or not isinstance(keys, Iterable):
        raise InvalidStorageKeyError(f"The keys must be several texts, not {type(keys).__name__}")
    return list(keys)
