"""The reference of tables, from the entities."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType

from sqlalchemy import Column, Table
from sqlalchemy.dialects import postgresql

from data_layer import entities
from data_layer.entities import Entity

_DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it untyped.


def render() -> str:
    """A section for each table."""
    lines: list[str] = []
    classes = {mapper.local_table: mapper.class_ for mapper in Entity.registry.mappers}
    for table in sorted(Entity.metadata.sorted_tables, key=lambda table: table.name):
        lines += [f"## {table.name}", "", _prose(table, classes.get(table)), "", *_columns(table), ""]
    return "\n".join(lines)


def type_name(column: Column[object]) -> str:
    """The type as PostgreSQL writes it, in lower case."""
    return column.type.compile(dialect=_DIALECT).lower()


def _prose(table: Table, entity: type | None) -> str:
    """What the class says, or, of a table that has none, its module."""
    source = entity or _module_of(table)
    return (inspect.getdoc(source) or "").replace("``", "`")


def _module_of(table: Table) -> ModuleType:
    names = (f"{entities.__name__}.{module.name}" for module in iter_modules(entities.__path__))
    return next(module for module in map(import_module, names) if vars(module).get(table.name) is table)


def _columns(table: Table) -> Iterator[str]:
    yield from ("| column | type | |", "| --- | --- | --- |")
    for column in table.columns:
        facts = ["primary key"] if column.primary_key else []
        facts += [
            f"→ [{key.column.table.name}](#{key.column.table.name.replace('_', '-')})" for key in column.foreign_keys
        ]
        facts += ["may be null"] if column.nullable else []
        yield f"| `{column.name}` | {type_name(column)} | {', '.join(facts)} |"
