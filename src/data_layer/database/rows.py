"""The two hottest statements, one row in and one row out, on the driver's own connection.

SQLAlchemy's unit of work costs several times what PostgreSQL needs for such a statement (see ``make bench-database``).
So ``get`` by id and the insertion of new rows build their SQL once per entity, from its columns, and psycopg executes
it on the connection and inside the transaction that the ORM session uses as well.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any, Generic, TypeVar, cast

from sqlalchemy import Column, ColumnElement, DateTime, Dialect, Numeric, inspect, select
from sqlalchemy.orm import ClassManager, make_transient, make_transient_to_detached
from sqlalchemy.orm.attributes import instance_state
from sqlalchemy.sql.schema import ScalarElementColumnDefault

from data_layer.database.statements import Sql
from data_layer.entities import Entity
from data_layer.entities.columns import Json

E = TypeVar("E", bound=Entity)
# PostgreSQL's object ids of types, by which SQLAlchemy chooses how to read a number.
_DOUBLE_PRECISION = 701
_NUMERIC = 1700


class RowMapper(Generic[E]):
    """How rows of one entity are read and inserted with plain SQL."""

    def __init__(self, entity: type[E], dialect: Dialect) -> None:
        mapper = inspect(entity)
        given = [field.name for field in dataclasses.fields(entity) if field.init]
        columns = {attribute.key: attribute.columns[0] for attribute in mapper.column_attrs}
        loaded = loaded_columns(entity)
        generated = {name: column for name, column in loaded.items() if name not in given or _is_time(column)}
        self._manager = cast("ClassManager[E]", mapper.class_manager)
        self._table = mapper.local_table
        self._columns = columns
        # JSON null, which only a change by hand can have stored, arrives as None like NULL.
        self._json = {name for name, column in loaded.items() if isinstance(column.type, Json)}
        self._readers = [(name, _reader(column, dialect)) for name, column in loaded.items()]
        self._writers = [
            (name, _writer(columns[name], dialect), isinstance(columns[name].type, Json)) for name in given
        ]
        self._defaults = [(name, _default(columns[name])) for name in given]
        self._generated = list(generated)
        self._insertions: dict[tuple[str, ...], Sql] = {}
        # Only names from the models stand in these texts; values are passed as parameters.
        columns_of_row = select(*loaded.values()).compile(dialect=dialect)
        self.select_sql = Sql(f"{self._table}.select", f"{columns_of_row} WHERE {self._table}.id = %s")
        self._returning = _names(generated.values())

    def read(self, row: Sequence[Any]) -> E:
        """An entity made from a row of ``select_sql``, as if a session had loaded it and let it go."""
        entity = self._manager.new_instance()
        values = entity.__dict__
        for (name, reader), value in zip(self._readers, row, strict=True):
            values[name] = value if reader is None or (value is None and name not in self._json) else reader(value)
        make_transient_to_detached(entity)
        # By this event SQLAlchemy hangs mutable JSON values into their entity, so that changes inside are seen.
        self._manager.dispatch.load(instance_state(entity), None)
        return entity

    def insertion(self, entity: E) -> tuple[Sql, list[Any]]:
        """The statement that inserts an entity, and its values.

        What is empty or was never assigned is left to the defaults of the database, which are those of the entity:
        most rows need a quarter of their columns. There are few such sets of columns, so each has its own statement.
        """
        values = entity.__dict__
        names, parameters = [], []
        for name, writer, is_json in self._writers:
            value = values.get(name)
            if value is not None and (value or not is_json):
                names.append(name)
                parameters.append(value if writer is None else writer(value))
        return self._insert_sql(tuple(names)), parameters

    def mark_inserted(self, entity: E, row: Sequence[Any]) -> dict[str, Any]:
        """Take over what the database filled in; from here on the entity counts as stored.

        Returns: what ``mark_removed`` needs.
        """
        values = entity.__dict__
        given = {name: values[name] for name in self._generated if name in values}
        for name, default in self._defaults:
            values.setdefault(name, default)
        values.update(zip(self._generated, row, strict=True))
        make_transient_to_detached(entity)
        return given

    def mark_removed(self, entity: E, given: dict[str, Any]) -> None:
        """After a rollback: the entity is new again, without what the database had filled in."""
        make_transient(entity)
        values = entity.__dict__
        for name in self._generated:
            values.pop(name, None)
        values.update(given)

    def _insert_sql(self, names: tuple[str, ...]) -> Sql:
        if names not in self._insertions:
            columns = _names(self._columns[name] for name in names)
            places = ", ".join(["%s"] * len(names))
            text = f"INSERT INTO {self._table} ({columns}) VALUES ({places}) RETURNING {self._returning}"  # noqa: S608  (only names)
            self._insertions[names] = Sql(f"{self._table}.insert", text)
        return self._insertions[names]


def loaded_columns(entity: type[Entity]) -> dict[str, ColumnElement[Any]]:
    """The columns that are read with an entity, by the names of its attributes."""
    attributes = inspect(entity).column_attrs
    return {attribute.key: attribute.columns[0] for attribute in attributes if not attribute.deferred}


@cache
def row_mapper(entity: type[E], dialect: Dialect) -> RowMapper[E]:
    """The mapper of an entity, built once for each engine."""
    return RowMapper(entity, dialect)


def _names(columns: Iterable[ColumnElement[Any]]) -> str:
    return ", ".join(f'"{column.key}"' for column in columns)


def _default(column: ColumnElement[Any]) -> Any:
    default = column.default if isinstance(column, Column) else None
    return default.arg if isinstance(default, ScalarElementColumnDefault) else None


def _is_time(column: ColumnElement[Any]) -> bool:
    """Whether the database's clock fills the column in when the application does not."""
    return isinstance(column, Column) and isinstance(column.type, DateTime) and column.server_default is not None


def _reader(column: ColumnElement[Any], dialect: Dialect) -> Callable[[Any], Any] | None:
    kind = _NUMERIC if isinstance(column.type, Numeric) else _DOUBLE_PRECISION
    return column.type.dialect_impl(dialect).result_processor(dialect, kind)


def _writer(column: ColumnElement[Any], dialect: Dialect) -> Callable[[Any], Any] | None:
    return column.type.dialect_impl(dialect).bind_processor(dialect)
