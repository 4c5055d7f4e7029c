"""The ``mails`` table: mails that wait to be sent, and what became of them."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKey, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from data_layer.entities.base import Entity, choice, counter
from data_layer.entities.columns import Choice
from data_layer.entities.enums import MailKind, MailStatus


class Mail(Entity, kw_only=True):
    """A mail to the person with an account, at the address that the account has when it is sent.

    Neither its text nor a token is stored: the text is rendered, and the token derived from the id, when the mail is
    sent. ``message_id`` is the same for every attempt, so a receiver recognises a mail that arrives twice.

    ``attempts`` counts the claims of the row and fences them: only the last one may report what became of the mail.
    ``next_attempt_at`` is also the end of the lease of a process that is sending it.
    """

    __tablename__ = "mails"

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    kind: Mapped[MailKind] = mapped_column(Choice(MailKind))
    status: Mapped[MailStatus] = choice(MailStatus.QUEUED)
    message_id: Mapped[str] = mapped_column(info={"length": 320})
    attempts: Mapped[int] = counter()
    next_attempt_at: Mapped[datetime] = mapped_column(default=None, server_default=func.now())
    expires_at: Mapped[datetime] = mapped_column()
    finished_at: Mapped[datetime | None] = mapped_column(default=None)
    last_error: Mapped[str | None] = mapped_column(default=None, info={"length": 500})
    created_at: Mapped[datetime] = mapped_column(default=None, server_default=func.now())

    __table_args__ = (
        Index("ix_mails_next_attempt_at", "next_attempt_at", postgresql_where=text("status = 'queued'")),
        Index("ix_mails_user_id_id", "user_id", "id"),
    )
