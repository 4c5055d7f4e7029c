"""What all views have in common: nobody can change them, so the cache hands the same object to every reader."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Annotated, Any, NoReturn

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, GetPydanticSchema
from pydantic_core import CoreSchema, core_schema


class Value(BaseModel):
    """An immutable value that callers see."""

    model_config = ConfigDict(frozen=True)


class View(Value):
    """A picture of a row, made with ``View.model_validate(entity)``."""

    model_config = ConfigDict(from_attributes=True)


def _refuse(*_: object, **__: object) -> NoReturn:
    raise TypeError("what a view shows cannot be changed; copy.deepcopy() makes a copy that can be")


class FrozenObject(dict[str, Any]):
    """A JSON object, equal to the same dict and encoded like one. ``copy.deepcopy`` returns an ordinary dict."""

    __slots__ = ()
    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[str, Any]:
        return {key: deepcopy(value, memo) for key, value in self.items()}

    def __reduce__(self) -> tuple[Any, ...]:
        return FrozenObject, (dict(self),)


class FrozenList(list[Any]):
    """A JSON list, equal to the same list and encoded like one. ``copy.deepcopy`` returns an ordinary list."""

    __slots__ = ()
    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse
    append = clear = extend = insert = pop = remove = reverse = sort = _refuse

    def __deepcopy__(self, memo: dict[int, Any]) -> list[Any]:
        return [deepcopy(value, memo) for value in self]

    def __reduce__(self) -> tuple[Any, ...]:
        return FrozenList, (list(self),)


_EMPTY = FrozenObject()


def freeze_object(value: Mapping[str, Any]) -> FrozenObject:
    """Copy a JSON object into one that nobody can change, nor anything inside it."""
    return FrozenObject({key: _freeze(item) for key, item in value.items()}) if value else _EMPTY


def _freeze(value: Any) -> Any:
    if isinstance(value, dict):
        return freeze_object(value)
    if isinstance(value, list):
        return FrozenList(map(_freeze, value))
    return value


def _frozen_schema(_: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
    return core_schema.no_info_after_validator_function(freeze_object, handler(dict[str, Any]))


JsonObject = Annotated[Mapping[str, Any], GetPydanticSchema(_frozen_schema)]
"""The type of a field that shows a JSON object."""
