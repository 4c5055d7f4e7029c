"""A real SMTP server for tests, in their event loop: it keeps what it takes and refuses what it is told to."""

from __future__ import annotations

import asyncio
import re
import ssl
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

_LINK = re.compile(r"https?://\S+")
LOGIN = ("mailer", "a password of the mailer")


@dataclass
class MailServer:
    """What has arrived, and what is answered.

    ``refused`` maps receivers to replies; ``content_reply`` is called with each message before it is taken.
    """

    port: int = 0
    received: list[EmailMessage] = field(default_factory=list)
    receivers: list[str] = field(default_factory=list)
    logins: int = 0
    refused: dict[str, str] = field(default_factory=dict)
    content_reply: Callable[[EmailMessage], Awaitable[str | None]] | None = None

    async def handle_RCPT(  # noqa: N802  (aiosmtpd calls it so)
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _o: Any
    ) -> str:
        if address in self.refused:
            return self.refused[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(  # noqa: N802  (aiosmtpd calls it so)
        self, _server: SMTP, _session: Session, envelope: Envelope
    ) -> str:
        content = envelope.content
        message = message_from_bytes(content if isinstance(content, bytes) else b"", policy=default)
        if self.content_reply is not None and (reply := await self.content_reply(message)) is not None:
            return reply
        self.received.append(message)
        self.receivers += envelope.rcpt_tos
        return "250 taken"

    def authenticate(
        self, _server: SMTP, _session: Session, _envelope: Envelope, _mechanism: str, data: Any
    ) -> AuthResult:
        is_right = isinstance(data, LoginPassword) and (data.login.decode(), data.password.decode()) == LOGIN
        self.logins += is_right
        return AuthResult(success=is_right, handled=False)  # Else a wrong password is not answered at all.


@asynccontextmanager
async def mail_server(
    *, tls: ssl.SSLContext | None = None, starttls: ssl.SSLContext | None = None, needs_login: bool = False
) -> AsyncIterator[MailServer]:
    """A server on loopback, on any free port."""
    server = MailServer()

    def protocol() -> SMTP:
        with warnings.catch_warnings(action="ignore"):  # It does not know that the whole connection is encrypted.
            return SMTP(
                server,
                hostname="mail.example",
                tls_context=starttls,
                require_starttls=starttls is not None,
                auth_required=needs_login,
                auth_require_tls=tls is None,
                authenticator=server.authenticate,
                enable_SMTPUTF8=True,
            )

    listening = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0, ssl=tls)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()


def text_of(message: EmailMessage, form: str = "plain") -> str:
    body = message.get_body((form,))
    assert body is not None
    content: str = body.get_content()
    return content


def link_of(message: EmailMessage) -> str:
    """The link in the text of a mail."""
    match = _LINK.search(text_of(message))
    assert match
    return match[0]


def token_of(message: EmailMessage) -> str:
    """The token in the link."""
    return link_of(message).partition("#token=")[2]
