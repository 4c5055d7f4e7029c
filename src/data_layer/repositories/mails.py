"""The ``mails`` table: a queue that any process works off, without two sending the same mail at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import delete, func, select, update

from data_layer.database.statements import NamedQuery, named
from data_layer.entities import Mail, User
from data_layer.entities.enums import MailKind, MailStatus
from data_layer.entities.time_ordered_ids import first_id_at
from data_layer.repositories.repository import Repository, check_limit, chosen_once
from data_layer.schemas.mails import MailView

# A claimed mail is one whose next attempt is after the lease: if its process dies, nothing has to be cleaned up.
_CLAIM = NamedQuery(
    "mails.claim",
    """
WITH due AS (
    SELECT id FROM mails WHERE status = 'queued' AND next_attempt_at <= clock_timestamp()
    ORDER BY next_attempt_at LIMIT 1 FOR UPDATE SKIP LOCKED
)
UPDATE mails SET attempts = attempts + 1, next_attempt_at = clock_timestamp() + %s
FROM due WHERE mails.id = due.id
RETURNING mails.id, mails.user_id, mails.kind, mails.message_id, mails.attempts, mails.expires_at, mails.created_at
""",
)
_COLUMNS = [getattr(Mail, name) for name in MailView.model_fields if name != "email"]


@dataclass(frozen=True, slots=True)
class ClaimedMail:
    """A mail that this process alone sends until its lease ends."""

    id: UUID
    user_id: UUID
    kind: MailKind
    message_id: str
    attempts: int
    expires_at: datetime
    created_at: datetime


class MailRepository(Repository[Mail]):
    """Rows of ``mails``."""

    entity = Mail

    async def claim(self, lease: timedelta) -> ClaimedMail | None:
        """Take the mail that has waited longest, if one is due; for as long as the lease nobody else gets it."""
        [row] = await self._session.run((_CLAIM, (lease,)))
        return ClaimedMail(row[0], row[1], MailKind(row[2]), *row[3:]) if row else None

    async def finish(self, mail: ClaimedMail, status: MailStatus, error: str | None = None) -> bool:
        """Record the outcome of a mail, and return whether this process still held it."""
        values = {"status": status, "finished_at": func.clock_timestamp(), "last_error": error}
        return await self._change_claimed(mail, values)

    async def postpone(self, mail: ClaimedMail, pause: timedelta, error: str | None) -> bool:
        """Have a mail tried again after a pause; whether this process still had it."""
        return await self._change_claimed(
            mail, {"next_attempt_at": func.clock_timestamp() + pause, "last_error": error}
        )

    async def page(
        self, *, limit: int, after: UUID | None = None, status: MailStatus | None = None, user_id: UUID | None = None
    ) -> Sequence[MailView]:
        """A page of mails with the addresses that they go to, newest first."""
        check_limit(limit)
        statement = select(*_COLUMNS, User.email).join(User, User.id == Mail.user_id)
        if after is not None:
            statement = statement.where(Mail.id < after)
        if status is not None:
            statement = statement.where(Mail.status == status)
        if user_id is not None:
            statement = statement.where(Mail.user_id == user_id)
        statement = statement.order_by(Mail.id.desc()).limit(limit)
        rows = (await self._session.execute(named("mails.page", statement))).mappings()
        return [MailView.model_validate(dict(row)) for row in rows]

    async def view(self, mail_id: UUID) -> MailView | None:
        """One of them."""
        statement = select(*_COLUMNS, User.email).join(User, User.id == Mail.user_id).where(Mail.id == mail_id)
        row = (await self._session.execute(named("mails.view", statement))).mappings().one_or_none()
        return None if row is None else MailView.model_validate(dict(row))

    async def requeue(self, mail_id: UUID) -> bool:
        """Have a mail sent as soon as possible; whether there was one that waits or has failed."""
        statement = (
            update(Mail)
            .where(Mail.id == mail_id, Mail.status.in_([MailStatus.QUEUED, MailStatus.FAILED]))
            .values(status=MailStatus.QUEUED, next_attempt_at=func.clock_timestamp(), finished_at=None)
        )
        return (await self._session.change(named("mails.requeue", statement))).rowcount == 1

    async def count_old(self, before: datetime) -> int:
        """How many mails from before a time wait no longer."""
        condition = (Mail.id < first_id_at(before), Mail.status != MailStatus.QUEUED)
        return int((await self._session.execute(select(func.count()).select_from(Mail).where(*condition))).scalar_one())

    async def remove_old(self, before: datetime, *, limit: int) -> int:
        """Remove mails from before a time that wait no longer; how many, ``limit`` at most."""
        old = select(Mail.id).where(Mail.id < first_id_at(before), Mail.status != MailStatus.QUEUED)
        some = chosen_once(old.limit(limit).with_for_update(skip_locked=True))
        return (await self._session.change(delete(Mail).where(Mail.id.in_(some)))).rowcount

    async def _change_claimed(self, mail: ClaimedMail, values: Mapping[str, object]) -> bool:
        is_ours = (Mail.id == mail.id, Mail.status == MailStatus.QUEUED, Mail.attempts == mail.attempts)
        statement = update(Mail).where(*is_ours).values(dict(values))
        return (await self._session.change(named("mails.settle", statement))).rowcount == 1
