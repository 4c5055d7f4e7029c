"""The entities of one transaction: each row is one object, new rows are inserted together, changes are found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast

from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm.attributes import instance_state, set_committed_value

from data_layer.database.failures import translated
from data_layer.database.rows import mark_removed, row_plan
from data_layer.database.transaction import uninterrupted
from data_layer.entities import Entity

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from uuid import UUID

    from sqlalchemy import CursorResult, Executable, Result, Select
    from sqlalchemy.sql.dml import UpdateBase

    from data_layer.database.connection_source import ConnectionSource
    from data_layer.database.rows import RowPlan
    from data_layer.database.statements import Sql, Statement
    from data_layer.database.transaction import Transaction

    RunStatements = Callable[[Sequence[Statement]], Awaitable[list[tuple[Any, ...] | None]]]

E = TypeVar("E", bound=Entity)


class EntitySession:
    """What a transaction knows of its entities.

    Insertions and reads by id take the short way of ``rows``; everything else is done by an ORM session on the same
    connection, which is made when it is first needed.
    """

    def __init__(self, database: ConnectionSource, transaction: Transaction) -> None:
        self._database = database
        self._transaction = transaction
        self._new: list[Entity] = []
        self._known: dict[tuple[type[Entity], UUID], Entity] = {}
        self._inserted: list[Entity] = []
        self._orm: AsyncSession | None = None

    def add(self, entity: Entity) -> None:
        """Take an entity in: a new one will be inserted, one that is stored already will have its changes written."""
        self._transaction.require_open()
        if instance_state(entity).key is None:
            self._transaction.require_writable()
            if not any(entity is other for other in self._new):
                self._new.append(entity)
        else:
            self._know(entity)

    async def get(self, entity_type: type[E], entity_id: UUID) -> E | None:
        """The entity with this id: the object that this transaction knows already, or the stored row."""
        self._transaction.require_open()
        await self._insert_new()
        known = self._known.get((entity_type, entity_id))
        if known is not None:
            return known  # type: ignore[return-value]  # The key holds the type.
        plan = self._plan(entity_type)
        row = await self._transaction.fetch_one(plan.select_sql, (entity_id,))
        if row is None:
            return None
        entity = plan.read(row)
        self._know(entity)
        return entity

    async def find(self, statement: Select[E]) -> Sequence[E]:
        """The entities that a query selects."""
        result = await self.execute(statement)
        entities = result.scalars().all()
        for entity in entities:
            self._known.setdefault((type(entity), entity.id), entity)
        return entities

    async def execute(self, statement: Executable) -> Result[Any]:
        """Execute any statement inside the transaction, after what is pending was written."""
        await self.flush()
        session = await self.orm()
        with translated():
            return await session.execute(statement)

    async def run(self, *statements: Statement) -> list[tuple[Any, ...] | None]:
        """Execute SQL on the driver's connection, in one round trip, after what is pending; the first row of each."""
        await self.flush()
        return await self._transaction.run(statements)

    async def fetch_one(self, sql: Sql, parameters: Sequence[Any]) -> tuple[Any, ...] | None:
        """The first row of a single read on the driver's connection, which does not begin the transaction."""
        await self.flush()
        return await self._transaction.fetch_one(sql, parameters)

    async def change(self, statement: UpdateBase) -> CursorResult[Any]:
        """Execute a statement that changes rows without loading them; known entities are not touched."""
        result = await self.execute(statement.execution_options(synchronize_session=False))
        return cast("CursorResult[Any]", result)

    async def orm(self) -> AsyncSession:
        """SQLAlchemy's session on the connection of this transaction, which begins with it."""
        if self._orm is None:
            await self._transaction.begin()
            connection = await self._transaction.connection()
            self._orm = AsyncSession(connection, expire_on_commit=False)
            self._orm.add_all(self._known.values())
        return self._orm

    async def flush(self) -> None:
        """Write what is pending: new rows first, then changes."""
        await self._insert_new()
        if not self._has_changes():
            return
        if any(instance_state(entity).modified for entity in self._known.values()):
            self._transaction.require_writable()
        session = await self.orm()
        with translated():
            await session.flush()

    async def commit(self) -> None:
        """Write what is pending and make it last. It goes on to its end when the caller is cancelled meanwhile."""
        if self._new and self._transaction.can_commit_at_once and not self._has_changes():
            await uninterrupted(self._insert_new(self._transaction.run_and_commit))
            return
        await self.flush()
        if self._transaction.has_begun:
            await uninterrupted(self._transaction.commit())

    def forget(self, entity: Entity) -> None:
        """Let go of an entity whose row was removed or rewritten by a statement."""
        self._known.pop((type(entity), entity.id), None)
        if self._orm is not None and entity in self._orm:
            self._orm.expunge(entity)

    def take_over(self, entity_type: type[Entity], entity_id: UUID, values: dict[str, Any]) -> None:
        """Show in a known entity what a statement has stored."""
        entity = self._known.get((entity_type, entity_id))
        if entity is not None:
            for name, value in values.items():
                set_committed_value(entity, name, value)

    async def close(self, *, committed: bool) -> None:
        """Let go of everything; after a rollback what was inserted counts as new again."""
        try:
            if self._orm is not None:
                await uninterrupted(self._orm.close())
        finally:
            if not committed:
                for entity in self._inserted:
                    mark_removed(entity)
            self._new.clear()
            self._known.clear()
            self._inserted.clear()

    def _has_changes(self) -> bool:
        """Whether there may be changes that only the ORM session can write."""
        return self._orm is not None or any(instance_state(entity).modified for entity in self._known.values())

    async def _insert_new(self, run: RunStatements | None = None) -> None:
        if not self._new:
            return
        entities = sorted(self._new, key=_table_rank)
        plans: list[RowPlan[Any]] = [self._plan(type(entity)) for entity in entities]
        statements = [plan.insertion(entity) for plan, entity in zip(plans, entities, strict=True)]
        rows = await (run or self._transaction.run)(statements)
        self._new.clear()
        for plan, entity, row in zip(plans, entities, rows, strict=True):
            plan.mark_inserted(entity, row or ())
            self._inserted.append(entity)
            self._know(entity)

    def _know(self, entity: Entity) -> None:
        self._known[type(entity), entity.id] = entity
        if self._orm is not None:
            self._orm.add(entity)

    def _plan(self, entity_type: type[E]) -> RowPlan[E]:
        return row_plan(entity_type, self._database.dialect)


_RANKS = {table.name: rank for rank, table in enumerate(Entity.metadata.sorted_tables)}


def _table_rank(entity: Entity) -> int:
    """Rows that others refer to come first; within a table the order of adding is kept."""
    return _RANKS[entity.__tablename__]
