"""Rows of several tables in one statement, past the ORM: their values are numbered parameters, each sent as a text.

As texts they all have one type, so that the driver prepares one statement for all rows of a shape.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from data_layer.database.statements import DIALECT
from data_layer.entities import Entity

Texts = list[str | None]
Values = Mapping[str, Any]
"""Checked values of one row, by the names of its attributes (``entities.validation.new_values``)."""

Shape = tuple[tuple[str, ...], int]
"""Which columns of a table are given, and in how many rows."""

_EMPTY: dict[str, object] = {}


class NumberedRows:
    """Composes a statement; the parameters are numbered in the order of their use."""

    def __init__(self) -> None:
        self._count = 0

    def place(self, kind: str) -> str:
        """What stands for the next parameter."""
        self._count += 1
        return f"${self._count}::{kind}"

    def rows(self, entity: type[Entity], shape: Shape) -> str:
        """Rows of a table as ``new``."""
        names, count = shape
        columns = entity.__table__.columns
        types = [columns[name.removesuffix("_")].type.compile(DIALECT) for name in names]
        lists = (", ".join(map(self.place, types)) for _ in range(count))
        return f"(VALUES {', '.join(f'({row})' for row in lists)}) AS new ({column_list(names)})"


def column_list(names: Iterable[str]) -> str:
    """The columns of attributes, separated by commas."""
    return ", ".join(name.removesuffix("_") for name in names)


def add_rows(parameters: Texts, *rows: Values) -> Shape:
    """Add the values of rows of one table to the parameters; what is empty in all of them is left to its default."""
    if not rows:
        return (), 0
    if len(rows) == 1:
        given = []
        for name, value in rows[0].items():
            if value is not None and (value or not isinstance(value, dict)):
                given.append(name)
                parameters.append(value if type(value) is str else text_of(value))
        return tuple(given), 1
    names = tuple(name for name in rows[0] if any(row[name] is not None and row[name] != _EMPTY for row in rows))
    for row in rows:
        parameters += [text_of(row[name]) for name in names]
    return names, len(rows)


def text_of(value: object) -> str | None:
    """A value as PostgreSQL reads it."""
    if value is None:
        return None
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, dict):
        return orjson.dumps(value).decode()
    return str(value)
