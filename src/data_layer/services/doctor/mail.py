"""Whether mails about accounts reach anybody."""

from __future__ import annotations

from dataclasses import replace

from data_layer.extras import is_installed
from data_layer.schemas.doctor import Text
from data_layer.services.doctor.checks import Check, CheckResult, nothing_yet, ok, unknown_location, warning
from data_layer.services.mails.rendering import MailRenderer, sample_letters
from data_layer.services.mails.transport import SmtpTransport
from data_layer.settings.mail import MailSettings

PART = "mail"


def mail_checks(settings: MailSettings, public_address: str, *, is_production: bool, is_known: bool) -> list[Check]:
    """The checks of the mail server and of the templates; no mail is sent.

    Args:
        settings: those of mail.
        public_address: where the service is.
        is_production: whether people wait for mails.
        is_known: whether those of the mail server make sense.
    """

    async def look_at_settings() -> CheckResult:
        return _configured(settings, is_production=is_production, is_known=is_known)

    async def look_at_server() -> CheckResult:
        await SmtpTransport(settings).check()
        return ok("%(server)s takes our connection and login", server=f"{settings.smtp_host}:{settings.port}")

    async def look_at_templates() -> CheckResult:
        renderer = MailRenderer(settings.mail_from or "data-layer@localhost", settings.mail_templates)
        letters = sample_letters(public_address)
        for letter in letters:
            renderer.render(letter)
        return ok("all %(number)s can be filled", number=len(letters))

    configured = Check(PART, "configured", look_at_settings)
    if not settings.is_configured:
        return [configured]
    return [
        configured,
        Check(PART, "server", look_at_server, needs=("configured",)),
        Check(PART, "templates", look_at_templates, needs=("configured",)),
    ]


def _configured(settings: MailSettings, *, is_production: bool, is_known: bool) -> CheckResult:
    if not is_known:
        return unknown_location(Text("the mail server"))
    if not is_installed("aiosmtplib") or not is_installed("jinja2"):
        return nothing_yet("this installation serves no HTTP and sends no mail (extra service)")
    if settings.is_configured:
        return ok("mails come from %(sender)s", sender=str(settings.mail_from))
    if is_production:
        nobody = warning(
            "nobody gets mails: people can neither finish a registration nor replace a forgotten password",
            "set SMTP_HOST, MAIL_FROM and PUBLIC_URL; meanwhile: data-layer users verify, data-layer users password",
        )
        return replace(nobody, is_terminal=True)
    return nothing_yet("no mail server; links are printed by `data-layer dev` and shown by `data-layer mails show`")
