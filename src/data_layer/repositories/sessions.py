"""The ``sessions`` table: found by the hash of a token, ended in a way that every process hears of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import delete, func, select

from data_layer.database.entity_session import EntitySession
from data_layer.database.statements import Statement
from data_layer.entities import Session, session_changes
from data_layer.entities.enums import SessionStatus, UserRole
from data_layer.repositories import session_statements as sql
from data_layer.repositories.repository import MAXIMUM_PAGE, Repository, check_limit, chosen_once
from data_layer.schemas.sessions import ActiveSession, SessionData


@dataclass(frozen=True, slots=True)
class FoundSession:
    """A session that is accepted, and what the database knew when it said so.

    ``expires_at`` is in seconds since 1970, ``seconds_left`` counts from the question; ``as_of`` is the oldest
    transaction that had not ended then, and ``server`` names the run of the server whose transactions are counted.
    """

    session: ActiveSession
    expires_at: float
    seconds_left: float
    as_of: int
    server: str


@dataclass(frozen=True, slots=True)
class EndedSessions:
    """Sessions that were ended: for each its id, the hash of its token, and its user."""

    ids: Sequence[UUID]
    hashes: Sequence[str]
    user_ids: Sequence[UUID]


@dataclass(frozen=True, slots=True)
class Lifetime:
    """How long sessions live, in seconds: without use, and at most."""

    idle: float
    maximum: float


class SessionRepository(Repository[Session]):
    """Rows of ``sessions``."""

    entity = Session

    def __init__(self, session: EntitySession, note_ended: Callable[[EndedSessions], None]) -> None:
        super().__init__(session)
        self._note_ended = note_ended

    async def find_active(self, hashes: Sequence[str]) -> FoundSession | None:
        """The session of a token, by its hashes under the present and the former secret, if it is accepted."""
        return _found(await self._session.fetch_one(sql.FIND_BY_HASH, (list(hashes),)))

    async def find_active_by_id(self, session_id: UUID) -> FoundSession | None:
        """The session with this id, if it is accepted."""
        return _found(await self._session.fetch_one(sql.FIND_BY_ID, (session_id,)))

    async def begin(
        self, session: Session, lifetime: Lifetime, *, limit: int, reason: str
    ) -> tuple[ActiveSession | None, EndedSessions]:
        """Insert a session, after ending those that would be too many: the ones that were active longest ago.

        The user's row is locked first, so that the limit also holds when several sessions begin at once.

        Returns:
            The session, or ``None`` when no active account has this id; and the sessions that were ended.
        """
        values = [getattr(session, name) for name in sql.INSERTED]
        seconds = min(lifetime.idle, lifetime.maximum)
        role, ended, inserted = await self._session.run(
            (sql.LOCK_ACTIVE_USER, (session.user_id,)),
            (sql.END_SURPLUS, (session.user_id, session.user_id, limit - 1, reason)),
            (sql.INSERT, (*values, seconds, session.user_id)),
        )
        surplus = self._remember(ended)
        if role is None or inserted is None:
            return None, surplus
        begun = ActiveSession(
            id=session.id,
            user_id=session.user_id,
            role=UserRole(role[0]),
            type=session.type,
            created_at=inserted[0],
            expires_at=inserted[1],
        )
        return begun, surplus

    async def end(self, session_id: UUID, reason: str) -> EndedSessions:
        """End one session."""
        return await self._end((sql.END_ONE, (session_id, reason)))

    async def end_all(self, user_id: UUID, reason: str, *, keep: UUID | None = None) -> EndedSessions:
        """End all sessions of a user, but for the one to keep; none can begin meanwhile."""
        return await self._end((sql.LOCK_USER, (user_id,)), (sql.END_OF_USER, (user_id, keep, reason)))

    async def end_some(self, reason: str, *, limit: int) -> EndedSessions:
        """End sessions of anybody, so many at most."""
        return await self._end((sql.END_SOME, (limit, reason)))

    async def record_activity(
        self, seen: Sequence[tuple[UUID, int, float]], lifetime: Lifetime, *, step: float
    ) -> datetime | None:
        """Add up requests, and let the time that a session has left begin again with its last one.

        Args:
            seen: ids, numbers of requests, and for how many seconds the last one is over.
            lifetime: from the last request on, and at most.
            step: seconds by which the expiry must move to be written.

        Returns:
            The new expiry of one of them, or ``None`` when none was accepted any more.
        """
        ids, counts, ages = ([entry[part] for entry in seen] for part in range(3))
        [row] = await self._session.run(
            (sql.RECORD_ACTIVITY, (lifetime.idle, lifetime.maximum, ids, counts, ages, step))
        )
        return row[0] if row else None

    async def extend(self, session_id: UUID, seconds: float, maximum: float) -> datetime | None:
        """Let a session live for so long from now, up to its maximum; the new expiry, or ``None`` if it has ended."""
        [row] = await self._session.run((sql.EXTEND, (seconds, maximum, session_id)))
        return row[0] if row else None

    async def live(
        self, user_id: UUID | None = None, *, limit: int = MAXIMUM_PAGE, after: UUID | None = None
    ) -> Sequence[Session]:
        """The sessions that are accepted, of a user or of everybody, the one that began last first."""
        check_limit(limit)
        statement = select(Session).where(Session.status == SessionStatus.ACTIVE, Session.expires_at > func.now())
        if user_id is not None:
            statement = statement.where(Session.user_id == user_id)
        if after is not None:
            statement = statement.where(Session.id < after)
        return await self._session.find(statement.order_by(Session.id.desc()).limit(limit))

    async def read_data(self, session_id: UUID) -> SessionData | None:
        """What is kept for a session, if it is accepted."""
        row = await self._session.fetch_one(sql.READ_DATA, (session_id,))
        return SessionData(values=row[0] if isinstance(row[0], dict) else {}, version=row[1]) if row else None

    async def write_data(self, session_id: UUID, values: dict[str, Any], version: int) -> int | None:
        """Replace what is kept if it still has this version; the new version, or ``None``."""
        [row] = await self._session.run((sql.WRITE_DATA, (orjson.dumps(values).decode(), session_id, version)))
        return row[0] if row else None

    async def count_expired(self, before: datetime) -> int:
        """How many sessions expired before a time; revoked ones stay until they would have expired."""
        return int((await self._session.execute(select(func.count()).where(Session.expires_at < before))).scalar_one())

    async def remove_expired(self, before: datetime, *, limit: int) -> int:
        """Remove sessions that expired before a time, and their refresh tokens; how many, ``limit`` at most."""
        some = select(Session.id).where(Session.expires_at < before).limit(limit).with_for_update(skip_locked=True)
        return (await self._session.change(delete(Session).where(Session.id.in_(chosen_once(some))))).rowcount

    async def count_changes(self, before: datetime) -> int:
        """How many entries of the journal of changes are older."""
        condition = session_changes.c.changed_at < before
        return int((await self._session.execute(select(func.count()).where(condition))).scalar_one())

    async def remove_changes(self, before: datetime, *, limit: int) -> int:
        """Remove old entries of the journal of changes, ``limit`` at most. Those of the last day may be needed."""
        key = (session_changes.c.transaction_id, session_changes.c.session_id)
        statement = select(*key).where(session_changes.c.changed_at < before).limit(limit).subquery()
        old = select(statement)
        condition = func.row(*key).in_(old)
        return (await self._session.change(delete(session_changes).where(condition))).rowcount

    async def _end(self, *statements: Statement) -> EndedSessions:
        return self._remember((await self._session.run(*statements))[-1])

    def _remember(self, row: tuple[Any, ...] | None) -> EndedSessions:
        """What was ended; after the commit this process forgets what it knows of it."""
        ended = EndedSessions(*row) if row else EndedSessions([], [], [])
        if ended.ids:
            self._note_ended(ended)
        return ended


def _found(row: tuple[Any, ...] | None) -> FoundSession | None:
    if row is None:
        return None
    session_id, user_id, role, kind, created_at, expires_at, expires, left, as_of, server = row
    session = ActiveSession(
        id=session_id, user_id=user_id, role=role, type=kind, created_at=created_at, expires_at=expires_at
    )
    return FoundSession(session, expires, left, as_of, server)
