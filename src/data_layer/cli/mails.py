"""``data-layer mails``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal
from uuid import UUID

import typer

from data_layer.cli.output import AsJson, counted, print_facts, print_json, print_table, run_with_data, say
from data_layer.errors import PermissionDeniedError

if TYPE_CHECKING:
    from data_layer.layer import DataLayer
    from data_layer.schemas.mails import MailView

_COLUMNS = ("Id", "To", "About", "Status", "Attempts", "Queued", "Error")

commands = typer.Typer(help="Mails about accounts: which wait, and what became of the others.", no_args_is_help=True)

Status = Literal["queued", "sent", "failed", "dropped"]
MailId = Annotated[UUID, typer.Argument(metavar="MAIL", help="The id of the mail.")]


@commands.command("list")
def list_mails(
    *,
    status: Annotated[Status | None, typer.Option(help="Only mails with this status.")] = None,
    user: Annotated[str | None, typer.Option(help="Only mails to this account: its id or its e-mail address.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="The largest number of mails.")] = 50,
    after: Annotated[UUID | None, typer.Option(help="The id of the last mail of the page before.")] = None,
    as_json: AsJson = False,
) -> None:
    """List mails, newest first."""

    async def work(data: DataLayer) -> Sequence[MailView]:
        from data_layer.entities.enums import MailStatus
        from data_layer.schemas.actors import SYSTEM

        user_id = None if user is None else (await data.accounts.find(SYSTEM, user)).id
        wanted = status and MailStatus(status)
        return await data.mails.list(SYSTEM, limit=limit, after=after, status=wanted, user_id=user_id)

    mails = run_with_data(work, as_json=as_json)
    if as_json:
        print_json(mails)
    elif not mails:
        say("There are no such mails.")
    else:
        more = f"; for more: --after {mails[-1].id}" if len(mails) == limit else ""
        print_table(counted(len(mails), "mail") + more, _COLUMNS, [_cells(mail) for mail in mails], right=("Attempts",))


@commands.command()
def show(mail: MailId, *, as_json: AsJson = False) -> None:
    """Show a mail; outside production also its link, which opens the account: for a service without a mail server."""

    async def work(data: DataLayer) -> tuple[MailView, str | None]:
        from data_layer.schemas.actors import SYSTEM

        found = await data.mails.get(SYSTEM, mail)
        try:
            return found, await data.mails.link(SYSTEM, mail)
        except PermissionDeniedError:
            return found, None

    found, link = run_with_data(work, as_json=as_json)
    if as_json:
        print_json(found.model_dump(mode="json") | {"link": link})
        return
    facts = {
        "To": found.email,
        "About": found.kind,
        "Status": found.status,
        "Attempts": found.attempts,
        "Queued": f"{found.created_at:%Y-%m-%d %H:%M:%S}",
        "Next attempt": found.finished_at is None and f"{found.next_attempt_at:%Y-%m-%d %H:%M:%S}",
        "Finished": found.finished_at and f"{found.finished_at:%Y-%m-%d %H:%M:%S}",
        "Expires": f"{found.expires_at:%Y-%m-%d %H:%M:%S}",
        "Error": found.last_error,
        "Message-ID": found.message_id,
        "Link": link,
    }
    print_facts(str(found.id), {name: value for name, value in facts.items() if value not in {None, False}})


@commands.command()
def retry(mail: MailId, *, as_json: AsJson = False) -> None:
    """Have a running service send a mail again that waits or has failed."""

    async def work(data: DataLayer) -> MailView:
        from data_layer.schemas.actors import SYSTEM

        return await data.mails.retry(SYSTEM, mail)

    queued = run_with_data(work, as_json=as_json)
    if as_json:
        print_json(queued)
    else:
        say(f"The mail to {queued.email} is due now.")


def _cells(mail: MailView) -> tuple[object, ...]:
    queued = f"{mail.created_at:%Y-%m-%d %H:%M}"
    return (mail.id, mail.email, mail.kind, mail.status, mail.attempts, queued, mail.last_error or "")
