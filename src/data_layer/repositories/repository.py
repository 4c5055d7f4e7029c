"""What all repositories can do: get, find, list, count; add, delete, increment; rows for lists, without entities."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import date
from typing import Any, Generic, TypeVar
from uuid import UUID

from pydantic import ValidationError
from sqlalchemy import (
    ColumnElement,
    Label,
    Select,
    String,
    Text,
    any_,
    bindparam,
    delete,
    false,
    func,
    inspect,
    literal,
    literal_column,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import InstrumentedAttribute

from data_layer.database.entity_session import EntitySession, loaded_columns
from data_layer.database.statements import AnyExecutable, CompiledStatement, named
from data_layer.entities import Entity
from data_layer.entities.columns import Json, TextList
from data_layer.entities.validation import wanted_value
from data_layer.errors import InvalidValueError, NotFoundError
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
        view: V
        try:
            view = self._validate(values, by_alias=False, by_name=True)
        except ValidationError:
            for name, repair in self._repairs:
                values[name] = repair(values[name])
            view = self._validate(values, by_alias=False, by_name=True)
        return view


def _repair(kind: Json) -> Callable[[Any], Any]:
    return _texts if kind.container is TextList else _object


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


E = TypeVar("E", bound=Entity)

MAXIMUM_PAGE = 1000
MAXIMUM_NUMBER = 2**31 - 1
_SINGLE = (str, int, float, UUID, date)
_found_by: dict[tuple[type[ReadRepository[Any]], tuple[str, ...]], CompiledStatement] = {}


def chosen_once(rows: Select[Any]) -> Select[Any]:
    """The same rows for ``IN`` of a statement that removes them, with LIMIT and SKIP LOCKED kept.

    PostgreSQL may execute a subquery again for each row that it looks at, and would then find other rows each time:
    more would go than the limit says. A materialized WITH query is executed once (PostgreSQL manual, "WITH Queries").
    """
    return select(rows.cte("chosen").prefix_with("MATERIALIZED", dialect="postgresql"))


def is_any(column: ColumnElement[Any] | InstrumentedAttribute[Any], values: Iterable[Any]) -> ColumnElement[bool]:
    """Whether a column has one of these values, which are passed as one array: a statement takes 65,535 parameters."""
    kind = Text() if isinstance(column.type, String) else column.type
    condition: ColumnElement[bool] = column == any_(literal(list(values), ARRAY(kind)))
    return condition


def check_limit(limit: object) -> None:
    """Refuse a page length outside 1 to ``MAXIMUM_PAGE`` with an InvalidValueError."""
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MAXIMUM_PAGE:
        raise InvalidValueError(f"limit must be a number from 1 to {MAXIMUM_PAGE}", field="limit")


def check_number(name: str, value: object) -> None:
    """Refuse what no column of 32 bits holds with an InvalidValueError."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAXIMUM_NUMBER:
        raise InvalidValueError(f"{name} must be a number from 0 to {MAXIMUM_NUMBER}", field=name)


def check_id(name: str, value: object) -> None:
    """Refuse anything but a UUID with an InvalidValueError."""
    if not isinstance(value, UUID):
        raise InvalidValueError(f"{name} must be a UUID, not {type(value).__name__}", field=name)


class ReadRepository(Generic[E]):
    """Rows of one table, to be read.

    Filters are given by name, ``status="active"``, and all must hold. ``None`` means that the column is empty, a list
    that any of its values will do, ``None`` among them; a JSON column holds what the filter holds, and perhaps more.
    """

    entity: type[E]
    compared_by_value: frozenset[str] = frozenset()
    """Columns whose comparison depends on the value, so that no statement with a parameter stands for all."""

    def __init__(self, session: EntitySession) -> None:
        self._session = session

    async def get(self, entity_id: UUID, *, lock: bool = False) -> E:
        """The row with this id.

        Args:
            entity_id: the id.
            lock: keep others from changing the row until the transaction ends.

        Raises:
            NotFoundError: when there is none.
        """
        check_id("entity_id", entity_id)
        if not isinstance(lock, bool):
            raise InvalidValueError(f"lock must be True or False, not {type(lock).__name__}", field="lock")
        entity = await (self._get_locked(entity_id) if lock else self._session.get(self.entity, entity_id))
        if entity is None:
            raise self._not_found(entity_id)
        return entity

    async def find_one(self, **filters: Any) -> E | None:
        """A row that fits, or ``None``; any of them when several do.

        Raises:
            InvalidValueError: for a name that is not a column.
        """
        if all(isinstance(value, _SINGLE) for value in filters.values()) and self.compared_by_value.isdisjoint(filters):
            values = {name: self._stored_form(name, value) for name, value in filters.items()}
            return await self._session.find_row(self.entity, *self._find_statement(tuple(filters)).given(**values))
        found = await self._session.find(self._named("find", self._select(filters).limit(1)))
        return found[0] if found else None

    async def list(
        self, *, limit: int = 100, after: UUID | None = None, order_by: str = "id", **filters: Any
    ) -> Sequence[E]:
        """A page of the rows that fit.

        Args:
            limit: the length of the page, 1000 at most.
            after: the id of the last row of the page before; only with ``order_by="id"`` or ``"-id"``.
            order_by: the name of a column; with a minus sign in front, largest first. Ids are ordered by time.
            filters: see the class.

        Raises:
            InvalidValueError: for a name that is not a column, or a limit out of range.
        """
        check_limit(limit)
        if not isinstance(order_by, str):
            raise InvalidValueError(
                f"order_by must be the name of a column, not {type(order_by).__name__}", field="order_by"
            )
        descending = order_by.startswith("-")
        column = self._column(order_by.removeprefix("-"), argument="order_by")
        statement = self._select(filters)
        if after is not None:
            check_id("after", after)
            if column is not self._column("id"):
                raise InvalidValueError("after needs order_by id or -id", field="after")
            statement = statement.where(column < after if descending else column > after)
        order = [column.desc() if descending else column.asc()]
        return await self._session.find(self._named("list", statement.order_by(*order).limit(limit)))

    async def count(self, **filters: Any) -> int:
        """How many rows fit."""
        statement = select(func.count()).select_from(self.entity).where(*self._conditions(filters))
        return int((await self._session.execute(self._named("count", statement))).scalar_one())

    async def _get_locked(self, entity_id: UUID) -> E | None:
        statement = self._select({"id": entity_id}).with_for_update().execution_options(populate_existing=True)
        found = await self._session.find(self._named("lock", statement))
        return found[0] if found else None

    def _find_statement(self, names: tuple[str, ...]) -> CompiledStatement:
        """The statement that finds a row by these columns, composed once: it is needed in nearly every transaction."""
        statement = _found_by.get((type(self), names))
        if statement is None:
            columns = loaded_columns(self.entity).values()
            wanted = [(self._column(name), name) for name in names]
            conditions = [column == bindparam(name, type_=column.type) for column, name in wanted]
            query = select(*columns).where(*conditions).limit(literal_column("1"))
            statement = _found_by[type(self), names] = CompiledStatement(f"{self._table}.find", lambda: query)
        return statement

    def _select(self, filters: dict[str, Any]) -> Select[E]:
        return select(self.entity).where(*self._conditions(filters))

    def _conditions(self, filters: dict[str, Any]) -> Sequence[ColumnElement[bool]]:
        return [self._condition(name, value) for name, value in filters.items()]

    def _condition(self, name: str, value: Any) -> ColumnElement[bool]:
        column = self._column(name)
        if value is None:
            return column.is_(None)
        if isinstance(column.type, Json):
            contains: ColumnElement[bool] = column.contains(self._stored_form(name, value))
            return contains
        if isinstance(value, list | tuple | set | frozenset):
            values = [self._stored_form(name, one) for one in value if one is not None]
            equals_one = (
                or_(false(), *map(column.__eq__, values)) if name in self.compared_by_value else is_any(column, values)
            )
            return or_(column.is_(None), equals_one) if None in value else equals_one
        equal: ColumnElement[bool] = column == self._stored_form(name, value)
        return equal

    def _stored_form(self, name: str, value: Any) -> Any:
        """A value that is looked for, in the one form in which its column holds it.

        Raises:
            InvalidValueError: it is of another type than the column.
        """
        return wanted_value(self.entity, name, value)

    def _column(self, name: str, *, argument: str | None = None) -> InstrumentedAttribute[Any]:
        names = inspect(self.entity).column_attrs.keys()
        if name not in names:
            raise InvalidValueError(
                f"{self._table} has no column {name[:100]!a}; it has: {', '.join(names)}", field=argument or name
            )
        column: InstrumentedAttribute[Any] = getattr(self.entity, name)
        return column

    def _named(self, kind: str, statement: AnyExecutable) -> AnyExecutable:
        return named(f"{self._table}.{kind}", statement)

    def _not_found(self, entity_id: UUID) -> NotFoundError:
        return NotFoundError(f"{self._table} has no row with the id {entity_id}")

    @property
    def _table(self) -> str:
        return str(self.entity.__tablename__)


class AppendRepository(ReadRepository[E]):
    """Rows of one table that are added and read, never changed."""

    def add(self, entity: E) -> None:
        """Insert the row when the transaction is flushed or committed."""
        self._session.add(entity)


class Repository(AppendRepository[E]):
    """Rows of one table, to be read and changed. Changing attributes of an entity that was read changes its row."""

    async def delete(self, entity: E) -> None:
        """Remove the row.

        Raises:
            NotFoundError: when it is gone already.
            StillReferencedError: while other rows refer to it.
        """
        table = inspect(self.entity).local_table
        result = await self._session.change(delete(self.entity).where(table.c.id == entity.id))
        if result.rowcount == 0:
            raise self._not_found(entity.id)
        self._session.forget(entity)

    async def increment(self, entity_id: UUID, *counters: str, amount: int = 1) -> None:
        """Add to counters of a row, in SQL, so that no simultaneous addition is lost.

        Raises:
            NotFoundError: the row does not exist.
            InvalidValueError: for a name that is not a counter.
        """
        check_id("entity_id", entity_id)
        check_number("amount", amount)
        columns = {name: self._column(name) for name in counters}
        for name, column in columns.items():
            if not column.info.get("counter"):
                raise InvalidValueError(f"{name} is not a counter of {self._table}", field=name)
        changes: dict[str, Any] = {name: column + amount for name, column in columns.items()}
        # Counting does not change the content, so the time of the last change stays.
        if "updated_at" in inspect(self.entity).column_attrs:
            changes["updated_at"] = self._column("updated_at")
        statement = update(self.entity).where(self.entity.id == entity_id).values(changes).returning(*columns.values())
        row = (await self._session.change(statement)).one_or_none()
        if row is None:
            raise self._not_found(entity_id)
        self._session.take_over(self.entity, entity_id, dict(zip(columns, row, strict=True)))
