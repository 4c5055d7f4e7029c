"""Rows that are shown as they are read, without entities between: for lists, where each microsecond counts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, TypeVar

from sqlalchemy import ColumnElement, Label, inspect

from data_layer.entities import Entity
from data_layer.entities.columns import Json, TextList
from data_layer.schemas.base import View

V = TypeVar("V", bound=View)


class ViewRows(Generic[V]):
    """How rows of an entity become views of one kind.

    Args:
        view: its fields are attributes of the entity, by their names or validation aliases.
        entity: whose rows.
        derived: fields that are no columns.
    """

    def __init__(self, view: type[V], entity: type[Entity], **derived: ColumnElement[Any]) -> None:
        attributes = inspect(entity).column_attrs
        fields = [name for name in view.model_fields if name not in derived]
        columns = {name: attributes[name if name in attributes else f"{name}_"].columns[0] for name in fields} | derived
        self.columns: Sequence[Label[Any]] = [column.label(name) for name, column in columns.items()]
        self._names = tuple(columns)
        # A row that was spoilt by hand must not fail the list that shows it.
        self._repairs = [(name, _repair(kind.type)) for name, kind in columns.items() if isinstance(kind.type, Json)]
        self._validate = view.__pydantic_validator__.validate_python

    def read(self, rows: Iterable[Sequence[Any]]) -> list[V]:
        """The views of rows of ``columns``."""
        return [self._view(row) for row in rows]

    def _view(self, row: Sequence[Any]) -> V:
        values = dict(zip(self._names, row, strict=False))
        for name, repair in self._repairs:
            values[name] = repair(values[name])
        view: V = self._validate(values, by_alias=False, by_name=True)
        return view


def _repair(kind: Json) -> Callable[[Any], Any]:
    return _texts if kind.container is TextList else _object


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
