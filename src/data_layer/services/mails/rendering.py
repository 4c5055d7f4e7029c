"""From a mail in the queue to a message: templates, which an operator may replace one by one."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from pathlib import Path
from typing import TYPE_CHECKING

from email_validator import EmailNotValidError, validate_email

from data_layer.entities.enums import MailKind
from data_layer.errors import MailTemplateError
from data_layer.extras import require_extra

if TYPE_CHECKING:
    from jinja2 import Environment

_TEMPLATES = Path(__file__).with_name("templates")
_SUBJECT = "Subject: "


@dataclass(frozen=True, slots=True)
class Letter:
    """What the text of a mail is made of, and what its templates may use.

    Attributes:
        kind: which templates.
        email: whom it goes to.
        name: how the person is addressed; may be empty.
        message_id: of every attempt.
        written_at: when it was queued.
        lifetime: for how long the link works, in words.
        link: what the mail is about, with the token in its fragment, which a browser sends to no server.
        service: where the service is.
    """

    kind: MailKind
    email: str
    name: str
    message_id: str
    written_at: datetime
    lifetime: str
    service: str
    link: str = field(repr=False)


def sample_letters(service: str) -> list[Letter]:
    """One letter of each kind, for a look at the templates."""
    return [
        Letter(
            kind=kind,
            email="ada@example.com",
            name="Ada",
            message_id="<sample@localhost>",
            written_at=datetime.now(UTC),
            lifetime="one hour",
            service=service,
            link=f"{service}#token=sample",
        )
        for kind in MailKind
    ]


class MailRenderer:
    """Make messages of templates: ``KIND.txt``, whose first line is the subject, and ``KIND.html``.

    Templates are Jinja2. What is not known to them is an error, so that no mail goes out with a hole in it.

    Args:
        sender: for the header From.
        folder: templates that go before those of the package.
    """

    def __init__(self, sender: str, folder: Path | None) -> None:
        self._sender = sender
        self._folder = folder
        self._templates: Environment | None = None

    def render(self, letter: Letter) -> EmailMessage:
        """The message; the same letter always gives the same.

        Raises:
            MailTemplateError: a template is wrong, or without a subject.
            MissingExtraError: Jinja2 is not installed.
        """
        subject, text = self._subject_and_text(letter)
        message = EmailMessage(policy=SMTP)
        message["From"] = self._sender
        message["To"] = _addressed(letter.email)
        message["Subject"] = subject
        message["Date"] = format_datetime(letter.written_at)
        message["Message-ID"] = letter.message_id
        # So that no absence note answers (RFC 3834).
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(text)
        message.add_alternative(self._fill(letter, "html"), subtype="html")
        return message

    def _subject_and_text(self, letter: Letter) -> tuple[str, str]:
        first, _, text = self._fill(letter, "txt").partition("\n")
        subject = "".join(character for character in first.removeprefix(_SUBJECT) if character.isprintable()).strip()
        if not first.startswith(_SUBJECT) or not subject:
            raise MailTemplateError(f"the template {letter.kind}.txt must begin with a line 'Subject: …'")
        return subject, text.strip() + "\n"

    def _fill(self, letter: Letter, form: str) -> str:
        from jinja2 import TemplateError

        name = f"{letter.kind}.{form}"
        values = {
            "email": letter.email,
            "name": letter.name,
            "lifetime": letter.lifetime,
            "service": letter.service,
            "link": letter.link,
        }
        try:
            return self._environment().get_template(name).render(values)
        except Exception as error:  # noqa: BLE001  (templates may raise anything)
            # Without the cause, which may quote the values, the token among them.
            where = f": {error.message}" if isinstance(error, TemplateError) and error.message else ""
            where = where.replace(letter.link, "…")
            raise MailTemplateError(f"the template {name} cannot be filled ({type(error).__name__}{where})") from None

    def _environment(self) -> Environment:
        if self._templates is None:
            require_extra("service", "writing mails", "jinja2")
            from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

            folders = [folder for folder in (self._folder, _TEMPLATES) if folder is not None]
            self._templates = Environment(
                loader=FileSystemLoader(folders),
                autoescape=select_autoescape(["html"]),
                undefined=StrictUndefined,
                trim_blocks=True,
                lstrip_blocks=True,
            )
        return self._templates


def _addressed(email: str) -> str:
    """The spelling for servers that know no other letters than ASCII, where there is one."""
    try:
        valid = validate_email(email, check_deliverability=False)
    except EmailNotValidError:  # Stored by an older rule; the mail server decides.
        return email
    return valid.ascii_email or valid.normalized
