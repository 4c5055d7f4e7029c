"""The ``exports`` table: jobs that any process works off, without two making the same archive at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import Boolean, ColumnElement, delete, func, literal_column, select, update

from data_layer.database.entity_session import EntitySession
from data_layer.database.statements import NamedQuery, named
from data_layer.entities import Export
from data_layer.entities.enums import ExportStatus
from data_layer.entities.time_ordered_ids import first_id_at
from data_layer.repositories.repository import Repository, chosen_once

# A claimed job is one whose next attempt is after the lease: if its process dies, nothing has to be cleaned up.
_CLAIM = NamedQuery(
    "exports.claim",
    """
WITH due AS (
    SELECT id FROM exports
    WHERE status IN ('queued', 'running') AND next_attempt_at <= clock_timestamp() AND attempts < %s
    ORDER BY next_attempt_at LIMIT 1 FOR UPDATE SKIP LOCKED
)
UPDATE exports SET status = 'running', attempts = attempts + 1, next_attempt_at = clock_timestamp() + %s,
    started_at = coalesce(started_at, clock_timestamp()), projects_done = 0, files_done = 0
FROM due WHERE exports.id = due.id
RETURNING exports.id, exports.user_id, exports.attempts
""",
)
_UNFINISHED: ColumnElement[bool] = literal_column("exports.status IN ('queued', 'running')", Boolean())
"""Written out, not with parameters: only so PostgreSQL sees in every plan which partial index fits."""


@dataclass(frozen=True, slots=True)
class ClaimedExport:
    """An archive that this process alone makes until its lease ends."""

    id: UUID
    user_id: UUID
    attempts: int


class ExportRepository(Repository[Export]):
    """Rows of ``exports``. The archive of a row that goes is removed from the storage after the commit."""

    entity = Export

    def __init__(self, session: EntitySession, discard: Callable[..., None]) -> None:
        super().__init__(session)
        self._discard = discard

    async def unfinished(self, user_id: UUID) -> Export | None:
        """The job of a person that waits or runs; there is one at most."""
        found = await self._session.find(select(Export).where(Export.user_id == user_id, _UNFINISHED))
        return found[0] if found else None

    async def claim(self, lease: timedelta, *, most: int) -> ClaimedExport | None:
        """Take the job that has waited longest, if one is due; for as long as the lease nobody else gets it.

        Args:
            lease: for how long.
            most: a job that was taken so often is taken no more.
        """
        [row] = await self._session.run((_CLAIM, (most, lease)))
        return ClaimedExport(*row) if row else None

    async def renew(self, export: ClaimedExport, lease: timedelta, progress: Mapping[str, int]) -> bool:
        """Keep a job for longer, and show how far it is; whether this process still had it."""
        return await self._change_claimed(export, {"next_attempt_at": func.clock_timestamp() + lease, **progress})

    async def postpone(self, export: ClaimedExport, pause: timedelta) -> bool:
        """Have a job tried again after a pause; whether this process still had it."""
        next_attempt = func.clock_timestamp() + pause
        return await self._change_claimed(export, {"status": ExportStatus.QUEUED, "next_attempt_at": next_attempt})

    async def finish(self, export: ClaimedExport, values: Mapping[str, object]) -> bool:
        """Record what became of a job; whether this process still had it."""
        return await self._change_claimed(export, {"finished_at": func.clock_timestamp(), **values})

    async def abandon(self, error: str, *, most: int, limit: int) -> Sequence[tuple[UUID, UUID]]:
        """Fail jobs that were taken ``most`` times, and whose lease ran out each time; their ids and people."""
        due = select(Export.id).where(_UNFINISHED, Export.next_attempt_at <= func.clock_timestamp())
        some = chosen_once(due.where(Export.attempts >= most).limit(limit).with_for_update(skip_locked=True))
        values = {"status": ExportStatus.FAILED, "error": error, "finished_at": func.clock_timestamp()}
        statement = update(Export).where(Export.id.in_(some)).values(values).returning(Export.id, Export.user_id)
        rows = await self._session.execute(statement.execution_options(synchronize_session=False))
        return [(row.id, row.user_id) for row in rows]

    async def expire(self, condition: ColumnElement[bool], *, limit: int) -> int:
        """Let archives expire, which are removed after the commit; how many, ``limit`` at most."""
        chosen = select(Export.id, Export.storage_key).where(Export.status == ExportStatus.DONE, condition)
        rows = (await self._session.execute(chosen.limit(limit).with_for_update(skip_locked=True))).all()
        values = {"status": ExportStatus.EXPIRED, "storage_key": None}
        await self._session.change(update(Export).where(Export.id.in_([row.id for row in rows])).values(values))
        self._discard(*(row.storage_key for row in rows))
        return len(rows)

    async def remove(self, export: Export) -> None:
        """Remove a job, and with it its archive after the commit."""
        archive = delete(Export).where(Export.id == export.id).returning(Export.storage_key)
        self._discard(*(key for key in (await self._session.execute(archive)).scalars() if key is not None))
        self._session.forget(export)

    async def count_expired(self, now: datetime) -> int:
        """How many archives there are whose time is over."""
        statement = select(func.count()).select_from(Export).where(Export.status == ExportStatus.DONE, has_ended(now))
        return int((await self._session.execute(statement)).scalar_one())

    async def count_old(self, before: datetime) -> int:
        """How many jobs from before a time have ended and have no archive."""
        statement = select(func.count()).select_from(Export).where(_is_old(before))
        return int((await self._session.execute(statement)).scalar_one())

    async def remove_old(self, before: datetime, *, limit: int) -> int:
        """Remove jobs from before a time that have ended and have no archive; how many, ``limit`` at most."""
        some = chosen_once(select(Export.id).where(_is_old(before)).limit(limit).with_for_update(skip_locked=True))
        return (await self._session.change(delete(Export).where(Export.id.in_(some)))).rowcount

    async def _change_claimed(self, export: ClaimedExport, values: Mapping[str, object]) -> bool:
        is_ours = (
            *(Export.id == export.id, Export.status == ExportStatus.RUNNING),
            Export.attempts == export.attempts,
        )
        statement = update(Export).where(*is_ours).values(dict(values))
        return (await self._session.change(named("exports.settle", statement))).rowcount == 1


def has_ended(now: datetime) -> ColumnElement[bool]:
    """The condition that the time of an archive is over."""
    return Export.expires_at <= now


def is_other_of(export: ClaimedExport) -> ColumnElement[bool]:
    """The condition of the other exports of the same person."""
    return (Export.user_id == export.user_id) & (Export.id != export.id)


def _is_old(before: datetime) -> ColumnElement[bool]:
    is_over = Export.status.in_([ExportStatus.FAILED, ExportStatus.EXPIRED])
    return is_over & (Export.id < first_id_at(before))
