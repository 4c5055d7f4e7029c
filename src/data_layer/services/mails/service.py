"""``data.mails``: which mails wait, what became of them, and the task that sends them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from uuid import UUID

from data_layer.concurrency import cancel_and_wait
from data_layer.entities.enums import MailStatus
from data_layer.errors import ConflictError, NotFoundError, PermissionDeniedError
from data_layer.observability.log import get_log
from data_layer.repositories.mails import ClaimedMail
from data_layer.repositories.unit_of_work import Transactions, UnitOfWork
from data_layer.schemas.actors import Actor
from data_layer.schemas.mails import MailView
from data_layer.services.arguments import checks_arguments
from data_layer.services.mails.delivery import KINDS_WITH_TOKEN, LetterWriter, MailDelivery
from data_layer.services.mails.queue import MailQueue
from data_layer.services.mails.transport import MailTransport
from data_layer.services.permissions import Permission, as_of_now, require

log = get_log(__name__)

_FINISH_SECONDS = 4.0
"""For how long a mail that is under way may be finished when the process ends."""


@checks_arguments
class MailService:
    """Mails about accounts, which the account service queues; each is sent by one of the processes that serve.

    Args:
        transactions: where the queue is.
        queue: what other services put in.
        writer: finds the letters.
        delivery: works the queue off.
        transport: what takes the messages; None where no mail server is set.
        shows_links: whether an operator may see the links, which open accounts; never in production.
    """

    def __init__(
        self,
        transactions: Transactions,
        queue: MailQueue,
        writer: LetterWriter,
        delivery: MailDelivery,
        *,
        transport: MailTransport | None,
        shows_links: bool,
    ) -> None:
        self._transactions = transactions
        self._queue = queue
        self._writer = writer
        self._delivery = delivery
        self._transport = transport
        self._shows_links = shows_links

    @property
    def is_configured(self) -> bool:
        """Whether there is something that sends."""
        return self._transport is not None

    def send_with(self, transport: MailTransport) -> None:
        """Send with this instead of SMTP_HOST: an application's own way to its mail provider."""
        self._transport = transport

    @asynccontextmanager
    async def delivering(self) -> AsyncIterator[None]:
        """Send mails inside the block. Any number of processes may do the same; none sends what another one does.

        Leaving the block lets a mail that is under way be finished, for four seconds. Without a mail server mails wait
        in the queue.
        """
        if self._transport is None:
            log.warning("mail_not_configured", advice="set SMTP_HOST; until then mails wait in the queue")
            yield
            return
        stopping = asyncio.Event()
        task = asyncio.create_task(self._delivery.run(self._transport, stopping), name="mail-delivery")
        try:
            yield
        finally:
            stopping.set()
            self._queue.grown.set()
            await asyncio.wait([task], timeout=_FINISH_SECONDS)
            await cancel_and_wait(task)

    async def deliver_due(self) -> int:
        """Send everything that is due now; how many mails were sent.

        Raises:
            ConflictError: no mail server is configured.
            MailServerError: it takes no mails. What was not sent stays in the queue.
        """
        if self._transport is None:
            raise ConflictError("no mail server is set; set SMTP_HOST, or see `data-layer mails show`")
        return await self._delivery.deliver_due(self._transport)

    async def list(
        self,
        actor: Actor,
        *,
        limit: int = 100,
        after: UUID | None = None,
        status: MailStatus | None = None,
        user_id: UUID | None = None,
    ) -> Sequence[MailView]:
        """A page of mails, newest first.

        Args:
            actor: an administrator, or the system.
            limit: the length of the page, 1000 at most.
            after: the id of the last mail of the page before.
            status: only these.
            user_id: only those to this person.
        """
        async with self._transactions() as tx:
            await _authorize(tx, actor)
            return await tx.mails.page(limit=limit, after=after, status=status, user_id=user_id)

    async def get(self, actor: Actor, mail_id: UUID) -> MailView:
        """One mail.

        Raises:
            NotFoundError: there is none.
        """
        async with self._transactions() as tx:
            await _authorize(tx, actor)
            return await _view(tx, mail_id)

    async def retry(self, actor: Actor, mail_id: UUID) -> MailView:
        """Have a mail that waits or has failed sent as soon as possible.

        Raises:
            NotFoundError: there is none.
            ConflictError: it was sent or dropped, or has expired: have the person ask for another one.
        """
        async with self._transactions() as tx:
            await _authorize(tx, actor)
            mail = await _view(tx, mail_id)
            if mail.expires_at <= datetime.now(UTC):
                raise ConflictError("the link in this mail has expired; have the person ask for another mail")
            if not await tx.mails.requeue(mail_id):
                raise ConflictError(f"a mail that was {mail.status} is not sent again; have the person ask for another")
            mail = await _view(tx, mail_id)
        self._queue.grown.set()
        return mail

    async def link(self, actor: Actor, mail_id: UUID) -> str | None:
        """The link in a mail, for a developer without a mail server; None if it no longer works.

        Raises:
            PermissionDeniedError: in production, or to anybody but the operator: it opens an account.
            NotFoundError: the mail does not exist.
        """
        require(actor, Permission.READ_MAILS)
        if not self._shows_links or not actor.is_system:
            raise PermissionDeniedError(
                "links in mails open accounts; they are shown to operators only, and never in production"
            )
        async with self._transactions() as tx:
            mail = await _view(tx, mail_id)
            claimed = ClaimedMail(
                mail.id, mail.user_id, mail.kind, mail.message_id, mail.attempts, mail.expires_at, mail.created_at
            )
            letter = await self._writer.write(tx, claimed)
            return letter.link if letter is not None and mail.kind in KINDS_WITH_TOKEN else None


async def _authorize(tx: UnitOfWork, actor: Actor) -> None:
    require(actor, Permission.READ_MAILS)
    require(await as_of_now(tx, actor), Permission.READ_MAILS)


async def _view(tx: UnitOfWork, mail_id: UUID) -> MailView:
    mail = await tx.mails.view(mail_id)
    if mail is None:
        raise NotFoundError(f"no mail has the id {mail_id}")
    return mail
