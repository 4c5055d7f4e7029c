"""The entities of one transaction: each row is one object, new rows are inserted together, changes are found."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, TypeVar, cast
from uuid import UUID

from sqlalchemy import CursorResult, Executable, Result, Select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm.attributes import instance_state
from sqlalchemy.sql.dml import UpdateBase

from data_layer.concurrency import uninterrupted
from data_layer.database.connection_source import ConnectionSource
from data_layer.database.failures import translated
from data_layer.database.rollback import EntityRollback, WatchedSession
from data_layer.database.rows import RowPlan, row_plan
from data_layer.database.statements import Sql, Statement
from data_layer.database.transaction import Transaction
from data_layer.entities import Entity
from data_layer.errors import ConcurrentChangeError, DatabaseUnavailableError, TransactionClosedError

RunStatements = Callable[[Sequence[Statement]], Awaitable[list[tuple[Any, ...] | None]]]

E = TypeVar("E", bound=Entity)
R = TypeVar("R")

# How long a transaction that ends waits for the statement of another task before it has the server cancel it.
_OTHERS_SECONDS = 1.0


class EntitySession:
    """What a transaction knows of its entities.

    Insertions and reads by id take the short way of ``rows``; everything else is done by an ORM session on the same
    connection, which is made when it is first needed. Tasks that use the same transaction wait for each other.
    """

    def __init__(self, database: ConnectionSource, transaction: Transaction) -> None:
        self._database = database
        self._transaction = transaction
        self._lock = asyncio.Lock()
        self._is_ending = False
        self._new: dict[Entity, None] = {}  # In the order of adding.
        self._known: dict[tuple[type[Entity], UUID], Entity] = {}
        self._rollback = EntityRollback(self._forget_all)
        self._orm: AsyncSession | None = None

    def add(self, entity: Entity) -> None:
        """Take an entity in: a new one will be inserted, one that is stored already will have its changes written."""
        self._require_open()
        if instance_state(entity).key is None:
            self._transaction.require_writable()
            self._new[entity] = None
        else:
            self._know(entity)

    async def get(self, entity_type: type[E], entity_id: UUID) -> E | None:
        """The entity with this id: the object that this transaction knows already, or the stored row."""
        async with self._lock:
            self._require_open()
            await self._insert_new()
            known = self._known.get((entity_type, entity_id))
            if known is not None:
                return known  # type: ignore[return-value]  # The key holds the type.
            plan = self._plan(entity_type)
            row = await self._reading(partial(self._transaction.fetch_one, plan.select_sql, (entity_id,)))
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
        async with self._lock:
            self._require_open()
            await self._flush()
            return await self._reading(partial(self._execute, statement))

    async def run(self, *statements: Statement) -> list[tuple[Any, ...] | None]:
        """Execute SQL on the driver's connection, in one round trip, after what is pending; the first row of each."""
        async with self._lock:
            self._require_open()
            await self._flush()
            return await self._transaction.run(statements)

    async def fetch_one(self, sql: Sql, parameters: Sequence[Any]) -> tuple[Any, ...] | None:
        """The first row of a single read on the driver's connection, which does not begin the transaction."""
        async with self._lock:
            self._require_open()
            await self._flush()
            return await self._reading(partial(self._transaction.fetch_one, sql, parameters))

    async def change(self, statement: UpdateBase) -> CursorResult[Any]:
        """Execute a statement that changes rows without loading them; known entities are not touched."""
        result = await self.execute(statement.execution_options(synchronize_session=False))
        return cast("CursorResult[Any]", result)

    async def orm(self) -> AsyncSession:
        """SQLAlchemy's session on the connection of this transaction, after what is pending was written."""
        async with self._lock:
            self._require_open()
            await self._flush()
            return await self._reading(self._session)

    async def flush(self) -> None:
        """Write what is pending: new rows first, then changes."""
        async with self._lock:
            self._require_open()
            await self._flush()

    async def commit(self) -> None:
        """Write what is pending and make it last.

        It goes on to its end when the caller is cancelled meanwhile, but not for long with a silent server.
        """
        async with self._lock:
            self._require_open()
            self._is_ending = True
            if self._new and self._transaction.can_commit_at_once and not self._has_changes():
                await self._transaction.finish(self._insert_new(self._transaction.run_and_commit))
                return
            await self._flush()
            if self._transaction.has_begun:
                await self._transaction.finish(self._transaction.commit())

    def forget(self, entity: Entity) -> None:
        """Let go of an entity whose row was removed or rewritten by a statement."""
        self._known.pop((type(entity), entity.id), None)
        if self._orm is not None and entity in self._orm:
            self._orm.expunge(entity)

    def take_over(self, entity_type: type[Entity], entity_id: UUID, values: dict[str, Any]) -> None:
        """Show in a known entity what a statement has stored."""
        entity = self._known.get((entity_type, entity_id))
        if entity is not None:
            self._rollback.take_over(entity, values)

    async def close(self, *, committed: bool) -> None:
        """Let go of everything; after a rollback what was inserted is new again, and what was changed still changed."""
        self._is_ending = True
        try:
            if self._orm is not None or self._lock.locked():
                await uninterrupted(self._end_use())
        finally:
            if not committed:
                self._rollback.take_back()
            self._new.clear()
            self._known.clear()

    def _require_open(self) -> None:
        self._transaction.require_open()
        if self._is_ending:
            raise TransactionClosedError("the transaction is ending: await what uses it before its block ends")

    async def _end_use(self) -> None:
        try:
            async with asyncio.timeout(_OTHERS_SECONDS):
                await self._lock.acquire()
        except TimeoutError:
            await self._transaction.cancel_statement()
            await self._lock.acquire()
        try:
            if self._orm is not None:
                await self._orm.close()
        finally:
            self._lock.release()

    async def _reading(self, read: Callable[[], Awaitable[R]]) -> R:
        """Read; on the primary where a replica ended it, because it had to follow the primary or has gone."""
        try:
            return await read()
        except (ConcurrentChangeError, DatabaseUnavailableError):
            if not await self._transaction.leave_replica():
                raise
            orm, self._orm = self._orm, None
            if orm is not None:
                await uninterrupted(orm.close())
            return await read()

    async def _execute(self, statement: Executable) -> Result[Any]:
        session = await self._session()
        with translated():
            return await session.execute(statement)

    async def _session(self) -> AsyncSession:
        if self._orm is None:
            await self._transaction.begin()
            connection = await self._transaction.connection()
            session = AsyncSession(connection, expire_on_commit=False, sync_session_class=WatchedSession)
            session.info[EntityRollback] = self._rollback
            self._orm = session
            self._orm.add_all(self._known.values())
        return self._orm

    async def _flush(self) -> None:
        await self._insert_new()
        if not self._has_changes():
            return
        if any(instance_state(entity).modified for entity in self._known.values()):
            self._transaction.require_writable()
        session = await self._session()
        with translated():
            await session.flush()

    def _has_changes(self) -> bool:
        """Whether there may be changes that only the ORM session can write."""
        return self._orm is not None or any(instance_state(entity).modified for entity in self._known.values())

    async def _insert_new(self, run: RunStatements | None = None) -> None:
        if self._orm is not None and self._orm.in_nested_transaction():
            await self._orm.connection()  # SQLAlchemy sends SAVEPOINT no earlier than it needs it itself.
        if not self._new:
            return
        # Taken at once: another task may add more while these travel.
        added, self._new = self._new, {}
        try:
            entities = sorted(added, key=_table_rank)
            plans: list[RowPlan[Any]] = [self._plan(type(entity)) for entity in entities]
            statements = [plan.insertion(entity) for plan, entity in zip(plans, entities, strict=True)]
            rows = await (run or self._transaction.run)(statements)
        except BaseException:
            self._new = added | self._new
            raise
        for plan, entity, row in zip(plans, entities, rows, strict=True):
            self._rollback.inserted(plan, entity, plan.mark_inserted(entity, row or ()))
            self._know(entity)

    def _know(self, entity: Entity) -> None:
        self._known[type(entity), entity.id] = entity
        if self._orm is not None:
            self._orm.add(entity)

    def _forget_all(self, entities: Sequence[Entity]) -> None:
        for entity in entities:
            self.forget(entity)

    def _plan(self, entity_type: type[E]) -> RowPlan[E]:
        return row_plan(entity_type, self._database.dialect)


_RANKS = {table.name: rank for rank, table in enumerate(Entity.metadata.sorted_tables)}


def _table_rank(entity: Entity) -> int:
    """Rows that others refer to come first; within a table the order of adding is kept."""
    return _RANKS[entity.__tablename__]
