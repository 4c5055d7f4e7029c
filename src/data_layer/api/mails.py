"""Mails about accounts. How they reach people is the business of the application around this one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from data_layer.observability.log import get_log

if TYPE_CHECKING:
    from data_layer.services.accounts import OneTimeToken

log = get_log(__name__)


class MailKind(StrEnum):
    """What a mail is about."""

    VERIFY_EMAIL = "verify_email"
    RESET_PASSWORD = "reset_password"  # noqa: S105  (the name of a kind)
    ADDRESS_TAKEN = "address_taken"


@dataclass(frozen=True, slots=True)
class AccountMail:
    """What goes to whom.

    ``token`` belongs into the link, and nowhere else. There is none in ``address_taken``, which tells the owner of an
    account that somebody, perhaps the owner, tried to register the address again.
    """

    kind: MailKind
    email: str
    token: OneTimeToken | None = None


SendMail = Callable[[AccountMail], Awaitable[None]]
"""Sends a mail, or hands it to what does."""


class Mailing:
    """Sends mails after the answer, so that neither its content nor its time reveals whether an account exists.

    Args:
        send: without it mails are only counted in the log, and nobody gets a token.
    """

    def __init__(self, send: SendMail | None) -> None:
        self._send = send

    async def send(self, mail: AccountMail) -> None:
        """Send a mail; a failure is logged, because nobody waits for it any more."""
        if self._send is None:
            log.warning("mail_not_configured", kind=mail.kind)
            return
        try:
            await self._send(mail)
        except Exception as error:  # noqa: BLE001  (whatever the application raises)
            _tell_failure(mail.kind, error)

    async def send_token(self, kind: MailKind, make: Callable[[], Awaitable[OneTimeToken | None]]) -> None:
        """Make a token and send it, if there is somebody to send it to."""
        try:
            token = await make()
        except Exception as error:  # noqa: BLE001  (the answer was sent: there is nobody to raise it to)
            _tell_failure(kind, error)
            return
        if token is not None:
            await self.send(AccountMail(kind, token.email, token))


def _tell_failure(kind: MailKind, error: Exception) -> None:
    """Only the class of the error: its text, and its traceback, may hold the token."""
    log.error("mail_failed", kind=kind, error=type(error).__name__)
