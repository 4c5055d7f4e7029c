"""Mails, as those see them who look after the service."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from data_layer.entities.enums import MailKind, MailStatus
from data_layer.schemas.base import View


class MailView(View):
    """A mail in the queue, or what became of it. Its text, which holds a token, is never shown."""

    id: UUID
    user_id: UUID
    email: str
    kind: MailKind
    status: MailStatus
    attempts: int
    next_attempt_at: datetime
    expires_at: datetime
    finished_at: datetime | None
    last_error: str | None
    message_id: str
    created_at: datetime
