"""The rules of single values, checked when an attribute is assigned, so that the error names the attribute."""

from __future__ import annotations

import ipaddress
import json
import re
from typing import TYPE_CHECKING, Any

from sqlalchemy import Column, Float, Integer, event, inspect
from sqlalchemy.dialects.postgresql import INET, JSONB
from sqlalchemy.types import String

from data_layer.entities.base import Choice, Entity
from data_layer.entities.enums import GenerationStatus
from data_layer.errors import IllegalStatusMoveError, InvalidTextError, InvalidValueError, ValueTooLongError

if TYPE_CHECKING:
    from collections.abc import Callable
    from enum import StrEnum

    from sqlalchemy.orm import QueryableAttribute

    Check = Callable[[str, Any], Any]

# In JSON text NUL is written as an escape, while an escaped backslash before "u0000" is harmless.
_ESCAPED_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+")

MAXIMUM_TEXT_SIZE = 5 * 2**20
"""Largest text or JSON value of one column, in bytes of UTF-8: 5 MiB."""


@event.listens_for(Entity, "attribute_instrument", propagate=True)
def _check_assignments(_: type[Entity], name: str, attribute: QueryableAttribute[Any]) -> None:
    column = getattr(getattr(attribute, "property", None), "columns", [None])[0]
    if not isinstance(column, Column):
        return
    check = _check_for(column)

    def on_set(target: Entity, value: Any, old: Any, _: Any) -> Any:
        if value is None:
            return None
        value = check(name, value)
        if type(value) is GenerationStatus:
            _check_move(target, value, old)
        return value

    event.listen(attribute, "set", on_set, retval=True)


def _check_for(column: Column[Any]) -> Check:
    check: Check = _accept
    match column.type:
        case _ if column.info.get("counter"):
            check = _refuse_counter
        case Choice() as choice:
            check = _choice_check(choice.values)
        case String() as text:
            check = _text_check(text.length, _FORMATS.get(column.info.get("format"), _accept))
        case JSONB():
            check = check_json
        case INET():
            check = _check_address
        case Integer() | Float() if "range" in column.info:
            check = _range_check(*column.info["range"])
    return check


def _accept(_: str, value: Any) -> Any:
    return value


def _refuse_counter(name: str, _: Any) -> Any:
    raise InvalidValueError(f"{name} is a counter: change it with the repository's increment()", field=name)


def _choice_check(values: type[StrEnum]) -> Check:
    def check(name: str, value: Any) -> Any:
        try:
            return values(value)
        except ValueError:
            raise InvalidValueError(f"{name} must be one of: {', '.join(values)}", field=name) from None

    return check


def _text_check(length: int | None, check_format: Check) -> Check:
    def check(name: str, value: Any) -> Any:
        if not isinstance(value, str):
            raise InvalidValueError(f"{name} must be text, not {type(value).__name__}", field=name)
        if length is not None and len(value) > length:
            raise ValueTooLongError(
                f"{name} may have {length} characters at most; this one has {len(value)}", field=name
            )
        check_text(name, value)
        return check_format(name, value)

    return check


def _check_email(name: str, value: str) -> str:
    if not _EMAIL.fullmatch(value):
        raise InvalidValueError(f"{name} must be an e-mail address, such as name@example.com", field=name)
    return value


def _check_image_reference(name: str, value: str) -> str:
    if value[:5].lower() == "data:":
        raise InvalidValueError(f"{name} must be a storage key or a URL: upload the bytes to storage first", field=name)
    return value


_FORMATS: dict[Any, Check] = {"email": _check_email, "image_reference": _check_image_reference}


def check_text(name: str, value: str) -> None:
    """Refuse what PostgreSQL cannot store in a text: NUL, lone surrogates, and more than 5 MiB.

    Raises:
        InvalidTextError: for NUL and lone surrogates.
        ValueTooLongError: over ``MAXIMUM_TEXT_SIZE``.
    """
    if "\0" in value:
        raise InvalidTextError(f"{name} holds a NUL character, which PostgreSQL cannot store; remove it", field=name)
    try:
        size = len(value) if value.isascii() else len(value.encode())
    except UnicodeEncodeError:
        raise InvalidTextError(
            f"{name} holds half a surrogate pair, which is no character; decode the text correctly", field=name
        ) from None
    if size > MAXIMUM_TEXT_SIZE:
        raise ValueTooLongError(
            f"{name} may have {MAXIMUM_TEXT_SIZE} bytes at most; this one has {size}. Keep large content in storage",
            field=name,
        )


def check_json(name: str, value: Any) -> Any:
    """Refuse what a jsonb column cannot carry faithfully.

    Raises:
        InvalidValueError: for values outside JSON, NaN and infinity.
        InvalidTextError: for NUL and lone surrogates inside.
        ValueTooLongError: over ``MAXIMUM_TEXT_SIZE``.
    """
    if not value:
        return value
    try:
        encoded = json.dumps(value, allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidValueError(f"{name} holds what JSON cannot carry: {error}", field=name) from None
    check_text(name, encoded)
    if _ESCAPED_NUL.search(encoded):
        raise InvalidTextError(f"{name} holds a NUL character, which PostgreSQL cannot store; remove it", field=name)
    return value


def _check_address(name: str, value: Any) -> Any:
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        raise InvalidValueError(f"{name} must be an IPv4 or IPv6 address", field=name) from None


def _range_check(lowest: float, highest: float) -> Check:
    def check(name: str, value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, int | float) or not lowest <= value <= highest:
            raise InvalidValueError(f"{name} must be a number from {lowest} to {highest}", field=name)
        return value

    return check


def _check_move(target: Entity, status: GenerationStatus, old: Any) -> None:
    """Only a stored row moves; a new one may begin anywhere, such as an imported generation."""
    if not inspect(target).has_identity or not isinstance(old, GenerationStatus) or status is old:
        return
    if status not in old.next_statuses:
        allowed = ", ".join(sorted(old.next_statuses)) or "nothing: it is final"
        raise IllegalStatusMoveError(
            f"status may not go from {old} to {status}; {old} may go to {allowed}", field="status"
        )
