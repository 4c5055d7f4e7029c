"""Send what is in the queue.

1. *Claim*, one transaction: the mail is this process's for three minutes; its token is derived and compared with the
   hash in the account. A mail whose token was replaced, used or has expired is dropped here: a link in a mail works.
2. *Send*, outside any transaction, in less than that.
3. *Settle*, one transaction: sent; or failed, where the server will never take it; or another attempt later.

| the process dies at | what follows |
| --- | --- |
| 1 | nothing has happened |
| 2, before the server has the whole mail | another process sends it when the lease has ended |
| 2, after the server took it, but before its answer came | the same: the mail arrives twice |
| 3 | the same |

SMTP has no way to ask what became of a mail, so either some arrive twice or some never; a person who waits for a link
is better off with two. They are the same mail: the same Message-ID, by which many receivers show one only, and the same
link.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hmac import compare_digest

from data_layer.concurrency import Backoff, is_set_within, jittered, uninterrupted
from data_layer.context import new_correlation_id, request_context
from data_layer.entities import User
from data_layer.entities.enums import MailKind, MailStatus
from data_layer.errors import (
    DatabaseError,
    DataLayerError,
    MailRefusedError,
    MailServerError,
)
from data_layer.observability.log import get_log
from data_layer.repositories.mails import ClaimedMail
from data_layer.repositories.unit_of_work import Transactions, UnitOfWork
from data_layer.repositories.users import SecretColumn
from data_layer.services.accounts.one_time_tokens import Purpose, derived_token, hash_token
from data_layer.services.mails.queue import MailQueue
from data_layer.services.mails.rendering import Letter, MailRenderer
from data_layer.services.mails.transport import MailTransport

log = get_log(__name__)

VERIFY_EMAIL_PATH = "/verify-email"
RESET_PASSWORD_PATH = "/reset-password"  # noqa: S105  (a path)
ACCOUNT_PATH = "/console/account"
"""Pages of the service, below its address."""

LEASE = timedelta(minutes=3)
_ATTEMPT_SECONDS = 90.0
_FIRST_PAUSE, _LONGEST_PAUSE = 10.0, 900.0
_POLL_SECONDS = 2.0
_SETTLE_PAUSES = (0.2, 1.0, 5.0)
"""Seconds between attempts to record what became of a mail: each one that succeeds saves somebody a second mail."""

_LONGEST_ERROR = 500
KINDS_WITH_TOKEN: dict[MailKind, tuple[Purpose, SecretColumn, str]] = {
    MailKind.VERIFY_EMAIL: (
        Purpose.VERIFY_EMAIL,
        "email_verification_token_hash",
        "email_verification_expires_at",
    ),
    MailKind.RESET_PASSWORD: (Purpose.RESET_PASSWORD, "reset_password_token_hash", "reset_password_expires_at"),
}
_LIFETIMES = {
    MailKind.VERIFY_EMAIL: "24 hours",
    MailKind.RESET_PASSWORD: "one hour",
    MailKind.ADDRESS_TAKEN: "",
    MailKind.EXPORT_READY: "seven days",
}


@dataclass(frozen=True, slots=True)
class Links:
    """Where the links in mails lead.

    Attributes:
        service: where the service is.
        verify_email: the page that verifies an address.
        reset_password: the page on which a new password is chosen.
        account: the page of the own account.
    """

    service: str
    verify_email: str
    reset_password: str
    account: str

    def of(self, kind: MailKind, token: str | None) -> str:
        """The link of a mail. The token is in the fragment, which a browser sends to no server and in no Referer."""
        match kind:
            case MailKind.VERIFY_EMAIL:
                return f"{self.verify_email}#token={token}"
            case MailKind.RESET_PASSWORD:
                return f"{self.reset_password}#token={token}"
            case MailKind.ADDRESS_TAKEN:
                return self.service
            case MailKind.EXPORT_READY:
                return self.account


class LetterWriter:
    """Find what a mail says now, if there is anything left to say.

    Args:
        secret: the key from which tokens are derived.
        links: where they lead.
    """

    def __init__(self, secret: bytes, links: Links) -> None:
        self._secret = secret
        self._links = links

    async def write(self, tx: UnitOfWork, mail: ClaimedMail) -> Letter | None:
        """The letter, or ``None`` if its link would not work, or nobody is there to read it."""
        user = await tx.users.find_one(id=mail.user_id)
        if user is None or user.is_erased or mail.expires_at <= datetime.now(UTC):
            return None
        token = None
        if mail.kind in KINDS_WITH_TOKEN:
            token = await self._token(tx, mail, user)
            if token is None:
                return None
        return Letter(
            kind=mail.kind,
            email=user.email,
            # Somebody who registers another person's address chooses the name: an advertisement, for example.
            name=(user.display_name or user.first_name) if user.email_verified else "",
            message_id=mail.message_id,
            written_at=mail.created_at,
            lifetime=_LIFETIMES[mail.kind],
            service=self._links.service,
            link=self._links.of(mail.kind, token),
        )

    async def _token(self, tx: UnitOfWork, mail: ClaimedMail, user: User) -> str | None:
        purpose, column, expiry = KINDS_WITH_TOKEN[mail.kind]
        expires_at: datetime | None = getattr(user, expiry)
        stored = await tx.users.secret(user.id, column)
        if stored is None or expires_at is None or expires_at <= datetime.now(UTC):
            return None
        token = derived_token(self._secret, purpose, user.id, mail.id)
        return token if compare_digest(stored, hash_token(self._secret, purpose, token)) else None


class MailDelivery:
    """Work the queue off, see the module."""

    def __init__(
        self, transactions: Transactions, queue: MailQueue, writer: LetterWriter, renderer: MailRenderer
    ) -> None:
        self._transactions = transactions
        self._queue = queue
        self._writer = writer
        self._renderer = renderer

    async def run(self, transport: MailTransport, stopping: asyncio.Event) -> None:
        """Send until ``stopping`` is set; the mail that is under way then is finished."""
        outage = Backoff(1.0, 60.0, jitter=0.3)
        while not stopping.is_set():
            self._queue.grown.clear()
            try:
                with request_context(correlation_id=new_correlation_id(), source="mails"):
                    await self.deliver_due(transport, stopping)
            except MailServerError as error:
                log.error("mail_server_failed", reason=str(error))  # noqa: TRY400  (the reason says all)
                await is_set_within(stopping, outage.next())
            except Exception as error:  # noqa: BLE001  (whatever it was: mails go out again later)
                code = error.code if isinstance(error, DataLayerError) else type(error).__name__
                log.warning("mail_queue_unavailable", code=code)
                await is_set_within(stopping, outage.next())
            else:
                outage.reset()
                if not stopping.is_set():
                    await is_set_within(self._queue.grown, jittered(_POLL_SECONDS))

    async def deliver_due(self, transport: MailTransport, stopping: asyncio.Event | None = None) -> int:
        """Send everything that is due, or until ``stopping`` is set; how many mails were sent.

        Raises:
            MailServerError: the server takes no mails. What was not sent stays in the queue.
        """
        sent = 0
        try:
            while (stopping is None or not stopping.is_set()) and (claimed := await self._claim()) is not None:
                mail, letter = claimed
                sent += letter is not None and await self._deliver(transport, mail, letter)
        finally:
            await transport.rest()
        return sent

    async def _claim(self) -> tuple[ClaimedMail, Letter | None] | None:
        async with self._transactions() as tx:
            mail = await tx.mails.claim(LEASE)
            if mail is None:
                return None
            letter = await self._writer.write(tx, mail)
            if letter is None:
                await tx.mails.finish(mail, MailStatus.DROPPED, "its link no longer works, or the account is gone")
                log.info("mail_dropped", mail=mail.id, kind=mail.kind)
            return mail, letter

    async def _deliver(self, transport: MailTransport, mail: ClaimedMail, letter: Letter) -> bool:
        try:
            message = self._renderer.render(letter)
            async with asyncio.timeout(_ATTEMPT_SECONDS):
                await transport.send(message)
        except Exception as error:
            await uninterrupted(self._settle_failure(mail, letter, error))
            if isinstance(error, MailServerError):
                raise
            return False
        await uninterrupted(self._settle(mail, MailStatus.SENT))
        log.info("mail_sent", mail=mail.id, kind=mail.kind, attempts=mail.attempts)
        return True

    async def _settle_failure(self, mail: ClaimedMail, letter: Letter, error: Exception) -> None:
        reason = _reason(error, letter)
        pause = jittered(min(_FIRST_PAUSE * 2 ** min(mail.attempts - 1, 10), _LONGEST_PAUSE))
        is_late = datetime.now(UTC) + timedelta(seconds=pause) >= mail.expires_at
        if isinstance(error, MailRefusedError) or is_late:
            log.error("mail_failed", mail=mail.id, kind=mail.kind, attempts=mail.attempts, reason=reason)
            await self._settle(mail, MailStatus.FAILED, reason)
        else:
            log.warning("mail_postponed", mail=mail.id, kind=mail.kind, attempts=mail.attempts, reason=reason)
            await self._settle(mail, None, reason, pause=pause)

    async def _settle(
        self, mail: ClaimedMail, status: MailStatus | None, error: str | None = None, *, pause: float = 0.0
    ) -> None:
        for wait in (*_SETTLE_PAUSES, None):
            try:
                async with self._transactions() as tx:
                    if status is None:
                        await tx.mails.postpone(mail, timedelta(seconds=pause), error)
                    else:
                        await tx.mails.finish(mail, status, error)
            except DatabaseError as failure:
                if wait is None:
                    outcome = status or "postponed"
                    log.error("mail_outcome_lost", mail=mail.id, outcome=outcome, code=failure.code)  # noqa: TRY400
                    return
                await asyncio.sleep(wait)
            else:
                return


def _reason(error: Exception, letter: Letter) -> str:
    """Why, without the token: a server may quote what it refuses."""
    token = letter.link.partition("#token=")[2]
    text = str(error) if isinstance(error, DataLayerError) else type(error).__name__
    if token:
        text = text.replace(letter.link, "…").replace(token, "…")
    return "".join(character if character.isprintable() else " " for character in text)[:_LONGEST_ERROR]
