"""What takes messages: an SMTP server, the terminal of a developer, or whatever an application has."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from email.message import EmailMessage
from typing import TYPE_CHECKING, Protocol

from data_layer.errors import MailDeferredError, MailError, MailRefusedError, MailServerError
from data_layer.extras import require_extra
from data_layer.settings.mail import MailSettings, SmtpTls

if TYPE_CHECKING:
    import aiosmtplib

_PERMANENT = 500
"""Replies from here on mean that asking again would be answered alike (RFC 5321, 4.2.1)."""


class MailTransport(Protocol):
    """Takes messages, one at a time."""

    async def send(self, message: EmailMessage, /) -> None:
        """Hand a message over. It was taken when this returns.

        Raises:
            MailRefusedError: this message will never be taken.
            MailDeferredError: this message is not taken at the moment.
            MailServerError: no message is taken at the moment.
        """

    async def rest(self) -> None:
        """There is nothing to send for a while. Never fails."""


class PrintedMails(MailTransport):
    """Shows mails to the developer in front of the terminal, who can open the links there."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say

    async def send(self, message: EmailMessage, /) -> None:
        """Print the text."""
        text = message.get_body(("plain",))
        content = text.get_content() if text is not None else ""
        self._say(f"Mail to {message['To']}: {message['Subject']}\n")
        for line in content.splitlines():
            self._say(f"  {line}")

    async def rest(self) -> None:
        """Nothing is kept open."""


class SmtpTransport(MailTransport):
    """Sends by SMTP, over one connection that is kept while there is something to send.

    The certificate of the server and its name are verified, with SMTP_TLS=starttls too: a server that does not offer
    encryption is not used. A refusal of one mail (its receiver, its content) is another error than a refusal of the
    service (the login, the sender), which the operator has to correct.

    Args:
        settings: the ``smtp_`` ones.

    Raises:
        MissingExtraError: aiosmtplib is not installed.
    """

    def __init__(self, settings: MailSettings) -> None:
        require_extra("service", "sending mails", "aiosmtplib")
        self._settings = settings
        self._tls = None
        if settings.smtp_tls is not SmtpTls.NONE:
            self._tls = ssl.create_default_context(cafile=settings.smtp_tls_ca)
        self._client: aiosmtplib.SMTP | None = None

    async def send(self, message: EmailMessage, /) -> None:
        """Hand a message to the server; see ``MailTransport``."""
        client = await self._connected()
        try:
            await client.send_message(message)
        except BaseException as error:
            # Whatever the state of the conversation is: the next message begins a new one.
            self._drop()
            if isinstance(error, Exception):
                raise _meaning(error) from None
            raise

    async def check(self) -> None:
        """Connect and log in, as sending does.

        Raises:
            MailServerError: the server cannot be used.
        """
        try:
            await self._connected()
        finally:
            await self.rest()

    async def rest(self) -> None:
        """Say goodbye to the server."""
        import aiosmtplib

        client, self._client = self._client, None
        if client is None:
            return
        try:
            await client.quit()
        except (aiosmtplib.SMTPException, OSError):
            client.close()

    async def _connected(self) -> aiosmtplib.SMTP:
        import aiosmtplib

        if self._client is not None and self._client.is_connected:
            return self._client
        settings = self._settings
        password = settings.smtp_password
        client = aiosmtplib.SMTP(
            hostname=settings.smtp_host,
            port=settings.port,
            username=settings.smtp_username,
            password=password.get_secret_value() if password is not None else None,
            # The library would look this machine's name up in the DNS, and wait for it.
            local_hostname=socket.gethostname(),
            timeout=settings.smtp_timeout,
            use_tls=settings.smtp_tls is SmtpTls.TLS,
            start_tls=settings.smtp_tls is SmtpTls.STARTTLS,
            tls_context=self._tls,
        )
        try:
            await client.connect()
        except (aiosmtplib.SMTPException, OSError, ValueError) as error:
            client.close()
            place = f"{settings.smtp_host}:{settings.port}"
            raise MailServerError(f"the mail server {place} cannot be used: {_said(error)}") from None
        except BaseException:
            client.close()
            raise
        self._client = client
        return client

    def _drop(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None


def _meaning(error: Exception) -> MailError:
    """What an error means for the mail."""
    import aiosmtplib

    refused: type[MailError] = MailRefusedError
    if isinstance(error, aiosmtplib.SMTPRecipientsRefused) and error.recipients:
        error = error.recipients[0]
    match error:
        case aiosmtplib.SMTPRecipientRefused() | aiosmtplib.SMTPDataError():
            kind = refused if error.code >= _PERMANENT else MailDeferredError
            return kind(f"the mail server did not take the mail: {_said(error)}")
        case aiosmtplib.SMTPNotSupported():
            return refused("the mail server does not take such an address (it offers no SMTPUTF8)")
        case UnicodeError() | ValueError():
            return refused(f"the message cannot be sent: {type(error).__name__}")
        case _:
            return MailServerError(f"the mail server cannot be used: {_said(error)}")


def _said(error: Exception) -> str:
    """What went wrong, in the server's words where it said something."""
    import aiosmtplib

    if isinstance(error, aiosmtplib.SMTPResponseException):
        return f"{error.code} {error.message}"
    if isinstance(error, aiosmtplib.SMTPConnectError) and error.__cause__ is not None:
        return f"{type(error.__cause__).__name__}: {error.__cause__}"
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
