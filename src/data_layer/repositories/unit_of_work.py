"""One database transaction with its repositories: commit at the end, rollback on error and on cancellation."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

import psycopg
from sqlalchemy import Executable, Result
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from data_layer.concurrency import uninterrupted
from data_layer.database.connection_source import ConnectionSource
from data_layer.database.entity_session import EntitySession
from data_layer.database.failures import translate
from data_layer.database.transaction import Transaction
from data_layer.entities import AuditLog, Entity
from data_layer.errors import CommitUnknownError, NestedTransactionError
from data_layer.repositories.audit import AuditRepository, complete
from data_layer.repositories.designs import DesignSystemRepository
from data_layer.repositories.files import FileRepository
from data_layer.repositories.generated import GeneratedCodeRepository, GeneratedImageRepository
from data_layer.repositories.login_attempts import LoginAttemptRepository
from data_layer.repositories.projects import ProjectRepository
from data_layer.repositories.refresh_tokens import RefreshTokenRepository
from data_layer.repositories.sessions import EndedSessions, SessionRepository
from data_layer.repositories.stored_objects import StoredFileRepository
from data_layer.repositories.users import UserRepository

_current: ContextVar[_Scope | None] = ContextVar("current_transaction", default=None)
# Turns of the event loop after which an asynchronous generator that was left with ``break`` is being closed.
_TURNS = 3
_last_position: ContextVar[str | None] = ContextVar("last_position", default=None)


def last_position() -> str | None:
    """Where PostgreSQL's log was after the last commit of this task, or of the one that started it; None if unknown."""
    return _last_position.get()


@dataclass(slots=True, eq=False)
class _Scope:
    """Where a transaction is open. Child tasks inherit it, but not the transaction: so it knows its task."""

    database: ConnectionSource
    task: asyncio.Task[Any] | None
    outer: _Scope | None
    is_open: bool = True


def _innermost() -> _Scope | None:
    """The open transaction of this context; one that ended in the context of another task may still stand in it."""
    scope = _current.get()
    while scope is not None and not scope.is_open:
        scope = scope.outer
    return scope


class ChangedKeys(Protocol):
    """The keys of the cache whose source one transaction changes. Only ``add`` may fail."""

    def add(self, *keys: str) -> None:
        """Remember keys.

        Raises:
            InvalidCacheKeyError: when one cannot be a key.
        """

    async def before_commit(self) -> None:
        """Keep values from being stored at the keys until the outcome is known; for a minute if it never is."""

    async def after_commit(self, *, is_decided: bool) -> None:
        """Remove what is at the keys; nothing without ``before_commit``.

        Args:
            is_decided: whether it is known that the commit happened or never will.
        """


class UnitOfWork:
    """A transaction, used as ``async with data.transaction() as tx``.

    The changes of all entities that were added to it or read through it are written together when the block ends,
    and none of them when it ends with an exception. It takes a connection from the pool at the first statement.

    Args:
        database: where to.
        remove_files: is told after the commit which files no row names any more.
        make_changed_keys: for ``invalidate``; without it there is no cache.
        forget_sessions: is told after the commit which sessions have ended.
    """

    def __init__(
        self,
        database: ConnectionSource,
        remove_files: Callable[[Sequence[str]], Coroutine[Any, Any, None]] | None = None,
        make_changed_keys: Callable[[], ChangedKeys] | None = None,
        forget_sessions: Callable[[Sequence[EndedSessions]], Coroutine[Any, Any, None]] | None = None,
    ) -> None:
        self._database = database
        self._remove_files = remove_files
        self._make_changed_keys = make_changed_keys
        self._forget_sessions = forget_sessions
        self._changed_keys: ChangedKeys | None = None
        self._discarded: list[str] = []
        self._ended: list[EndedSessions] = []
        self._is_decided = True
        self._scope: _Scope | None = None
        self._transaction = Transaction(database)
        self._entities = EntitySession(database, self._transaction)
        self.users = UserRepository(self._entities, self._discarded)
        self.projects = ProjectRepository(self._entities, self._discarded)
        self.codes = GeneratedCodeRepository(self._entities, self._discarded)
        self.images = GeneratedImageRepository(self._entities, self._discarded)
        self.designs = DesignSystemRepository(self._entities)
        self.sessions = SessionRepository(self._entities, self._ended)
        self.refresh_tokens = RefreshTokenRepository(self._entities)
        self.audit = AuditRepository(self._entities)
        self.login_attempts = LoginAttemptRepository(self._entities)
        self.files = FileRepository(self._entities)
        self.stored_files = StoredFileRepository(self._entities)

    def add(self, entity: Entity) -> None:
        """Insert a new entity, or write the changes of a stored one, when the transaction is flushed or committed."""
        if isinstance(entity, AuditLog):
            complete(entity)
        self._entities.add(entity)

    def invalidate(self, *keys: str) -> None:
        """The cache forgets these keys with the commit: before it, so that nobody stores an old value, and after it.

        Name the keys whose loaders (``cache.get_or_load``) read what this transaction changes.

        Raises:
            InvalidCacheKeyError: when one cannot be a key.
        """
        if self._changed_keys is None and self._make_changed_keys is not None:
            self._changed_keys = self._make_changed_keys()
        if self._changed_keys is not None:
            self._changed_keys.add(*keys)

    async def flush(self) -> None:
        """Write what is pending now, for example to learn what the database fills in."""
        await self._entities.flush()

    async def execute(self, statement: Executable) -> Result[Any]:
        """Execute a SQLAlchemy statement for which no repository has a method."""
        return await self._entities.execute(statement)

    async def orm(self) -> AsyncSession:
        """SQLAlchemy's session of this transaction, for what nothing here covers. Do not commit or close it."""
        return await self._entities.orm()

    async def __aenter__(self) -> Self:
        for _ in range(_TURNS):
            if not self._is_nested():
                break
            await asyncio.sleep(0)
        if self._is_nested():
            raise NestedTransactionError(
                "a transaction is open in this task already: pass its `tx` on instead of beginning another one"
            )
        self._transaction.open()
        self._scope = _Scope(self._database, asyncio.current_task(), _innermost())
        _current.set(self._scope)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        try:
            if error is None:
                await self._commit()
        finally:
            self._leave()
            await self._close()
        if isinstance(error, psycopg.Error | SQLAlchemyError):
            raise translate(error) from error

    def _is_nested(self) -> bool:
        scope = _innermost()
        return scope is not None and (scope.database, scope.task) == (self._database, asyncio.current_task())

    def _leave(self) -> None:
        """Make the transaction outside of this one the current one again, if this is still the context of both.

        A generator that the event loop closes, or a fixture, may end it in the context of another task.
        """
        if self._scope is not None:
            self._scope.is_open = False
            if _current.get() is self._scope:
                _current.set(self._scope.outer)

    async def _commit(self) -> None:
        if self._changed_keys is not None:
            # Written first, because that may have to wait for other transactions, and an intent ends after a minute.
            await self._entities.flush()
            await self._changed_keys.before_commit()
        try:
            await self._entities.commit()
        except CommitUnknownError:
            self._is_decided = False
            raise

    async def _close(self) -> None:
        # Also when the caller was cancelled while PostgreSQL was committing.
        committed = self._transaction.is_committed
        if self._transaction.position is not None:
            _last_position.set(self._transaction.position)
        # Only what may have to wait is shielded from cancellation: a task for each transaction would cost too much.
        try:
            await self._entities.close(committed=committed)
        finally:
            await self._transaction.close()
            if self._changed_keys is not None:
                # A caller that was cancelled meanwhile gets its cancellation instead of CommitUnknownError.
                is_decided = self._is_decided and self._transaction.is_decided
                await uninterrupted(self._changed_keys.after_commit(is_decided=is_decided))
        if committed and self._ended and self._forget_sessions is not None:
            await uninterrupted(self._forget_sessions(self._ended))
        if committed and self._discarded and self._remove_files is not None:
            await uninterrupted(self._remove_files(self._discarded))


Transactions = Callable[[], UnitOfWork]
"""How services get their transactions: the composition root hands them this."""
