"""Where mails wait: they are queued in the transaction of what causes them, so there is never one without the other."""

from __future__ import annotations

import asyncio
from datetime import datetime
from uuid import UUID

from data_layer.entities import Mail
from data_layer.entities.enums import MailKind
from data_layer.repositories.unit_of_work import UnitOfWork


class MailQueue:
    """Takes mails from other services.

    Args:
        domain: that of the sender, for the ids of messages.
    """

    def __init__(self, domain: str) -> None:
        self._domain = domain
        self.grown = asyncio.Event()
        """Set when this process has queued a mail, so that it is sent at once."""

    def add(self, tx: UnitOfWork, mail_id: UUID, user_id: UUID, kind: MailKind, *, expires_at: datetime) -> None:
        """Queue a mail with the commit of a transaction. Afterwards set ``grown``.

        Args:
            tx: the transaction.
            mail_id: a new one, from which the token is derived if the mail bears one.
            user_id: whom it is for.
            kind: what it is about.
            expires_at: when it is of no use any more.
        """
        message_id = f"<{mail_id.hex}@{self._domain}>"
        tx.add(Mail(id=mail_id, user_id=user_id, kind=kind, message_id=message_id, expires_at=expires_at))
