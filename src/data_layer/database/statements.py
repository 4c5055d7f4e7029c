"""Statements have names: static ones, under which they are measured, traced and logged, never by their text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Self, TypeVar
from weakref import WeakKeyDictionary

from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.selectable import (
    AliasedReturnsRows,
    CompoundSelect,
    Join,
    Select,
    SelectStatementGrouping,
    TableClause,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Executable
    from sqlalchemy.engine import ExecutionContext

    AnyExecutable = TypeVar("AnyExecutable", bound=Executable)

NAME_OPTION: Final = "statement_name"
UNNAMED: Final = "unnamed"
"""What SQL of an application is called to which it gave no name with ``named``."""


class Sql(str):
    """The text of a statement for the driver, and the statement's name, such as ``users.select``."""

    __slots__ = ("name",)
    name: str

    def __new__(cls, name: str, text: str) -> Self:
        """Give a text a name. Only constants and names of the models may stand in either."""
        sql = super().__new__(cls, text)
        sql.name = name
        return sql


Statement = tuple[Sql, "Sequence[Any] | None"]


def named(name: str, statement: AnyExecutable) -> AnyExecutable:
    """Give a name to a statement of SQLAlchemy; without one it is called after its table and what it does to it."""
    return statement.execution_options(**{NAME_OPTION: name})


class StatementNames:
    """Finds the names of the statements that SQLAlchemy executes."""

    def __init__(self) -> None:
        # SQLAlchemy keeps compiled statements and uses them again, so that a name is seldom derived twice.
        self._derived: WeakKeyDictionary[SQLCompiler, str] = WeakKeyDictionary()

    def of(self, context: ExecutionContext) -> str:
        """The name of a statement: the one that it was given, or one after its table and what it does to it."""
        name: str | None = context.execution_options.get(NAME_OPTION)
        if name is not None:
            return name
        compiled = context.compiled
        if not isinstance(compiled, SQLCompiler):
            return UNNAMED
        name = self._derived.get(compiled)
        if name is None:
            name = self._derived[compiled] = _derived(compiled)
        return name


def _derived(compiled: SQLCompiler) -> str:
    statement: Any = compiled.statement
    if compiled.isinsert or compiled.isupdate or compiled.isdelete:
        kind = "insert" if compiled.isinsert else "update" if compiled.isupdate else "delete"
        return f"{_first_table(statement.table)}.{kind}"
    table = _first_table(statement)
    return table if table == UNNAMED else f"{table}.select"


def _first_table(source: Any) -> str:
    """The name of the table that a query or a source of rows begins with."""
    match source:
        case TableClause():
            return str(source.name)
        case Join():
            return _first_table(source.left)
        case Select():
            sources = source.get_final_froms()
            return _first_table(sources[0]) if sources else UNNAMED
        case CompoundSelect():
            return _first_table(source.selects[0])
        case AliasedReturnsRows() | SelectStatementGrouping():
            return _first_table(source.element)
        case _:
            return UNNAMED
