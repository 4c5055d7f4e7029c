"""The entities of one transaction: each row is one object, new rows are inserted together, changes are found.

A rollback takes back in the entities what it undoes in the database, so that the transaction can be repeated with them.

========================  ==========================================================================================
in the transaction        after a rollback
========================  ==========================================================================================
inserted                  new again, without what the database had filled in
changed by assignment     changed still: another transaction to which the entity is added writes it
filled in by a statement  as it was before, because the database has it so: ``updated_at``, counters
removed                   stored again
========================  ==========================================================================================

SQLAlchemy counts what it has flushed as stored whatever becomes of the transaction, and empties all entities when a
statement of it fails. A rollback to a savepoint of its session puts everything back as it was at the savepoint, because
the entities stay in the transaction and would be written with it.

The two hottest statements, one row in and one row out, go to the driver's own connection. SQLAlchemy's unit of work
costs several times what PostgreSQL needs for such a statement (see ``make bench-database``). So ``get`` by id and the
insertion of new rows build their SQL once per entity, from its columns (``RowMapper``), and psycopg executes it on the
connection and inside the transaction that the ORM session uses as well.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Generic, TypeVar, cast
from uuid import UUID

from sqlalchemy import (
    Column,
    ColumnElement,
    CursorResult,
    DateTime,
    Executable,
    Numeric,
    Result,
    Select,
    event,
    inspect,
    select,
)
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import ClassManager, Session, SessionTransaction, make_transient, make_transient_to_detached
from sqlalchemy.orm.attributes import flag_modified, instance_state, set_committed_value
from sqlalchemy.sql.dml import UpdateBase
from sqlalchemy.sql.schema import ScalarElementColumnDefault

from data_layer.concurrency import settled, uninterrupted
from data_layer.database.driver import translated
from data_layer.database.statements import DIALECT, NamedQuery, Statement
from data_layer.database.transaction import ConnectionSource, Transaction
from data_layer.entities import Entity
from data_layer.entities.columns import Json
from data_layer.errors import ConcurrentChangeError, DatabaseUnavailableError, TransactionClosedError
from data_layer.schemas.base import Outcome

E = TypeVar("E", bound=Entity)
# PostgreSQL's object ids of types, by which SQLAlchemy chooses how to read a number.
_DOUBLE_PRECISION = 701
_NUMERIC = 1700


class RowMapper(Generic[E]):
    """How rows of one entity are read and inserted with plain SQL."""

    def __init__(self, entity: type[E]) -> None:
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
        self._readers = [(name, _reader(column)) for name, column in loaded.items()]
        self._writers = [(name, _writer(columns[name]), isinstance(columns[name].type, Json)) for name in given]
        self._defaults = [(name, _default(columns[name])) for name in given]
        self._generated = list(generated)
        self._insertions: dict[tuple[str, ...], NamedQuery] = {}
        # Only names from the models stand in these texts; values are passed as parameters.
        columns_of_row = select(*loaded.values()).compile(dialect=DIALECT)
        self.select_sql = NamedQuery(f"{self._table}.select", f"{columns_of_row} WHERE {self._table}.id = %s")
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

    def insertion(self, entity: E) -> tuple[NamedQuery, list[Any]]:
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

    def _insert_sql(self, names: tuple[str, ...]) -> NamedQuery:
        if names not in self._insertions:
            columns = _names(self._columns[name] for name in names)
            places = ", ".join(["%s"] * len(names))
            text = f"INSERT INTO {self._table} ({columns}) VALUES ({places}) RETURNING {self._returning}"  # noqa: S608  (only names)
            self._insertions[names] = NamedQuery(f"{self._table}.insert", text)
        return self._insertions[names]


def loaded_columns(entity: type[Entity]) -> dict[str, ColumnElement[Any]]:
    """The columns that are read with an entity, by the names of its attributes."""
    attributes = inspect(entity).column_attrs
    return {attribute.key: attribute.columns[0] for attribute in attributes if not attribute.deferred}


@cache
def row_mapper(entity: type[E]) -> RowMapper[E]:
    """The mapper of an entity, built once."""
    return RowMapper(entity)


def _names(columns: Iterable[ColumnElement[Any]]) -> str:
    return ", ".join(f'"{column.key}"' for column in columns)


def _default(column: ColumnElement[Any]) -> Any:
    default = column.default if isinstance(column, Column) else None
    return default.arg if isinstance(default, ScalarElementColumnDefault) else None


def _is_time(column: ColumnElement[Any]) -> bool:
    """Whether the database's clock fills the column in when the application does not."""
    return isinstance(column, Column) and isinstance(column.type, DateTime) and column.server_default is not None


def _reader(column: ColumnElement[Any]) -> Callable[[Any], Any] | None:
    kind = _NUMERIC if isinstance(column.type, Numeric) else _DOUBLE_PRECISION
    return column.type.dialect_impl(DIALECT).result_processor(DIALECT, kind)


def _writer(column: ColumnElement[Any]) -> Callable[[Any], Any] | None:
    return column.type.dialect_impl(DIALECT).bind_processor(DIALECT)


Values = dict[str, Any]
R = TypeVar("R")

_Savepoint = tuple[int, dict[Entity, set[str]], set[Entity], set[Entity], dict[Entity, Values]]


class WatchedSession(Session):
    """A session that reports to the ``EntitySession`` in its ``info`` what it writes."""


class EntityRollback:
    """Remembers how the entities of one transaction were."""

    def __init__(self) -> None:
        self._inserted: list[tuple[RowMapper[Any], Entity, Values]] = []
        self._before: dict[Entity, Values] = {}
        self._changed: dict[Entity, set[str]] = {}
        self._flushed: dict[Entity, Values] = {}
        self._taken_over: dict[Entity, Values] = {}
        self._added: set[Entity] = set()
        self._removed: set[Entity] = set()
        self._savepoints: dict[SessionTransaction, _Savepoint] = {}

    def inserted(self, mapper: RowMapper[Any], entity: Entity, given: Values) -> None:
        """Remember a row that was inserted, and what the mapper needs to take that back."""
        self._inserted.append((mapper, entity, given))

    def take_over(self, entity: Entity, values: Values) -> None:
        """Show in an entity what a statement has stored."""
        before = self._taken_over.setdefault(entity, {})
        for name, value in values.items():
            if name in entity.__dict__:
                before.setdefault(name, entity.__dict__[name])
            set_committed_value(entity, name, value)

    def written(self, entity_type: type[E]) -> Iterable[E]:
        """The entities of a type whose changes were written."""
        return (entity for entity in self._changed if isinstance(entity, entity_type))

    def before_flush(self, session: Session) -> None:
        """Remember what is about to be written."""
        self._flushed.update(_values_in(session))
        for entity in session.dirty:
            changed = instance_state(entity).committed_state
            unchanged = {name: value for name, value in entity.__dict__.items() if name not in changed}
            self._before.setdefault(entity, unchanged)
            self._changed.setdefault(entity, set()).update(changed)
        self._added.update(session.new)
        self._removed.update(session.deleted)

    def after_failure(self) -> None:
        """Fill the entities again that SQLAlchemy has emptied."""
        for entity, values in self._flushed.items():
            if instance_state(entity).key is not None:
                _restore(entity, {name: value for name, value in values.items() if name not in entity.__dict__})

    def savepoint(self, savepoint: SessionTransaction) -> None:
        """Remember how everything is."""
        changed = {entity: set(names) for entity, names in self._changed.items()}
        values = dict(_values_in(savepoint.session))
        self._savepoints[savepoint] = len(self._inserted), changed, set(self._added), set(self._removed), values

    def rolled_back_to(self, savepoint: SessionTransaction, forget: Callable[[Entity], None]) -> None:
        """Put everything back as it was at a savepoint.

        Args:
            savepoint: that was announced before.
            forget: takes an entity out of the transaction that the savepoint has made new again.
        """
        count, changed, added, removed, values = self._savepoints[savepoint]
        self._changed = {entity: set(names) for entity, names in changed.items()}
        self._added, self._removed = set(added), set(removed)
        for entity, stored in values.items():
            _restore(entity, stored)
        inserted = self._inserted[count:]
        del self._inserted[count:]
        for _, entity, _ in inserted:
            forget(entity)
        for mapper, entity, given in inserted:
            mapper.mark_removed(entity, given)

    def take_back(self) -> None:
        """Undo in the entities what the transaction did; its session is closed."""
        for entity in self._removed:
            make_transient(entity)
            make_transient_to_detached(entity)
        for entity, values in (*self._before.items(), *self._taken_over.items()):
            changed = self._changed.get(entity, set()) | instance_state(entity).committed_state.keys()
            _restore(entity, {name: value for name, value in values.items() if name not in changed})
        for entity, names in self._changed.items():
            for name in names & entity.__dict__.keys():
                flag_modified(entity, name)
        for entity in self._added:
            make_transient(entity)
        for mapper, entity, given in self._inserted:
            mapper.mark_removed(entity, given)


def _values_in(session: Session) -> Iterable[tuple[Entity, Values]]:
    entities = ((state.obj(), dict(state.dict)) for state in session.identity_map.all_states())
    return ((entity, values) for entity, values in entities if entity is not None)


def _restore(entity: Entity, values: Values) -> None:
    own = instance_state(entity).manager
    for name, value in values.items():
        if name in own and entity.__dict__.get(name, own) is not value:
            set_committed_value(entity, name, value)


@event.listens_for(WatchedSession, "before_flush")
def _before_flush(session: Session, *_: object) -> None:
    _owner_of(session).rollback.before_flush(session)


@event.listens_for(WatchedSession, "after_transaction_create")
def _after_create(session: Session, transaction: SessionTransaction) -> None:
    if transaction.nested:
        _owner_of(session).rollback.savepoint(transaction)


@event.listens_for(WatchedSession, "after_soft_rollback")
def _after_rollback(session: Session, transaction: SessionTransaction) -> None:
    owner = _owner_of(session)
    savepoint = transaction if transaction.nested else session.get_nested_transaction()
    if savepoint is not None:
        owner.rollback.rolled_back_to(savepoint, owner.forget)
    else:
        owner.rollback.after_failure()


def _owner_of(session: Session) -> EntitySession:
    owner: EntitySession = session.info[EntitySession]
    return owner


Rows = list[tuple[Any, ...]]
RunStatements = Callable[[Sequence[Statement]], Awaitable[list[Rows]]]


# How long a transaction that ends waits for the statement of another task before it has the server cancel it.
_OTHERS_SECONDS = 1.0


@dataclass(slots=True, eq=False)
class Answer:
    """The first row of a statement that waits to be sent; ``None`` before, and if there is none."""

    row: tuple[Any, ...] | None = None


class EntitySession:
    """What a transaction knows of its entities.

    Insertions and reads by id take the short way of ``rows``; everything else is done by an ORM session on the same
    connection, which is made when it is first needed. Tasks that use the same transaction wait for each other.
    """

    def __init__(self, database: ConnectionSource) -> None:
        self._database = database
        self._transaction = Transaction(database)
        self._lock = asyncio.Lock()
        self._is_ending = False
        self._new: dict[Entity, None] = {}  # In the order of adding.
        self._waiting: list[tuple[Statement, Answer]] = []
        self._known: dict[tuple[type[Entity], UUID], Entity] = {}
        self._rollback: EntityRollback | None = None
        self._orm: AsyncSession | None = None

    def add(self, entity: Entity) -> None:
        """Take an entity in: a new one will be inserted, one that is stored already will have its changes written."""
        self._require_open()
        if instance_state(entity).key is None:
            self._transaction.require_writable()
            self._new[entity] = None
        else:
            self._know(entity)

    def add_statement(self, sql: NamedQuery, parameters: Sequence[Any]) -> Answer:
        """Take in a statement that changes rows without entities: it is sent with what is pending, after it."""
        self._require_open()
        self._transaction.require_writable()
        answer = Answer()
        self._waiting.append(((sql, parameters), answer))
        return answer

    async def copy(self, sql: NamedQuery, rows: Iterable[Sequence[str | None]]) -> None:
        """Send rows with ``COPY … FROM STDIN``, after what is pending."""
        async with self._lock:
            self._require_open()
            await self._flush()
            await self._transaction.copy(sql, rows)

    async def get(self, entity_type: type[E], entity_id: UUID) -> E | None:
        """The entity with this id: the object that this transaction knows already, or the stored row."""
        async with self._lock:
            self._require_open()
            await (self._flush() if self._waiting else self._insert_new())
            known = self._known.get((entity_type, entity_id))
            if known is not None:
                return known  # type: ignore[return-value]  # The key holds the type.
            mapper = row_mapper(entity_type)
            row = await self._reading(partial(self._transaction.fetch_one, mapper.select_sql, (entity_id,)))
            return None if row is None else self._entity_of(entity_type, row)

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
        """Execute SQL on the driver's connection, together with what is pending, after it; the first row of each."""
        return [rows[0] if rows else None for rows in await self.run_all(*statements)]

    async def run_all(self, *statements: Statement) -> list[Rows]:
        """The same with all rows of each. It is one round trip, unless an entity that was loaded has changed."""
        async with self._lock:
            self._require_open()
            return await self._flush(*statements)

    async def fetch_one(self, sql: NamedQuery, parameters: Sequence[Any]) -> tuple[Any, ...] | None:
        """The first row of a single read on the driver's connection, which does not begin the transaction."""
        async with self._lock:
            self._require_open()
            await self._flush()
            return await self._reading(partial(self._transaction.fetch_one, sql, parameters))

    async def fetch_all(self, *queries: Statement) -> list[list[tuple[Any, ...]]]:
        """The rows of several reads on the driver's connection, which do not begin the transaction."""
        async with self._lock:
            self._require_open()
            await self._flush()
            return await self._reading(partial(self._transaction.fetch_all, *queries))

    async def find_row(self, entity_type: type[E], sql: NamedQuery, parameters: Sequence[Any]) -> E | None:
        """The first row of a query for ``loaded_columns``: the object that this transaction knows, or a new one."""
        row = await self.fetch_one(sql, parameters)
        return None if row is None else self._entity_of(entity_type, row)

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
            if self.writes_at_once:
                await self._finish(self._send(run=self._transaction.run_and_commit))
                return
            await self._flush()
            if self._transaction.has_begun:
                await self._finish(self._transaction.commit())

    def forget(self, entity: Entity) -> None:
        """Let go of an entity whose row was removed or rewritten by a statement."""
        self._known.pop((type(entity), entity.id), None)
        if self._orm is not None and entity in self._orm:
            self._orm.expunge(entity)

    def take_over(self, entity_type: type[Entity], entity_id: UUID, values: dict[str, Any]) -> None:
        """Show in a known entity what a statement has stored."""
        entity = self._known.get((entity_type, entity_id))
        if entity is not None:
            self.rollback.take_over(entity, values)

    def changed(self, entity_type: type[E]) -> set[UUID]:
        """The ids of the stored entities of a type that this transaction has changed, or will with the next flush."""
        if not self._known and self._rollback is None:
            return set()
        known = (entity for entity in self._known.values() if isinstance(entity, entity_type))
        pending = (entity for entity in known if instance_state(entity).modified)
        return {entity.id for entity in (*self.rollback.written(entity_type), *pending)}

    @property
    def rollback(self) -> EntityRollback:
        """How the entities were; it knows nothing of this session, or each transaction would leave a cycle behind."""
        if self._rollback is None:
            self._rollback = EntityRollback()
        return self._rollback

    @property
    def writes_at_once(self) -> bool:
        """Whether ``commit`` sends everything that is to be written together with the commit, in one round trip."""
        is_pending = bool(self._new or self._waiting)
        return is_pending and self._transaction.can_commit_at_once and not self._has_changes()

    @property
    def outcome(self) -> Outcome:
        """How the transaction ended; while it is open, how it would end without a commit."""
        return self._transaction.outcome

    @property
    def position(self) -> str | None:
        """Where PostgreSQL's log was after the commit, if the database reports it."""
        return self._transaction.position

    def open(self) -> None:
        """Allow use from here to ``close``.

        Raises:
            TransactionClosedError: when it was used before.
        """
        self._transaction.open()

    async def close(self) -> None:
        """End the transaction, and roll it back unless it is committed.

        After a rollback what was inserted is new again, and what was changed is still changed.
        """
        self._is_ending = True
        try:
            await self._let_go()
        finally:
            await self._transaction.close()

    def _require_open(self) -> None:
        self._transaction.require_open()
        if self._is_ending:
            raise TransactionClosedError("the transaction is ending: await what uses it before its block ends")

    async def _finish(self, commit: Coroutine[Any, Any, object]) -> None:
        """Let a commit end even when the caller is cancelled meanwhile, but wait no longer for a silent server then.

        The cancellation is raised afterwards, whatever the outcome.
        """
        task = asyncio.create_task(commit)
        cancellation = await settled(task, on_cancel=partial(self._transaction.shorten_commit, task))
        if cancellation is not None:
            raise cancellation from (None if task.cancelled() else task.exception())
        task.result()

    async def _let_go(self) -> None:
        # Only what may have to wait is shielded from cancellation: a task for each transaction would cost too much.
        try:
            if self._orm is not None or self._lock.locked():
                await uninterrupted(self._end_use())
        finally:
            if self._rollback is not None and self.outcome is not Outcome.COMMITTED:
                self._rollback.take_back()
            self._new.clear()
            self._waiting.clear()
            self._known.clear()

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
            session.info[EntitySession] = self
            self._orm = session
            self._orm.add_all(self._known.values())
        return self._orm

    async def _flush(self, *further: Statement) -> list[Rows]:
        """Write what is pending, and run further statements after it; the rows of these."""
        if self._has_changes():
            await self._insert_new()
            if any(instance_state(entity).modified for entity in self._known.values()):
                self._transaction.require_writable()
            session = await self._session()
            with translated():
                await session.flush()
        return await self._send(further)

    def _has_changes(self) -> bool:
        """Whether there may be changes that only the ORM session can write."""
        return self._orm is not None or any(instance_state(entity).modified for entity in self._known.values())

    async def _insert_new(self) -> None:
        """Insert the entities that are new."""
        waiting, self._waiting = self._waiting, []
        try:
            await self._send()
        finally:
            self._waiting = waiting + self._waiting

    async def _send(self, further: Sequence[Statement] = (), run: RunStatements | None = None) -> list[Rows]:
        """Insert the entities that are new, run the statements that wait and further ones; the rows of the latter."""
        if self._orm is not None and self._orm.in_nested_transaction():
            await self._orm.connection()  # SQLAlchemy sends SAVEPOINT no earlier than it needs it itself.
        if not (self._new or self._waiting or further):
            return []
        # Taken at once: another task may add more while these travel.
        added, self._new = self._new, {}
        waiting, self._waiting = self._waiting, []
        try:
            entities = sorted(added, key=_table_rank)
            mappers: list[RowMapper[Any]] = [row_mapper(type(entity)) for entity in entities]
            insertions = [mapper.insertion(entity) for mapper, entity in zip(mappers, entities, strict=True)]
            statements = [*insertions, *(statement for statement, _ in waiting), *further]
            answers = [*await (run or self._transaction.run)(statements)]
        except BaseException:
            self._new = added | self._new
            self._waiting = waiting + self._waiting
            raise
        for mapper, entity, rows in zip(mappers, entities, answers, strict=False):
            self.rollback.inserted(mapper, entity, mapper.mark_inserted(entity, rows[0] if rows else ()))
            self._know(entity)
        answers = answers[len(entities) :]
        for (_, answer), rows in zip(waiting, answers, strict=False):
            answer.row = rows[0] if rows else None
        return answers[len(waiting) :]

    def _know(self, entity: Entity) -> None:
        self._known[type(entity), entity.id] = entity
        if self._orm is not None:
            self._orm.add(entity)

    def _entity_of(self, entity_type: type[E], row: Sequence[Any]) -> E:
        entity: E = row_mapper(entity_type).read(row)
        known = self._known.get((entity_type, entity.id))
        if known is not None:
            return known  # type: ignore[return-value]  # The key holds the type.
        self._know(entity)
        return entity


_RANKS = {table.name: rank for rank, table in enumerate(Entity.metadata.sorted_tables)}


def _table_rank(entity: Entity) -> int:
    """Rows that others refer to come first; within a table the order of adding is kept."""
    return _RANKS[entity.__tablename__]
