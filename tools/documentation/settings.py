"""The reference of settings, from the fields of ``Settings``."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from make_env_example import FIELDS, groups, write_value
from pydantic import SecretStr
from pydantic.fields import FieldInfo


def render() -> str:
    """A table for each group, in the order of ``.env.example``."""
    lines: list[str] = []
    for heading, names in groups():
        lines += [f"## {heading}", "", "| variable | meaning | default |", "| --- | --- | --- |"]
        lines += [_row(name, FIELDS[name]) for name in names]
        lines.append("")
    return "\n".join(lines)


def _row(name: str, field: FieldInfo) -> str:
    default = write_value(field.default)
    facts = [fact for fact in (_kind(field.annotation), *_limits(field)) if fact]
    meaning = " ".join([field.description or "", f"*({'; '.join(facts)})*" if facts else ""]).strip()
    return f"| `{name.upper()}` | {meaning.replace('|', '&#124;')} | {f'`{default}`' if default else ''} |"


def _kind(annotation: Any) -> str:
    """What kind of value it is, where the default does not show it."""
    if annotation is SecretStr or SecretStr in get_args(annotation):
        return "secret"
    choices = [choice for choice in _choices(annotation) if choice]
    return " or ".join(f"`{choice}`" for choice in choices)


def _choices(annotation: Any) -> Iterator[str]:
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        yield from (str(member.value) for member in annotation)
    elif get_origin(annotation) is Literal:
        yield from map(str, get_args(annotation))
    elif get_origin(annotation) in {Union, UnionType, Annotated}:
        for part in get_args(annotation):
            if part is not NoneType:
                yield from _choices(part)


def _limits(field: FieldInfo) -> Iterator[str]:
    for limit in field.metadata:
        match limit:
            case Ge(ge=value):
                yield f"at least {value}"
            case Gt(gt=value):
                yield f"more than {value}"
            case Le(le=value):
                yield f"at most {value}"
            case Lt(lt=value):
                yield f"less than {value}"
