"""The two hottest statements, one row in and one row out, on the driver's own connection.

SQLAlchemy's unit of work costs several times what PostgreSQL needs for such a statement (see ``make bench-database``).
So ``get`` by id and the insertion of new rows build their SQL once per entity, from its columns, and psycopg executes
it on the connection and inside the transaction that the ORM session uses as well.
"""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from sqlalchemy import Column, DateTime, inspect
from sqlalchemy.orm import make_transient, make_transient_to_detached
from sqlalchemy.orm.attributes import instance_state

from data_layer.entities import Entity

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy import ColumnElement, Dialect
    from sqlalchemy.orm import ClassManager

E = TypeVar("E", bound=Entity)
_DOUBLE_PRECISION = 701  # PostgreSQL's object id of the type, by which SQLAlchemy chooses how to read a number.


class RowPlan(Generic[E]):
    """How rows of one entity are read and inserted with plain SQL."""

    def __init__(self, entity: type[E], dialect: Dialect) -> None:
        mapper = inspect(entity)
        given = {field.name for field in dataclasses.fields(entity) if field.init}
        columns = {attribute.key: attribute.columns[0] for attribute in mapper.column_attrs}
        loaded = {name: column for name, column in columns.items() if not mapper.column_attrs[name].deferred}
        written = {name: column for name, column in columns.items() if name in given}
        generated = {name: column for name, column in loaded.items() if name not in given or _is_time(column)}
        self._manager = cast("ClassManager[E]", mapper.class_manager)
        self._readers = [(name, _reader(column, dialect)) for name, column in loaded.items()]
        self._writers = [(name, _writer(column, dialect)) for name, column in written.items()]
        self._generated = list(generated)
        table = mapper.local_table
        # Only names from the models stand in these texts; values travel as parameters.
        self.select_sql = f"SELECT {_names(loaded)} FROM {table} WHERE id = %s"  # noqa: S608  (see above)
        self.insert_sql = (
            f"INSERT INTO {table} ({_names(written)}) VALUES ({', '.join(map(_value, written.values()))}) "  # noqa: S608  (see above)
            f"RETURNING {_names(generated)}"
        )

    def read(self, row: Sequence[Any]) -> E:
        """An entity made from a row of ``select_sql``, as if a session had loaded it and let it go."""
        entity = self._manager.new_instance()
        values = entity.__dict__
        for (name, reader), value in zip(self._readers, row, strict=True):
            values[name] = value if reader is None or value is None else reader(value)
        make_transient_to_detached(entity)
        # By this event SQLAlchemy hangs mutable JSON values into their entity, so that changes inside are seen.
        self._manager.dispatch.load(instance_state(entity), None)
        return entity

    def parameters(self, entity: E) -> list[Any]:
        """The values for ``insert_sql``."""
        values = [getattr(entity, name) for name, _ in self._writers]
        return [
            value if writer is None or value is None else writer(value)
            for value, (_, writer) in zip(values, self._writers, strict=True)
        ]

    def mark_inserted(self, entity: E, row: Sequence[Any]) -> None:
        """Take over what the database filled in; from here on the entity counts as stored."""
        for name, _ in self._writers:
            entity.__dict__.setdefault(name, getattr(entity, name))
        entity.__dict__.update(zip(self._generated, row, strict=True))
        make_transient_to_detached(entity)


@cache
def row_plan(entity: type[E], dialect: Dialect) -> RowPlan[E]:
    """The plan of an entity, built once for each engine."""
    return RowPlan(entity, dialect)


def mark_removed(entity: Entity) -> None:
    """After a rollback: the entity counts as new again, so that it can be added to another transaction."""
    make_transient(entity)


def _names(columns: Mapping[str, ColumnElement[Any]]) -> str:
    return ", ".join(f'"{column.key}"' for column in columns.values())


def _is_time(column: ColumnElement[Any]) -> bool:
    """Whether the database's clock fills the column in when the application does not."""
    return isinstance(column, Column) and isinstance(column.type, DateTime) and column.server_default is not None


def _value(column: ColumnElement[Any]) -> str:
    return "coalesce(%s::timestamptz, now())" if _is_time(column) else "%s"


def _reader(column: ColumnElement[Any], dialect: Dialect) -> Callable[[Any], Any] | None:
    return column.type.dialect_impl(dialect).result_processor(dialect, _DOUBLE_PRECISION)


def _writer(column: ColumnElement[Any], dialect: Dialect) -> Callable[[Any], Any] | None:
    return column.type.dialect_impl(dialect).bind_processor(dialect)
