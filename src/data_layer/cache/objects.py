"""Python's objects, as the cache sees them: whether they can change, how to copy, weigh and encode them."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import uuid
from collections.abc import Callable, Collection, Iterable
from functools import cache, partial
from itertools import islice
from sys import getsizeof
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from data_layer.schemas.base import FrozenList, FrozenObject

_SCALARS = frozenset(
    {
        *(type(None), bool, int, float, str, bytes),
        *(dt.date, dt.datetime, dt.time, dt.timedelta),
        *(decimal.Decimal, uuid.UUID),
    }
)
_UNCHANGEABLE = _SCALARS | {FrozenObject, FrozenList}
_PLAIN = frozenset({type(None), bool, int, str, dt.date, dt.datetime, uuid.UUID})
_OWN_WAYS = {"model_dump", "__get_pydantic_core_schema__"}
"""With one of these, a model decides for itself how it is serialized."""
_MOST_CONTAINERS = 64
_WEIGHED = 8
"""Of a longer container so many items are weighed, in equal distances, and the others are taken to weigh as much."""


def is_immutable(value: object) -> bool:
    """Whether nobody who holds the value can change it, nor anything inside it.

    A pydantic model is immutable when it is frozen, has no private attributes, and all its fields are immutable. Fields
    whose type says so are not looked at: pydantic has validated them.
    """
    if type(value) in _UNCHANGEABLE or isinstance(value, enum.Enum):
        return True
    if type(value) in {tuple, frozenset}:
        return all(map(is_immutable, value))  # type: ignore[call-overload]  # Both can be iterated over.
    if isinstance(value, BaseModel):
        return (
            not value.__pydantic_private__
            and not value.__pydantic_extra__
            and (names := _fields_to_check(type(value))) is not None
            and all(is_immutable(getattr(value, name)) for name in names)
        )
    return False


def plain_fields(model: BaseModel) -> dict[str, Any] | None:
    """The fields of a model, if orjson writes them so that pydantic reads them back equal, models in them aside.

    Their types decide. Floats are left out, because orjson makes null of NaN, and so is a model that can be changed,
    whose fields may hold anything.
    """
    fields = vars(model)  # With what else was put into the instance, such as the value of a cached_property.
    return fields if len(fields) == _count_of_plain_fields(type(model)) else None


@cache
def _count_of_plain_fields(model: type[BaseModel]) -> int | None:
    decorators, config = model.__pydantic_decorators__, model.model_config
    is_plain = (
        bool(config.get("frozen"))
        and config.get("extra") != "allow"
        and not (config.get("json_encoders") or decorators.field_serializers or decorators.model_serializers)
        and not model.__pydantic_root_model__
        and not any(_OWN_WAYS & vars(each).keys() for each in model.__mro__[: model.__mro__.index(BaseModel)])
        and all(
            not field.exclude and not field.metadata and _is_plain_type(field.annotation)
            for field in model.model_fields.values()
        )
    )
    return len(model.model_fields) if is_plain else None


def _is_plain_type(kind: Any) -> bool:
    origin = get_origin(kind)
    if origin is not None:
        return origin in {Union, UnionType, tuple} and all(
            each is Ellipsis or _is_plain_type(each) for each in get_args(kind)
        )
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return all(isinstance(member.value, str | int) for member in kind)
    return kind in _PLAIN or (isinstance(kind, type) and issubclass(kind, BaseModel))


def copier(value: object) -> Callable[[], Any] | None:
    """Make equal dicts and lists, all the way down; None for what is neither, holds other things, or is too large.

    For a few containers it is several times as quick as decoding the JSON again, and about as quick for 64.
    """
    return _copier(value, [_MOST_CONTAINERS]) if type(value) in {dict, list} else None


def weigh(value: object) -> int:
    """About how many bytes a value takes in memory."""
    size = getsizeof(value)
    if type(value) in _SCALARS:  # Nearly always, and quicker than the questions below.
        return size
    if isinstance(value, dict):
        return size + _weigh_all(value, len(value)) + _weigh_all(value.values(), len(value))
    if isinstance(value, list | tuple | frozenset):
        return size + _weigh_all(value, len(value))
    if isinstance(value, BaseModel):
        fields = vars(value)  # Their names are shared by all instances.
        return size + getsizeof(fields) + _weigh_each(fields.values())
    return size


@cache
def _fields_to_check(model: type[BaseModel]) -> tuple[str, ...] | None:
    """The fields that may hold something that can be changed; None if the model itself can be changed."""
    if not model.model_config.get("frozen"):
        return None
    return tuple(
        name for name, field in model.model_fields.items() if not _holds_immutable(field.annotation, frozenset({model}))
    )


def _holds_immutable(kind: Any, above: frozenset[Any]) -> bool:
    """Whether all values of a type are immutable; ``above`` are the models that are being asked about."""
    origin = get_origin(kind)
    if origin is None:
        return kind is None or kind in _UNCHANGEABLE or (isinstance(kind, type) and _is_immutable_class(kind, above))
    if origin is Literal:
        return True
    if origin in {Union, UnionType, tuple, frozenset, Annotated}:
        kinds = get_args(kind)[:1] if origin is Annotated else get_args(kind)
        return all(each is Ellipsis or _holds_immutable(each, above) for each in kinds)
    return False


def _is_immutable_class(kind: type, above: frozenset[Any]) -> bool:
    if not issubclass(kind, BaseModel):
        return issubclass(kind, enum.Enum)
    return (
        kind not in above
        and bool(kind.model_config.get("frozen"))
        and kind.model_config.get("extra") != "allow"
        and not kind.__private_attributes__
        and not kind.__pydantic_decorators__.model_validators  # They may return something else.
        and all(_holds_immutable(field.annotation, above | {kind}) for field in kind.model_fields.values())
    )


def _weigh_all(items: Collection[object], count: int) -> int:
    if count <= 2 * _WEIGHED:
        return _weigh_each(items)
    step = count // _WEIGHED
    weighed = _weigh_each(list(islice(items, step // 2, None, step)))
    return weighed * count // len(range(step // 2, count, step))


def _weigh_each(items: Iterable[object]) -> int:
    return sum([getsizeof(item) if type(item) in _SCALARS else weigh(item) for item in items])


def _copier(value: Any, allowance: list[int]) -> Callable[[], Any] | None:
    allowance[0] -= 1
    if allowance[0] < 0:
        return None
    places = value.items() if type(value) is dict else enumerate(value)
    inner: list[tuple[Any, Callable[[], Any]]] = []
    for place, item in places:
        if type(item) in _UNCHANGEABLE:
            continue
        make = _copier(item, allowance) if type(item) in {dict, list} else None
        if make is None:
            return None
        inner.append((place, make))
    if not inner:
        return value.copy  # type: ignore[no-any-return]  # Of dict or list.
    if len(inner) == len(value) and type(value) is list:
        return partial(_copy_list, [make for _, make in inner])
    return partial(_copy, value, inner)


def _copy_list(makers: list[Callable[[], Any]]) -> list[Any]:
    return [make() for make in makers]


def _copy(value: Any, inner: list[tuple[Any, Callable[[], Any]]]) -> Any:
    copy = value.copy()
    for place, make in inner:
        copy[place] = make()
    return copy
