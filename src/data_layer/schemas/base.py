"""What all views have in common: nobody can change them, so the cache hands the same object to every reader.

Values that callers make check their fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from enum import StrEnum
from functools import cache
from typing import Annotated, Any, ClassVar, NoReturn, get_args

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, GetPydanticSchema, ValidationError
from pydantic_core import CoreSchema, core_schema

from data_layer.errors import InvalidValueError

_CONVERTED = frozenset({"is_instance_of", "tuple_type", "frozen_set_type", "list_type"})


class Value(BaseModel):
    """An immutable value that callers see."""

    model_config = ConfigDict(frozen=True)


class View(Value):
    """A picture of a row, made with ``View.model_validate(entity)``."""

    model_config = ConfigDict(from_attributes=True)


class Input(Value):
    """An immutable value that callers make, to say what they want.

    A field that does not fit is refused with an InvalidValueError that names it, as in every other call. The text of an
    enumeration, of a UUID and of a Decimal will do, and any collection in place of another; nothing else is converted,
    so that nothing is stored that nobody has given: not bytes to text, nor text to a number or a time.

    Fields in ``replaced_texts`` may hold NUL and lone surrogates: the service puts other characters in their place.
    """

    model_config = ConfigDict(extra="forbid")
    replaced_texts: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, /, **values: Any) -> None:
        validate = self.__pydantic_validator__.validate_python
        try:
            try:
                validate(values, strict=True, self_instance=self)
            except ValidationError as error:
                if any(problem["type"] not in _CONVERTED for problem in error.errors(include_url=False)):
                    raise
                validate(values, self_instance=self)
        except RecursionError as error:
            name = next((name for name, value in values.items() if _is_too_deep(value)), None)
            raise InvalidValueError(f"{name or 'a value'}: is nested too deeply", field=name) from error
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            place = ".".join(str(part) for part in problem["loc"])
            message = f"{place}: {problem['msg'][:1].lower()}{problem['msg'][1:]}"
            raise InvalidValueError(message, field=str(problem["loc"][0]) if problem["loc"] else None) from error

    # Pydantic validates what arrives as JSON in its own way, not by this method.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]


def _is_too_deep(value: object) -> bool:
    try:
        repr(value)
    except RecursionError:
        return True
    return False


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


def share_field_names(value: object) -> None:
    """Have values that are kept share the names of their fields, down through models and tuples.

    Pydantic gives each model a set of the names of its fields that were given: 2 KiB for 20 fields, which is more than
    their values take. Only for what nobody can change.
    """
    if isinstance(value, BaseModel):
        names, with_models = _field_names(type(value))
        if value.__pydantic_fields_set__ == names:
            object.__setattr__(value, "__pydantic_fields_set__", names)
        for name in with_models:
            share_field_names(getattr(value, name))
    elif isinstance(value, tuple):
        for item in value:
            share_field_names(item)


@cache
def _field_names(model: type[BaseModel]) -> tuple[set[str], tuple[str, ...]]:
    """All of them, and those of fields that may hold models."""
    fields = model.model_fields
    return set(fields), tuple(name for name, field in fields.items() if _names_model(field.annotation))


def _names_model(kind: Any) -> bool:
    return (isinstance(kind, type) and issubclass(kind, BaseModel)) or any(map(_names_model, get_args(kind)))


class Outcome(StrEnum):
    """How a transaction ended."""

    COMMITTED = "committed"
    ROLLED_BACK = "rolled_back"
    READ_ONLY = "read_only"
    """It has changed nothing, so that there was nothing to commit."""
    UNKNOWN = "unknown"
    """The connection broke while PostgreSQL was committing."""
