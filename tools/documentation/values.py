"""The reference of the values that callers see: enumerations, and the frozen views that services return."""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Iterator
from enum import StrEnum
from importlib import import_module
from types import ModuleType
from typing import TypeVar

from pydantic import BaseModel

from data_layer import schemas
from data_layer.entities import enums

Base = TypeVar("Base")


def render_enumerations() -> str:
    """A table of all of them, with their values."""
    rows = [
        f"| `{kind.__name__}` | {_first_sentences(kind)} | {', '.join(f'`{value.value}`' for value in kind)} |"
        for kind in _classes(enums, StrEnum)
    ]
    return "\n".join(["| enumeration | meaning | values |", "| --- | --- | --- |", *rows])


def render_views() -> str:
    """A section for each view, with the fields that it has itself."""
    lines: list[str] = []
    for information in pkgutil.iter_modules(schemas.__path__, f"{schemas.__name__}."):
        for view in _classes(import_module(information.name), BaseModel):
            fields = {name: kind for name, kind in inspect.get_annotations(view).items() if name in view.model_fields}
            if not fields:
                continue
            lines += [f"### {view.__name__}", "", _first_sentences(view), "", _inherited(view), ""]
            lines += ["| field | type |", "| --- | --- |"]
            lines += [f"| `{name}` | `{str(kind).replace('|', 'or')}` |" for name, kind in fields.items()] + [""]
    return "\n".join(lines)


def _classes(module: ModuleType, base: type[Base]) -> Iterator[type[Base]]:
    for value in vars(module).values():
        if isinstance(value, type) and issubclass(value, base) and value.__module__ == module.__name__:
            yield value


def _first_sentences(kind: type) -> str:
    return (inspect.getdoc(kind) or "").partition("\n\n")[0].replace("\n", " ").replace("``", "`")


def _inherited(view: type) -> str:
    names = [base.__name__ for base in view.__bases__ if getattr(base, "model_fields", None)]
    return f"All that `{names[0]}` has, and:" if names else ""
