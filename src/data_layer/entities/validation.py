"""The rules of single values, checked when an attribute is assigned, so that the error names the attribute."""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Boolean, Column, DateTime, Float, Integer, LargeBinary, Numeric, Uuid, event, inspect
from sqlalchemy.dialects.postgresql import INET, TSVECTOR
from sqlalchemy.orm import QueryableAttribute
from sqlalchemy.types import String

from data_layer.entities.base import Entity
from data_layer.entities.code_body import CodeText
from data_layer.entities.columns import (
    Choice,
    Json,
    TextList,
    check_text,
    json_object_of,
    normalize_email,
    text_list_of,
)
from data_layer.entities.enums import GenerationStatus
from data_layer.errors import IllegalStatusMoveError, InvalidValueError, ValueTooLongError

Check = Callable[[str, Any], Any]

_INTEGER_BITS = 31
_BIG_INTEGER_BITS = 63
# A day less than Python's calendar at each end, so that a time can be shown in every time zone.
_EARLIEST = datetime.min.replace(tzinfo=UTC) + timedelta(days=1)
_LATEST = datetime.max.replace(tzinfo=UTC) - timedelta(days=1)


@dataclass(frozen=True, slots=True)
class _Rule:
    """What one column of an entity may hold."""

    name: str
    check: Check
    check_wanted: Check
    may_be_empty: bool
    may_be_new: bool
    """Whether a new row may leave it empty: the database fills it in, or refuses the row."""

    def checked(self, value: Any, *, is_new: bool) -> Any:
        """The value as it is stored."""
        if value is not None:
            return self.check(self.name, value)
        if self.may_be_empty or (self.may_be_new and is_new):
            return None
        raise InvalidValueError(f"{self.name} may not be empty (None)", field=self.name)


_RULES: dict[type[Entity], dict[str, _Rule]] = {}


def new_values(entity: type[Entity], **values: Any) -> dict[str, Any]:
    """The values that a new row of an entity would hold, checked as its attributes are, without making the entity.

    For rows that a statement of their own inserts: SQLAlchemy's attributes cost several times what the checks do.

    Raises:
        InvalidValueError: for the first one that cannot be stored; ``field`` says which.
    """
    rules = _RULES[entity]
    checked = {}
    for name, value in values.items():
        rule = rules[name]
        checked[name] = rule.checked(None, is_new=True) if value is None else rule.check(rule.name, value)
    return checked


def wanted_value(entity: type[Entity], name: str, value: Any) -> Any:
    """Check the type of a value that is searched for in a column, and return it as rows hold it.

    A name without a column is left to the caller. Texts may have any length and form, because callers pass on what
    people typed; those that fit no row find none.

    Raises:
        InvalidValueError: it is of another type than the column, or PostgreSQL cannot compare it; ``field`` names it.
    """
    rule = _RULES[entity].get(name)
    return value if rule is None else rule.check_wanted(name, value)


@event.listens_for(Entity, "attribute_instrument", propagate=True)
def _check_assignments(entity: type[Entity], name: str, attribute: QueryableAttribute[Any]) -> None:
    column = getattr(getattr(attribute, "property", None), "columns", [None])[0]
    if not isinstance(column, Column):
        return
    # A new row may leave to the database what only it fills in; where nothing fills it in, the row is refused there.
    is_required = bool(column.info.get("required"))
    may_be_empty = bool(column.nullable) and not is_required
    is_refused_there = column.server_default is None and not is_required
    rule = _Rule(
        name=name.removesuffix("_"),  # Callers know metadata_ as metadata.
        check=_check_for(entity, name, column),
        check_wanted=_wanted_check(entity, name, column),
        may_be_empty=may_be_empty,
        may_be_new=may_be_empty or is_refused_there or isinstance(column.type, DateTime),
    )
    _RULES.setdefault(entity, {})[name] = rule

    def on_set(target: Entity, value: Any, old: Any, _: Any) -> Any:
        if value is None:
            return rule.checked(value, is_new=rule.may_be_empty or not inspect(target).has_identity)
        if value is old:
            return value
        value = rule.check(rule.name, value)
        if type(value) is GenerationStatus:
            _check_move(target, value, old)
        return value

    event.listen(attribute, "set", on_set, retval=True)


def _check_for(entity: type[Entity], name: str, column: Column[Any]) -> Check:
    field = entity.__dataclass_fields__.get(name)
    if isinstance(column.type, TSVECTOR) or (field is not None and not field.init):
        return _refuse_counter if column.info.get("counter") else _refuse_generated
    return _check_of_type(entity, name, column)


def _wanted_check(entity: type[Entity], name: str, column: Column[Any]) -> Check:
    if isinstance(column.type, TSVECTOR):
        return _refuse_wanted
    if isinstance(column.type, String | CodeText) and not isinstance(column.type, Choice):
        return _text_check(None, _accept)
    return _check_of_type(entity, name, column)


def _check_of_type(entity: type[Entity], name: str, column: Column[Any]) -> Check:
    match column.type:
        case Choice() as choice:
            check = _choice_check(choice.values)
        case String() | CodeText() as text:
            check = _text_check(
                text.length or column.info.get("length"), _FORMATS.get(column.info.get("format"), _accept)
            )
        case Json() as values:
            check = text_list_of if values.container is TextList else json_object_of
        case INET():
            check = _check_address
        case Integer() | Float() | Numeric():
            check = _number_check(column)
        case Boolean():
            check = _check_flag
        case DateTime():
            check = check_time
        case Uuid():
            check = _check_uuid
        case LargeBinary():
            check = _check_bytes
        case other:
            raise TypeError(f"{entity.__name__}.{name}: no rule for columns of the type {other!r}")
    return check


def _accept(_: str, value: Any) -> Any:
    return value


def _refuse_counter(name: str, _: Any) -> Any:
    raise InvalidValueError(f"{name} is a counter: change it with the repository's increment()", field=name)


def _refuse_generated(name: str, _: Any) -> Any:
    raise InvalidValueError(f"{name} is filled in by the database and cannot be assigned", field=name)


def _refuse_wanted(name: str, _: Any) -> Any:
    raise InvalidValueError(f"{name} cannot be compared with a value; use the search", field=name)


def _choice_check(values: type[StrEnum]) -> Check:
    known = {value.value: value for value in values}

    def check(name: str, value: Any) -> Any:
        if isinstance(value, str) and value in known:
            return known[str.__str__(value)]
        raise InvalidValueError(f"{name} must be one of: {', '.join(known)}", field=name)

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
        # Of a subclass, such as an enumeration, the driver would store something else.
        return check_format(name, str.__str__(value))

    return check


def _check_email(name: str, value: str) -> str:
    return normalize_email(value, field=name)


def _check_image_reference(name: str, value: str) -> str:
    if value[:5].lower() == "data:":
        raise InvalidValueError(f"{name} must be a storage key or a URL: upload the bytes to storage first", field=name)
    return value


_FORMATS: dict[Any, Check] = {"email": _check_email, "image_reference": _check_image_reference}


def _check_address(name: str, value: Any) -> Any:
    if isinstance(value, str | ipaddress.IPv4Address | ipaddress.IPv6Address):
        try:
            # The zone of a link-local address means something on one machine only, and PostgreSQL refuses it.
            address = ipaddress.ip_address(str(value).partition("%")[0])
        except ValueError:
            pass
        else:
            mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
            return str(mapped or address)
    raise InvalidValueError(f"{name} must be an IPv4 or IPv6 address", field=name)


def _number_check(column: Column[Any]) -> Check:
    if isinstance(column.type, Float):
        return _float_check(*column.info.get("range", (-math.inf, math.inf)))
    if isinstance(column.type, Numeric):
        return _decimal_check(column.type)
    largest = 2 ** (_BIG_INTEGER_BITS if isinstance(column.type, BigInteger) else _INTEGER_BITS) - 1
    lowest, highest = column.info.get("range", (-largest - 1, largest))
    return _integer_check(lowest, min(highest, largest))


def _integer_check(lowest: int, highest: int) -> Check:
    def check(name: str, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
            raise InvalidValueError(f"{name} must be an integer from {lowest} to {highest}", field=name)
        return int(value)

    return check


def _float_check(lowest: float, highest: float) -> Check:
    range_ = "" if lowest == -math.inf else f" from {lowest:g}" + ("" if highest == math.inf else f" to {highest:g}")

    def check(name: str, value: Any) -> float:
        number = math.nan if isinstance(value, bool) or not isinstance(value, int | float) else _as_float(value)
        # Written so that NaN, which compares false with everything, is refused too.
        if not (math.isfinite(number) and lowest <= number <= highest):
            raise InvalidValueError(f"{name} must be a finite number{range_}", field=name)
        return number

    return check


def _as_float(value: float) -> float:
    """The same number as a float; NaN for an integer that no float equals."""
    try:
        return float(value) if float(value) == value else math.nan
    except OverflowError:
        return math.nan


def _decimal_check(column: Numeric[Any]) -> Check:
    """Amounts are never negative, and neither rounded nor taken from floats, which are not exact."""
    scale = column.scale or 0
    limit = 10 ** ((column.precision or 0) - scale)

    def check(name: str, value: Any) -> Decimal:
        is_exact = isinstance(value, int | Decimal) and not isinstance(value, bool)
        if not is_exact or not Decimal(value).is_finite() or not 0 <= value < limit:
            raise InvalidValueError(f"{name} must be a Decimal from 0 to less than {limit}", field=name)
        number = Decimal(value)
        if number != round(number, scale):
            raise InvalidValueError(f"{name} may have {scale} decimals at most; round it first", field=name)
        return number

    return check


def _check_flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise InvalidValueError(f"{name} must be True or False, not {type(value).__name__}", field=name)
    return value


def check_time(name: str, value: Any) -> datetime:
    """Refuse what is not a moment: PostgreSQL would take a time without a zone for one of its own zone.

    Raises:
        InvalidValueError: for anything but a datetime with a time zone, and for the first and last day of the calendar.
    """
    if not isinstance(value, datetime):
        raise InvalidValueError(f"{name} must be a datetime, not {type(value).__name__}", field=name)
    if value.utcoffset() is None:
        raise InvalidValueError(
            f"{name} has no time zone; say which it is in, for example datetime.now(timezone.utc)", field=name
        )
    try:
        in_range = _EARLIEST <= value.astimezone(UTC) <= _LATEST
    except OverflowError:
        in_range = False
    if not in_range:
        raise InvalidValueError(f"{name} must be from {_EARLIEST:%Y-%m-%d} to {_LATEST:%Y-%m-%d}", field=name)
    return value


def _check_bytes(name: str, value: Any) -> bytes:
    if not isinstance(value, bytes):
        raise InvalidValueError(f"{name} must be bytes, not {type(value).__name__}", field=name)
    return value


def _check_uuid(name: str, value: Any) -> UUID:
    if not isinstance(value, UUID):
        raise InvalidValueError(
            f"{name} must be a UUID, not {type(value).__name__}; uuid.UUID(text) makes one", field=name
        )
    return value


def _check_move(target: Entity, status: GenerationStatus, old: Any) -> None:
    """Only a stored row moves; a new one may begin anywhere, such as an imported generation."""
    if not inspect(target).has_identity or not isinstance(old, GenerationStatus) or status is old:
        return
    if status not in old.next_statuses:
        allowed = ", ".join(sorted(old.next_statuses)) or "nothing: it is final"
        raise IllegalStatusMoveError(
            f"status may not go from {old} to {status}; {old} may go to {allowed}", field="status"
        )
