"""One database transaction with its repositories: commit at the end, rollback on error and on cancellation."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property, partial
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar
from weakref import ref

import psycopg
from sqlalchemy import Executable, Result
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from data_layer.concurrency import uninterrupted
from data_layer.database.driver import translate
from data_layer.database.engine import Database
from data_layer.database.entity_session import EntitySession
from data_layer.database.replicas import Replicas
from data_layer.database.transaction import ConnectionSource
from data_layer.entities import AuditLog, Entity, User
from data_layer.errors import NestedTransactionError
from data_layer.repositories.api_keys import ApiKeyRepository
from data_layer.repositories.audit import AuditRepository, complete
from data_layer.repositories.code_bodies import CodeBodyRepository
from data_layer.repositories.designs import DesignSystemRepository
from data_layer.repositories.exports import ExportRepository
from data_layer.repositories.files import FileRepository
from data_layer.repositories.finished_generations import FinishedGenerationRepository
from data_layer.repositories.generated import GeneratedCodeRepository, GeneratedImageRepository
from data_layer.repositories.generations import GenerationEventRepository, GenerationRepository
from data_layer.repositories.idempotency_keys import IdempotencyKeyRepository
from data_layer.repositories.lineage import LineageRepository
from data_layer.repositories.login_attempts import LoginAttemptRepository
from data_layer.repositories.mails import MailRepository
from data_layer.repositories.project_copies import ProjectCopyRepository
from data_layer.repositories.project_search import ProjectSearchRepository
from data_layer.repositories.projects import ProjectRepository
from data_layer.repositories.refresh_tokens import RefreshTokenRepository
from data_layer.repositories.sessions import EndedSessions, SessionRepository
from data_layer.repositories.shares import ShareRepository
from data_layer.repositories.stored_objects import StoredFileRepository
from data_layer.repositories.usage import BudgetRepository, UsageRepository
from data_layer.repositories.users import SecondFactorRepository, UserIdentityRepository, UserRepository, account_keys
from data_layer.repositories.view_counts import ViewCountRepository
from data_layer.schemas.base import Outcome

Item = TypeVar("Item")
Item_contra = TypeVar("Item_contra", contravariant=True)

_current: ContextVar[_Scope | None] = ContextVar("current_transaction", default=None)
# Turns of the event loop after which an asynchronous generator that was left with ``break`` is being closed.
_TURNS = 3
_last_position: ContextVar[str | None] = ContextVar("last_position", default=None)


def last_position() -> str | None:
    """Where PostgreSQL's log was after the last commit of this task, or of the one that started it; None if unknown."""
    return _last_position.get()


@dataclass(slots=True, eq=False)
class _Scope:
    """Where a transaction is open. Child tasks inherit it, but not the transaction: so it knows its task.

    It does not keep the task: a timer keeps its context for as long as it runs, and with the task it would keep its
    result, which may be the generator that holds the transaction and that nobody else holds any more.
    """

    database: ConnectionSource
    task: ref[asyncio.Task[Any]] | None
    outer: _Scope | None
    is_open: bool = True


def _this_task() -> ref[asyncio.Task[Any]] | None:
    task = asyncio.current_task()
    return None if task is None else ref(task)


def _innermost() -> _Scope | None:
    """The open transaction of this context; one that ended in the context of another task may still stand in it."""
    scope = _current.get()
    while scope is not None and not scope.is_open:
        scope = scope.outer
    return scope


class CommitHook(Protocol):
    """What has to happen around the commit of one transaction, outside of the database."""

    async def before_commit(self) -> None:
        """Called after everything was written; an error rolls the transaction back."""

    def after(self, outcome: Outcome) -> Coroutine[Any, Any, None] | None:
        """Called once the transaction has ended, also for a caller that was cancelled. It must not raise.

        Returns:
            What the caller of the transaction has to wait for, if anything; it is not cancelled with the caller.
        """


class CollectingHook(CommitHook, Protocol[Item_contra]):
    """A hook for what a transaction comes across: keys that it changes, files that it discards."""

    def add(self, *items: Item_contra) -> None:
        """Remember items. An error is the caller's, and ends its transaction if it does not catch it."""


HookMaker = Callable[[], CollectingHook[Item_contra]]


class AfterCommit(Generic[Item]):
    """A hook that hands everything to a function after a successful commit."""

    def __init__(self, handle: Callable[[Sequence[Item]], Coroutine[Any, Any, None]]) -> None:
        self._handle = handle
        self._items: list[Item] = []

    def add(self, *items: Item) -> None:
        """Remember items."""
        self._items += items

    async def before_commit(self) -> None:
        """Nothing: it is not known yet whether the commit succeeds."""

    def after(self, outcome: Outcome) -> Coroutine[Any, Any, None] | None:
        """Hand the items on if they are committed."""
        return self._handle(self._items) if outcome is Outcome.COMMITTED else None


@dataclass(frozen=True, slots=True)
class CommitHooks:
    """Make the hooks of a transaction, each when it has something for it. They run in this order.

    Attributes:
        changed_keys: remove values from the cache whose source has changed.
        ended_sessions: forget sessions that have ended.
        discarded_files: remove stored files that no row names any more.
    """

    changed_keys: HookMaker[str] | None = None
    ended_sessions: HookMaker[EndedSessions] | None = None
    discarded_files: HookMaker[str] | None = None


_NO_HOOKS = CommitHooks()


class UnitOfWork:
    """A transaction, used as ``async with data.transaction() as tx``.

    The changes of all entities that were added to it or read through it are written together when the block ends,
    and none of them when it ends with an exception. It takes a connection from the pool at the first statement.

    Args:
        database: where to.
        hooks: what has to happen around the commit.
    """

    def __init__(self, database: ConnectionSource, hooks: CommitHooks = _NO_HOOKS) -> None:
        self._database = database
        self._makers = hooks
        self._made: dict[HookMaker[Any], CollectingHook[Any]] = {}
        self._scope: _Scope | None = None
        self._session = EntitySession(database)

    # Each repository is made when it is first used: most transactions need one or two of them.

    @cached_property
    def users(self) -> UserRepository:
        """Users."""
        return UserRepository(self._session, partial(self._note, self._makers.discarded_files), self.invalidate)

    @cached_property
    def projects(self) -> ProjectRepository:
        """Projects."""
        return ProjectRepository(self._session, partial(self._note, self._makers.discarded_files))

    @cached_property
    def code_bodies(self) -> CodeBodyRepository:
        """Where the texts of codes are that nobody writes any more."""
        return CodeBodyRepository(self._session)

    @cached_property
    def project_copies(self) -> ProjectCopyRepository:
        """Copies of projects."""
        return ProjectCopyRepository(self._session)

    @cached_property
    def project_search(self) -> ProjectSearchRepository:
        """The index of the search over projects."""
        return ProjectSearchRepository(self._session)

    @cached_property
    def lineage(self) -> LineageRepository:
        """Where generations belong in the tree of their project."""
        return LineageRepository(self._session)

    @cached_property
    def generations(self) -> GenerationRepository:
        """Generations: requests to generate code."""
        return GenerationRepository(self._session)

    @cached_property
    def finished_generations(self) -> FinishedGenerationRepository:
        """Generations that have ended already when they are stored."""
        return FinishedGenerationRepository(self._session)

    @cached_property
    def generation_events(self) -> GenerationEventRepository:
        """What happened while variants were made."""
        return GenerationEventRepository(self._session)

    @cached_property
    def codes(self) -> GeneratedCodeRepository:
        """Generated code."""
        return GeneratedCodeRepository(self._session, partial(self._note, self._makers.discarded_files))

    @cached_property
    def images(self) -> GeneratedImageRepository:
        """Generated images."""
        return GeneratedImageRepository(self._session, partial(self._note, self._makers.discarded_files))

    @cached_property
    def view_counts(self) -> ViewCountRepository:
        """Counters of views."""
        return ViewCountRepository(self._session)

    @cached_property
    def designs(self) -> DesignSystemRepository:
        """Design systems of users."""
        return DesignSystemRepository(self._session)

    @cached_property
    def usage(self) -> UsageRepository:
        """The ledger of usage, and its sums."""
        return UsageRepository(self._session)

    @cached_property
    def budgets(self) -> BudgetRepository:
        """Monthly budgets, and what is set aside of them."""
        return BudgetRepository(self._session)

    @cached_property
    def shares(self) -> ShareRepository:
        """Links by which anybody may read one page of a project."""
        return ShareRepository(self._session)

    @cached_property
    def sessions(self) -> SessionRepository:
        """Sessions of users."""
        return SessionRepository(self._session, partial(self._note, self._makers.ended_sessions))

    @cached_property
    def identities(self) -> UserIdentityRepository:
        """Identities of OpenID Connect issuers."""
        return UserIdentityRepository(self._session, self.invalidate)

    @cached_property
    def api_keys(self) -> ApiKeyRepository:
        """API keys of users."""
        return ApiKeyRepository(self._session)

    @cached_property
    def second_factors(self) -> SecondFactorRepository:
        """What users show beside their password."""
        return SecondFactorRepository(self._session)

    @cached_property
    def refresh_tokens(self) -> RefreshTokenRepository:
        """Refresh tokens of sessions."""
        return RefreshTokenRepository(self._session)

    @cached_property
    def mails(self) -> MailRepository:
        """Mails that wait to be sent, and what became of others."""
        return MailRepository(self._session)

    @cached_property
    def exports(self) -> ExportRepository:
        """Archives of everything about a person: those that wait, those that are made, and those that can be had."""
        return ExportRepository(self._session, partial(self._note, self._makers.discarded_files))

    @cached_property
    def audit(self) -> AuditRepository:
        """The audit trail."""
        return AuditRepository(self._session)

    @cached_property
    def idempotency_keys(self) -> IdempotencyKeyRepository:
        """Keys of requests that are carried out once."""
        return IdempotencyKeyRepository(self._session)

    @cached_property
    def login_attempts(self) -> LoginAttemptRepository:
        """Failed attempts to log in."""
        return LoginAttemptRepository(self._session)

    @cached_property
    def files(self) -> FileRepository:
        """Files: who refers to which object of the storage."""
        return FileRepository(self._session)

    @cached_property
    def stored_files(self) -> StoredFileRepository:
        """The objects of the storage, for those who look after them."""
        return StoredFileRepository(self._session)

    def add(self, entity: Entity) -> None:
        """Insert a new entity, or write the changes of a stored one, when the transaction is flushed or committed."""
        if isinstance(entity, AuditLog):
            complete(entity)
        self._session.add(entity)

    def invalidate(self, *keys: str) -> None:
        """The cache forgets these keys with the commit: before it, so that nobody stores an old value, and after it.

        Name the keys whose loaders (``cache.get_or_load``) read what this transaction changes.

        Raises:
            InvalidCacheKeyError: when one cannot be a key.
        """
        self._note(self._makers.changed_keys, *keys)

    async def flush(self) -> None:
        """Write what is pending now, for example to learn what the database fills in."""
        await self._session.flush()

    async def execute(self, statement: Executable) -> Result[Any]:
        """Execute a SQLAlchemy statement for which no repository has a method."""
        return await self._session.execute(statement)

    async def orm(self) -> AsyncSession:
        """SQLAlchemy's session of this transaction, for what nothing here covers. Do not commit or close it."""
        return await self._session.orm()

    async def __aenter__(self) -> Self:
        for _ in range(_TURNS):
            if not self._is_nested():
                break
            await asyncio.sleep(0)
        if self._is_nested():
            raise NestedTransactionError(
                "a transaction is open in this task already: pass its `tx` on instead of beginning another one"
            )
        self._session.open()
        self._scope = _Scope(self._database, _this_task(), _innermost())
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
        return scope is not None and (scope.database, scope.task) == (self._database, _this_task())

    def _leave(self) -> None:
        """Make the transaction outside of this one the current one again, if this is still the context of both.

        A generator that the event loop closes, or a fixture, may end it in the context of another task.
        """
        if self._scope is not None:
            self._scope.is_open = False
            if _current.get() is self._scope:
                _current.set(self._scope.outer)

    def _note(self, make: HookMaker[Item] | None, *items: Item) -> None:
        """Give items to a hook, which is made for the first of them; without a maker nothing has to happen."""
        if make is None or not items:
            return
        if make not in self._made:
            self._made[make] = make()
        self._made[make].add(*items)

    async def _commit(self) -> None:
        # Here, because every service changes users: none of them can forget it.
        for user_id in self._session.changed(User):
            self.invalidate(*account_keys(user_id))
        if self._made and not self._session.writes_at_once:
            # Written first, because that may have to wait for other transactions, and a hook's promise may expire.
            await self._session.flush()
        for hook in self._hooks:
            await hook.before_commit()
        await self._session.commit()

    async def _close(self) -> None:
        if self._session.position is not None:
            _last_position.set(self._session.position)
        try:
            await self._session.close()
        finally:
            ended = [hook.after(self._session.outcome) for hook in self._hooks]
            if rest := [work for work in ended if work is not None]:
                await uninterrupted(_in_turn(rest))

    @property
    def _hooks(self) -> list[CommitHook]:
        makers = self._makers.changed_keys, self._makers.ended_sessions, self._makers.discarded_files
        return [self._made[make] for make in makers if make in self._made]


async def _in_turn(work: Sequence[Coroutine[Any, Any, None]]) -> None:
    for each in work:
        await each


class TransactionFactory:
    """Begin transactions: on the primary with the hooks of their commit, or on a replica that is fresh enough."""

    def __init__(self, database: Database, replicas: Replicas, hooks: CommitHooks) -> None:
        self._database = database
        self._replicas = replicas
        self._hooks = hooks

    def __call__(self, *, read_only: bool = False, after: str | None = None) -> UnitOfWork:
        """Return a transaction that has not begun; see ``DataLayer.transaction``."""
        if read_only:
            return UnitOfWork(self._replicas.reader(last_position(), after))
        return UnitOfWork(self._database, self._hooks)


Transactions = Callable[[], UnitOfWork]
"""How services get their transactions: the composition root hands them this."""
