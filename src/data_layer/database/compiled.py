"""Statements of SQLAlchemy that are compiled once and then executed by the driver.

To compose a statement, to look it up and to execute it costs SQLAlchemy more than PostgreSQL needs for a single row
(``make bench-database`` shows it), so those on the way of every request are taken out of its hands.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

from data_layer.database.statements import Sql

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.sql.compiler import SQLCompiler
    from sqlalchemy.sql.elements import CompilerElement

    Writer = Callable[[Any], Any]

_DIALECT = PGDialect_psycopg(paramstyle="format")  # type: ignore[no-untyped-call]  # SQLAlchemy has no types here


class CompiledStatement:
    """A statement whose values are given by name, for its ``bindparam``, whenever it is executed.

    Args:
        name: Under which it is measured, traced and logged.
        compose: Makes the statement; called when it is first used, and then never again.
    """

    def __init__(self, name: str, compose: Callable[[], CompilerElement]) -> None:
        self._name = name
        self._compose = compose
        self._sql: Sql | None = None
        self._places: list[tuple[str, Any, Writer | None]] = []

    def given(self, **values: Any) -> tuple[Sql, list[Any]]:
        """The statement with these values, for the driver."""
        sql = self._sql or self._compile()
        return sql, [
            value if writer is None or value is None else writer(value)
            for value, writer in ((values.get(name, fixed), writer) for name, fixed, writer in self._places)
        ]

    def _compile(self) -> Sql:
        compiled = cast("SQLCompiler", self._compose().compile(dialect=_DIALECT))
        for name in compiled.positiontup or ():
            bind = compiled.binds[name]
            writer = bind.type.dialect_impl(_DIALECT).bind_processor(_DIALECT)
            self._places.append((name, compiled.params[name], cast("Writer | None", writer)))
        self._sql = Sql(self._name, compiled.string)
        return self._sql
