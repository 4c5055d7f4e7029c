"""The settings of mail: a part of ``Settings``."""

from __future__ import annotations

from email.headerregistry import Address
from email.utils import parseaddr
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from email_validator import EmailNotValidError, validate_email
from pydantic import AfterValidator, Field, SecretStr

from data_layer.environment import is_local, split_host
from data_layer.settings.part import ANY_CASE, Host, PlainText, Port, Seconds, SettingsPart
from data_layer.settings.storage import WebAddress


class SmtpTls(StrEnum):
    """How the connection to the mail server is encrypted: after a command (RFC 3207), from the start, or not at all."""

    STARTTLS = "starttls"
    TLS = "tls"
    NONE = "none"


_PORTS = {SmtpTls.STARTTLS: 587, SmtpTls.TLS: 465, SmtpTls.NONE: 25}


def _check_smtp_host(value: str) -> str:
    host, port = split_host(value)
    if host.startswith("/"):
        raise ValueError("is a path; write the name or the address of the server")
    if port is not None:
        raise ValueError("names a port; put it into SMTP_PORT")
    return host


def _check_sender(value: str) -> str:
    name, address = parseaddr(value)
    try:
        checked = validate_email(address, check_deliverability=False, allow_smtputf8=False)
    except EmailNotValidError as error:
        raise ValueError(
            f"is not an address of mail; write no-reply@example.com or Name <no-reply@example.com>: {error}"
        ) from None
    return str(Address(display_name=name, addr_spec=checked.ascii_email or checked.normalized))


class MailSettings(SettingsPart):
    """How mails are sent, and what they look like."""

    # Mail
    smtp_host: Annotated[Host, AfterValidator(_check_smtp_host)] | None = Field(
        None,
        description="Server that takes mails about accounts. Without it nobody gets any; "
        "outside production `data-layer mails show` shows the links.",
    )
    smtp_port: Port | None = Field(
        None, description="Its port. Default: 587, with SMTP_TLS=tls 465, with SMTP_TLS=none 25."
    )
    smtp_tls: Annotated[SmtpTls, ANY_CASE] = Field(
        SmtpTls.STARTTLS,
        description="Encryption: starttls, tls or none. The certificate is verified. "
        "In production none is only for a server on this machine.",
    )
    smtp_tls_ca: Path | None = Field(None, description="File with the authorities to trust. Default: the system's.")
    smtp_username: PlainText | None = Field(None, description="User that logs in at the mail server, if it wants one.")
    smtp_password: SecretStr | None = Field(None, description="Password of this user.")
    smtp_timeout: Seconds = Field(30, le=300, description="Seconds to wait for each answer of the mail server.")
    mail_from: Annotated[PlainText, AfterValidator(_check_sender)] | None = Field(
        None, max_length=320, description="Sender: no-reply@example.com or Name <no-reply@example.com>."
    )
    mail_templates: Path | None = Field(
        None, description="Folder with templates (Jinja2) that replace those of the same names in the package."
    )
    verify_email_url: WebAddress | None = Field(
        None,
        description="Page of your front end that verifies an address; #token=… is added. Default: that of the service.",
    )
    reset_password_url: WebAddress | None = Field(
        None, description="The same for choosing a new password. Default: that of the service."
    )
    mail_retention: int = Field(
        30, ge=1, le=3650, description="Days after which mails that were sent or failed are removed from the list."
    )

    @property
    def is_configured(self) -> bool:
        """Whether mails can be sent."""
        return self.smtp_host is not None

    @property
    def port(self) -> int:
        """SMTP_PORT, or the usual one."""
        return self.smtp_port or _PORTS[self.smtp_tls]

    @property
    def domain(self) -> str:
        """The domain of the sender, for the ids of messages."""
        return self.mail_from.rpartition("@")[2].rstrip(">") if self.mail_from else "localhost"

    def contradictions(self) -> list[str]:
        """Return what makes the settings unusable anywhere."""
        problems = self.missing_files("smtp_tls_ca")
        if self.mail_templates is not None and not self.mail_templates.is_dir():
            problems.append(f"MAIL_TEMPLATES: there is no folder {str(self.mail_templates)!r}")
        if self.is_configured and self.mail_from is None:
            problems.append("SMTP_HOST is set, but MAIL_FROM, the sender, is not")
        if (self.smtp_username is None) != (self.smtp_password is None):
            given, missing = "SMTP_USERNAME", "SMTP_PASSWORD"
            if self.smtp_username is None:
                given, missing = missing, given
            problems.append(f"{given} is set, but {missing} is not")
        if self.smtp_tls is SmtpTls.NONE and self.smtp_tls_ca is not None:
            problems.append("SMTP_TLS_CA is set, but SMTP_TLS is none")
        if self.smtp_tls is SmtpTls.NONE and self.smtp_password is not None and not is_local(self.smtp_host):
            problems.append("SMTP_TLS is none, so SMTP_PASSWORD would be sent in clear; set starttls or tls")
        return problems

    def unfit(self) -> list[str]:
        """Return what production refuses."""
        if self.is_configured and self.smtp_tls is SmtpTls.NONE and not is_local(self.smtp_host):
            return ["SMTP_TLS must be starttls or tls: everybody on the way could read links that open accounts"]
        return []
