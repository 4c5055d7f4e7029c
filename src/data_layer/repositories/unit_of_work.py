"""One database transaction with its repositories: commit at the end, rollback on error and on cancellation."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any, Self

import psycopg
from sqlalchemy.exc import SQLAlchemyError

from data_layer.database.entity_session import EntitySession
from data_layer.database.failures import translate
from data_layer.database.transaction import Transaction, uninterrupted
from data_layer.entities import AuditLog, Entity, Session
from data_layer.errors import NestedTransactionError
from data_layer.repositories.files import FileRepository
from data_layer.repositories.generated import GeneratedCodeRepository, GeneratedImageRepository
from data_layer.repositories.projects import ProjectRepository
from data_layer.repositories.repository import AppendRepository, Repository
from data_layer.repositories.stored_objects import StoredFileRepository
from data_layer.repositories.users import UserRepository

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence
    from types import TracebackType

    from sqlalchemy import Executable, Result
    from sqlalchemy.ext.asyncio import AsyncSession

    from data_layer.database.engine import Database

# Child tasks inherit context variables, but not the transaction: so the task is remembered beside it.
_current: ContextVar[tuple[Database, asyncio.Task[Any] | None] | None] = ContextVar("current_transaction", default=None)


class SessionRepository(Repository[Session]):
    """Rows of ``sessions``."""

    entity = Session


class AuditRepository(AppendRepository[AuditLog]):
    """Rows of ``audit_logs``: added and read, never changed."""

    entity = AuditLog


class UnitOfWork:
    """A transaction, used as ``async with data.transaction() as tx``.

    The changes of all entities that were added to it or read through it are written together when the block ends,
    and none of them when it ends with an exception. It takes a connection from the pool at the first statement.
    """

    def __init__(
        self, database: Database, remove_files: Callable[[Sequence[str]], Coroutine[Any, Any, None]] | None = None
    ) -> None:
        self._database = database
        self._remove_files = remove_files
        self._discarded: list[str] = []
        self._token: Token[Any] | None = None
        self._transaction = Transaction(database)
        self._entities = EntitySession(database, self._transaction)
        self.users = UserRepository(self._entities, self._discarded)
        self.projects = ProjectRepository(self._entities, self._discarded)
        self.codes = GeneratedCodeRepository(self._entities, self._discarded)
        self.images = GeneratedImageRepository(self._entities, self._discarded)
        self.sessions = SessionRepository(self._entities)
        self.audit = AuditRepository(self._entities)
        self.files = FileRepository(self._entities)
        self.stored_files = StoredFileRepository(self._entities)

    def add(self, entity: Entity) -> None:
        """Insert a new entity, or write the changes of a stored one, when the transaction is flushed or committed."""
        self._entities.add(entity)

    async def flush(self) -> None:
        """Write what is pending now, for example to learn what the database fills in."""
        await self._entities.flush()

    async def execute(self, statement: Executable) -> Result[Any]:
        """Execute a SQLAlchemy statement for which no repository has a method."""
        return await self._entities.execute(statement)

    async def orm(self) -> AsyncSession:
        """SQLAlchemy's session of this transaction, for what nothing here covers. Do not commit or close it."""
        await self._entities.flush()
        return await self._entities.orm()

    async def __aenter__(self) -> Self:
        task = asyncio.current_task()
        if _current.get() == (self._database, task):
            raise NestedTransactionError(
                "a transaction is open in this task already: pass its `tx` on instead of beginning another one"
            )
        self._transaction.open()
        self._token = _current.set((self._database, task))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        try:
            if error is None:
                await self._entities.commit()
        finally:
            if self._token is not None:
                _current.reset(self._token)
            await self._close()
        if isinstance(error, psycopg.Error | SQLAlchemyError):
            raise translate(error) from error

    async def _close(self) -> None:
        # Also when the caller was cancelled while PostgreSQL was committing.
        committed = self._transaction.is_committed
        # Only what may have to wait is shielded from cancellation: a task for each transaction would cost too much.
        try:
            await self._entities.close(committed=committed)
        finally:
            await self._transaction.close()
        if committed and self._discarded and self._remove_files is not None:
            await uninterrupted(self._remove_files(self._discarded))
