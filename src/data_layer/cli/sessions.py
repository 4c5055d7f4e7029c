"""``data-layer sessions``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from data_layer.cli.output import (
    AsJson,
    counted,
    notice,
    print_json,
    print_table,
    read_settings,
    run,
    say,
)
from data_layer.config import Settings

if TYPE_CHECKING:
    from data_layer.schemas.sessions import SessionAdmin

_COLUMNS = ("Id", "User", "Type", "Device", "Address", "Place", "Active", "Ends", "Requests")

commands = typer.Typer(help="Who is logged in.", no_args_is_help=True)

UserName = Annotated[str | None, typer.Option("--user", help="The id or the e-mail address of a user.")]


@commands.command("list")
def list_sessions(
    *,
    user: UserName = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="The largest number of sessions.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List the sessions that are accepted, those that began last first."""
    sessions = run(_list(read_settings(as_json=as_json), user, limit), as_json=as_json)
    if as_json:
        print_json(sessions)
    elif not sessions:
        say("Nobody is logged in." if user is None else "This user is not logged in.")
    else:
        more = "; for more: --limit" if len(sessions) == limit else ""
        print_table(
            counted(len(sessions), "session") + more, _COLUMNS, [_cells(row) for row in sessions], right=("Requests",)
        )


@commands.command()
def revoke(
    *,
    session: Annotated[UUID | None, typer.Argument(help="The id of one session.", show_default=False)] = None,
    user: UserName = None,
    everybody: Annotated[bool, typer.Option("--all", help="The sessions of everybody.")] = False,
    reason: Annotated[
        str, typer.Option(help="What sessions and audit trail keep as the reason.")
    ] = "ended_by_operator",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before ending the sessions of everybody.")] = False,
    as_json: AsJson = False,
) -> None:
    """End one session, those of one user (--user), or those of everybody (--all); within two seconds, everywhere."""
    if [session is not None, user is not None, everybody].count(True) != 1:
        raise typer.BadParameter("name one session by its id, or a user with --user, or everybody with --all")
    if everybody and not yes and not typer.confirm("Log everybody out?", err=True):
        notice("Nothing was changed.")
        raise typer.Abort
    count = run(_revoke(read_settings(as_json=as_json), session, user, reason), as_json=as_json)
    if as_json:
        print_json({"ended": count})
    else:
        say(f"Ended {counted(count, 'session')}.")


def _cells(session: SessionAdmin) -> tuple[object, ...]:
    device = [session.browser, session.operating_system, session.device_type]
    return (
        *(session.id, session.user_id, session.type, ", ".join(part for part in device if part)),
        *(session.ip_address or "", ", ".join(part for part in (session.city, session.country) if part)),
        *(f"{session.last_active_at:%Y-%m-%d %H:%M}", f"{session.expires_at:%Y-%m-%d %H:%M}", session.request_count),
    )


async def _list(settings: Settings, user: str | None, limit: int) -> Sequence[SessionAdmin]:
    from data_layer.layer import DataLayer
    from data_layer.schemas.actors import SYSTEM

    async with DataLayer(settings) as data:
        user_id = None if user is None else (await data.accounts.find(SYSTEM, user)).id
        return await data.sessions.list_all(SYSTEM, user_id=user_id, limit=limit)


async def _revoke(settings: Settings, session: UUID | None, user: str | None, reason: str) -> int:
    from data_layer.context import request_context
    from data_layer.layer import DataLayer
    from data_layer.schemas.actors import SYSTEM

    async with DataLayer(settings) as data:
        with request_context(source="cli"):
            if session is not None:
                return await data.sessions.revoke(SYSTEM, session, reason=reason)
            if user is not None:
                account = await data.accounts.find(SYSTEM, user)
                return await data.sessions.revoke_all(SYSTEM, account.id, reason=reason)
            return await data.sessions.revoke_everything(SYSTEM, reason=reason)
