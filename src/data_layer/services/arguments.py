"""Arguments of services are checked against their annotations, all in one way, before anything happens.

Type checkers see most mistakes, but not a value that came from outside or a time without a zone. So the methods of a
service that is decorated with ``checks_arguments`` refuse with an InvalidValueError that names the argument:

- what is not of the annotated type, where that is a class, a choice of them or a collection of them;
- bool for a number, integers beyond 63 bits, NaN and infinity;
- texts, times and JSON objects in a value that the caller has made (``schemas.base.Input``) that cannot be stored;
- times without a time zone or at the very ends of the calendar, and durations of more than a thousand years.

``Annotated[…, check]`` names a check of its own. Values with a stricter rule (the length of a page, an address) are
checked again where the rule is. A method that only hands a coroutine on is left alone: it is on the way of every
request, and what it calls checks by hand.
"""

from __future__ import annotations

import sys
import types
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Mapping
from contextlib import aclosing
from datetime import datetime, timedelta
from enum import Enum, StrEnum
from functools import wraps
from inspect import Parameter, getattr_static, isasyncgenfunction, iscoroutinefunction, signature, unwrap
from typing import Annotated, Any, BinaryIO, Literal, TypeVar, Union, Unpack, cast, get_args, get_origin, get_type_hints
from uuid import UUID

from data_layer.entities.columns import check_text, json_object_of
from data_layer.entities.validation import check_time
from data_layer.errors import InvalidValueError
from data_layer.schemas.base import Input

Check = Callable[[str, Any], object]
Service = TypeVar("Service")

_CHOSEN = str | Enum
_LARGEST = 2**63 - 1
_LONGEST = timedelta(days=365_000)


def checks_arguments(service: type[Service]) -> type[Service]:
    """Check the arguments of the public methods of a class, those that it inherits also; see the module."""
    for name in dir(service):
        method = getattr_static(service, name)
        if not name.startswith("_") and isinstance(method, types.FunctionType):
            setattr(service, name, _checked(method))
    return service


def _checked(method: Callable[..., Any]) -> Callable[..., Any]:
    check = _Arguments(method)
    if iscoroutinefunction(unwrap(method)):

        @wraps(method)
        async def checked(*args: Any, **kwargs: Any) -> Any:
            check(args, kwargs)
            return await method(*args, **kwargs)

    elif isasyncgenfunction(method):

        @wraps(method)
        async def checked(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
            check(args, kwargs)
            async with aclosing(method(*args, **kwargs)) as items:
                async for item in items:
                    yield item

    elif str(signature(method).return_annotation).startswith("Coroutine"):
        return method
    else:  # Such as an asynchronous context manager.

        @wraps(method)
        def checked(*args: Any, **kwargs: Any) -> Any:
            check(args, kwargs)
            return method(*args, **kwargs)

    return checked


class _Arguments:
    """The checks of one method. They are made at its first call, when every module is loaded.

    Binding arguments to a signature would cost more than the checks, so they are kept by position and by name; a call
    that does not fit the signature is refused by the method itself.
    """

    def __init__(self, method: Callable[..., Any]) -> None:
        self._method = method
        self._by_position: list[tuple[str, Check]] | None = None
        self._by_name: dict[str, Check] = {}
        self._rest: tuple[str, Check] | None = None

    def __call__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        by_position = self._by_position or self._make()
        for (name, check), value in zip(by_position, args, strict=False):
            check(name, value)
        if self._rest is not None:
            name, check = self._rest
            for value in args[len(by_position) :]:
                check(name, value)
        by_name = self._by_name
        for name, value in kwargs.items():
            if name in by_name:
                by_name[name](name, value)

    def _make(self) -> list[tuple[str, Check]]:
        by_position: list[tuple[str, Check]] = []
        for parameter in signature(self._method).parameters.values():
            annotation = self._annotation(parameter)
            if parameter.kind is Parameter.VAR_KEYWORD and get_origin(annotation) is Unpack:
                fields = get_type_hints(get_args(annotation)[0], include_extras=True)
                self._by_name |= {name: _check_of(field) or _accept for name, field in fields.items()}
                continue
            check = _check_of(annotation) or _accept
            if parameter.kind is Parameter.VAR_POSITIONAL:
                self._rest = parameter.name, check
            elif parameter.kind is not Parameter.VAR_KEYWORD:
                self._by_name[parameter.name] = check
                if parameter.kind is not Parameter.KEYWORD_ONLY:
                    by_position.append((parameter.name, check))
        self._by_position = by_position
        return by_position

    def _annotation(self, parameter: Parameter) -> Any:
        if parameter.annotation is Parameter.empty:
            return Any
        if isinstance(parameter.annotation, str):
            names = vars(sys.modules[self._method.__module__])
            return eval(parameter.annotation, names)  # noqa: S307  (our own source)
        return parameter.annotation


def _accept(_name: str, _value: Any) -> None:
    """Anything will do."""


def _check_of(annotation: Any) -> Check | None:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return cast("Check", arguments[1])
    if origin is Union or origin is types.UnionType:
        return _any_of(arguments)
    if origin is Literal:
        return _one_of(arguments)
    if annotation in _CHECKS:
        return _CHECKS[annotation]
    kind = origin or annotation
    if kind is tuple and arguments and arguments[-1] is not Ellipsis:
        return _tuple_of(arguments)
    if not isinstance(kind, type) or kind is object or getattr(kind, "_is_protocol", False):
        return None
    return _check_of_class(kind, arguments)


def _check_of_class(kind: type, arguments: tuple[Any, ...]) -> Check:
    if issubclass(kind, StrEnum):
        return _one_of(tuple(kind))
    if issubclass(kind, Input):
        return _fields_of(kind)
    is_collection = issubclass(kind, Iterable) and not issubclass(kind, Mapping | str | bytes) and arguments
    item = _check_of(arguments[0]) if is_collection else None
    return _instance_of(kind) if item is None else _collection_of(kind, item)


def _instance_of(kind: type) -> Check:
    # A text is a sequence too, but nobody means its characters.
    takes_text = kind not in (str, bytes) and (issubclass(str, kind) or issubclass(bytes, kind))

    def check(name: str, value: Any) -> None:
        if not isinstance(value, kind) or (takes_text and isinstance(value, str | bytes)):
            raise InvalidValueError(f"{name} must be {_shown(kind)}, not {type(value).__name__}", field=name)

    return check


def _fields_of(kind: type[Input]) -> Check:
    check_kind = _instance_of(kind)

    def check(name: str, value: Any) -> None:
        check_kind(name, value)
        for field, held in vars(value).items():
            if type(held) in _CHECKS_OF_FIELDS and field not in kind.replaced_texts:
                _CHECKS_OF_FIELDS[type(held)](field, held)

    return check


def _collection_of(kind: type, item: Check) -> Check:
    check_kind, check_items = _instance_of(kind), _each(item)

    def check(name: str, value: Any) -> None:
        check_kind(name, value)
        if isinstance(value, Collection):  # An iterator would be used up.
            check_items(name, value)

    return check


def _tuple_of(kinds: tuple[Any, ...]) -> Check:
    checks = [_check_of(kind) or _accept for kind in kinds]

    def check(name: str, value: Any) -> None:
        if not isinstance(value, tuple) or len(value) != len(checks):
            raise InvalidValueError(f"{name} must be a tuple of {len(checks)}", field=name)
        for each, item in zip(checks, value, strict=True):
            each(name, item)

    return check


def _each(item: Check) -> Check:
    def check(name: str, values: Any) -> None:
        for value in values:
            item(name, value)

    return check


def _any_of(choices: tuple[Any, ...]) -> Check | None:
    kinds = [choice for choice in choices if choice is not type(None)]
    may_be_none = len(kinds) < len(choices)
    known = [each for kind in kinds if (each := _check_of(kind)) is not None]
    if len(known) < len(kinds):
        return None
    if len(known) == 1:
        return _optional(known[0])

    # The others would refuse it by an exception, which takes longer than all else here.
    first = dict(zip(kinds, known, strict=True))

    def check(name: str, value: Any) -> None:
        if value is None and may_be_none:
            return
        kind = type(value)
        refusal: InvalidValueError | None = None
        for each in (first[kind], *known) if kind in first else known:
            try:
                each(name, value)
            except InvalidValueError as error:
                refusal = error
            else:
                return
        shown = " or ".join(_described(choice) for choice in choices)
        raise InvalidValueError(f"{name} must be {shown}, not {kind.__name__}", field=name) from refusal

    return check


def _optional(known: Check) -> Check:
    def check(name: str, value: Any) -> None:
        if value is not None:
            known(name, value)

    return check


def _one_of(values: tuple[Any, ...]) -> Check:
    allowed = frozenset(values)

    def check(name: str, value: Any) -> None:
        if not isinstance(value, _CHOSEN) or value not in allowed:
            raise InvalidValueError(f"{name} must be one of: {', '.join(map(str, values))}", field=name)

    return check


def _check_integer(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > _LARGEST:
        raise InvalidValueError(f"{name} must be an integer of 63 bits at most", field=name)


def _check_number(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
        raise InvalidValueError(f"{name} must be a finite number", field=name)


def _check_duration(name: str, value: Any) -> None:
    if not isinstance(value, timedelta) or not -_LONGEST <= value <= _LONGEST:
        raise InvalidValueError(f"{name} must be a timedelta of a thousand years at most", field=name)


def _check_binary_file(name: str, value: Any) -> None:
    if not callable(getattr(value, "read", None)):
        raise InvalidValueError(f"{name} must be a file that is open for reading bytes", field=name)


def _described(annotation: Any) -> str:
    if annotation is type(None):
        return "None"
    if get_origin(annotation) is Literal:
        return " or ".join(str(value) for value in get_args(annotation))
    return _shown(annotation) if isinstance(annotation, type) else str(annotation).rpartition(".")[2]


def _shown(kind: type) -> str:
    return {str: "text", bytes: "bytes", bool: "True or False", UUID: "a UUID"}.get(kind, kind.__name__)


_CHECKS_OF_FIELDS: dict[type, Check] = {str: check_text, datetime: check_time, dict: json_object_of}
"""What the types of a value that callers make do not say: what can be stored."""

_CHECKS: dict[Any, Check | None] = {
    Any: None,
    int: _check_integer,
    float: _check_number,
    BinaryIO: _check_binary_file,
    datetime: check_time,
    timedelta: _check_duration,
}
