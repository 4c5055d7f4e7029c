"""Statements: the names under which they are measured and logged, comments that name the request, compiling once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Self, TypeVar, cast
from urllib.parse import quote
from weakref import WeakKeyDictionary

from sqlalchemy import Dialect, Executable
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.engine import ExecutionContext
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import CompilerElement
from sqlalchemy.sql.selectable import (
    AliasedReturnsRows,
    CompoundSelect,
    Join,
    Select,
    SelectStatementGrouping,
    TableClause,
)

from data_layer.context import current_context

AnyExecutable = TypeVar("AnyExecutable", bound=Executable)

Writer = Callable[[Any], Any]

NAME_OPTION: Final = "statement_name"
UNNAMED: Final = "unnamed"
"""What SQL of an application is called to which it gave no name with ``named``."""


class NamedQuery(str):
    """The text of a statement for the driver, and the statement's name, such as ``users.select``."""

    __slots__ = ("name",)
    name: str

    def __new__(cls, name: str, text: str) -> Self:
        """Give a text a name. Only constants and names of the models may stand in either."""
        sql = super().__new__(cls, text)
        sql.name = name
        return sql


class NumberedQuery(NamedQuery):
    """A text in which ``$1``, ``$2`` … stand for the parameters, as PostgreSQL takes it.

    The driver looks through any other text for ``%s`` each time if it has more than 50 of them, which costs more than
    all else that it does for the statement.
    """

    __slots__ = ()


Statement = tuple[NamedQuery, "Sequence[Any] | None"]


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


_LONGEST_VALUE = 255


class SqlComments:
    """Writes the comments.

    Args:
        traceparent: returns the current span, in the form of W3C's ``traceparent``, if there is one.
    """

    def __init__(self, traceparent: Callable[[], str | None] | None = None) -> None:
        self.traceparent = traceparent

    def add(self, sql: str, *, has_parameters: bool) -> str:
        """The statement with its comment; without a request to name it stays as it is.

        Args:
            sql: one statement.
            has_parameters: whether the driver looks for placeholders in it, so that a percent sign must be doubled.
        """
        comment = self._comment()
        return f"{sql} {comment.replace('%', '%%') if has_parameters else comment}" if comment else sql

    def add_to_all(self, statements: Sequence[Statement]) -> list[Statement]:
        """The statements with their comments."""
        return [
            (type(sql)(sql.name, self.add(sql, has_parameters=values is not None and type(sql) is NamedQuery)), values)
            for sql, values in statements
        ]

    def _comment(self) -> str:
        values: dict[str, Any] = {
            "correlation_id": current_context().correlation_id,
            "traceparent": self.traceparent() if self.traceparent else None,
        }
        pairs = (f"{name}='{_encoded(value)}'" for name, value in values.items() if value)
        text = ",".join(pairs)
        return f"/*{text}*/" if text else ""


def _encoded(value: str) -> str:
    return quote(value[:_LONGEST_VALUE], safe="", errors="replace")


DIALECT: Final[Dialect] = PGDialect_psycopg(paramstyle="format")  # type: ignore[no-untyped-call]  # SQLAlchemy has no types here
"""How SQLAlchemy writes the statements that go to the driver without it."""


class CompiledStatement:
    """A statement whose values are given by name, for its ``bindparam``, whenever it is executed.

    Args:
        name: Under which it is measured, traced and logged.
        compose: Makes the statement; called when it is first used, and then never again.
    """

    def __init__(self, name: str, compose: Callable[[], CompilerElement]) -> None:
        self._name = name
        self._compose = compose
        self._sql: NamedQuery | None = None
        self._places: list[tuple[str, Any, Writer | None]] = []

    def given(self, **values: Any) -> tuple[NamedQuery, list[Any]]:
        """The statement with these values, for the driver."""
        sql = self._sql or self._compile()
        return sql, [
            value if writer is None or value is None else writer(value)
            for value, writer in ((values.get(name, fixed), writer) for name, fixed, writer in self._places)
        ]

    def _compile(self) -> NamedQuery:
        compiled = cast("SQLCompiler", self._compose().compile(dialect=DIALECT))
        for name in compiled.positiontup or ():
            bind = compiled.binds[name]
            writer = bind.type.dialect_impl(DIALECT).bind_processor(DIALECT)
            self._places.append((name, compiled.params[name], cast("Writer | None", writer)))
        self._sql = NamedQuery(self._name, compiled.string)
        return self._sql
