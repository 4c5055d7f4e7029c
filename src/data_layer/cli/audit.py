"""``data-layer audit``."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from data_layer.cli.output import (
    AsJson,
    console,
    counted,
    new_file,
    notice,
    print_json,
    print_table,
    read_settings,
    run,
    say,
)
from data_layer.config import Settings
from data_layer.errors import InvalidValueError

if TYPE_CHECKING:
    from data_layer.schemas.audit import AuditFilter, AuditPage, AuditSecure

_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
# The option that each field of a filter comes from.
_OPTIONS = {
    "actions": "--action",
    "levels": "--level",
    "categories": "--category",
    "resource_type": "--resource",
    "resource_id": "--resource",
    "correlation_id": "--correlation",
    "since": "--since",
    "until": "--until",
    "text": "--text",
}
_TOLD_AFTER = 100_000  # Entries between two lines of progress.


class Depth(StrEnum):
    """The names of ``AuditView``, which to import would slow every command down."""

    SECURE = "secure"
    COMPLIANCE = "compliance"
    FULL = "full"


class Format(StrEnum):
    """The names of ``ExportFormat``, for the same reason."""

    JSON_LINES = "jsonl"
    CSV = "csv"


def _moment(given: str) -> datetime:
    """A time (UTC unless it says otherwise), or how long ago, as in 90m, 24h, 7d."""
    if given[:-1].isdigit() and given[-1:] in _UNITS:
        return datetime.now(UTC) - min(int(given[:-1]), 99_999) * _UNITS[given[-1]]
    try:
        moment = datetime.fromisoformat(given)
    except ValueError:
        raise typer.BadParameter("write a time as 2026-01-31 or 2026-01-31T12:00, or how long ago as 24h") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


User = Annotated[UUID | None, typer.Option(help="Of this user.")]
Action = Annotated[list[str] | None, typer.Option(help="What was done, such as user_login; may be repeated.")]
Level = Annotated[list[str] | None, typer.Option(help="info, warning, error or critical; may be repeated.")]
Category = Annotated[list[str] | None, typer.Option(help="What about, such as security; may be repeated.")]
Resource = Annotated[str | None, typer.Option(help="What was touched: a type, or type:id.", metavar="TYPE[:ID]")]
Correlation = Annotated[str | None, typer.Option(help="Of one request, by its X-Request-ID.")]
Since = Annotated[datetime | None, typer.Option(parser=_moment, metavar="TIME", help="From then: 24h, 2026-01-31.")]
Until = Annotated[datetime | None, typer.Option(parser=_moment, metavar="TIME", help="Before then.")]
Text = Annotated[str | None, typer.Option(help="In description, details and error; needs --since or an id beside it.")]

Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="File, which must not exist. Default: standard output.")
]
View = Annotated[Depth, typer.Option(help="How much of each entry.")]
Form = Annotated[Format, typer.Option("--format", help="JSON Lines or CSV.")]

commands = typer.Typer(help="Who did what, when and from where.", no_args_is_help=True)


@commands.command("list")
def list_entries(
    *,
    user: User = None,
    action: Action = None,
    level: Level = None,
    category: Category = None,
    resource: Resource = None,
    correlation: Correlation = None,
    since: Since = None,
    until: Until = None,
    text: Text = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="The largest number of entries.")] = 50,
    cursor: Annotated[str | None, typer.Option(help="Go on after a page, by the cursor that it ended with.")] = None,
    oldest_first: Annotated[bool, typer.Option("--oldest-first", help="Oldest first.")] = False,
    view: View = Depth.COMPLIANCE,
    as_json: AsJson = False,
) -> None:
    """List entries of the audit trail, newest first."""
    wanted = _filter(user, action, level, category, resource, correlation, since, until, text)
    settings = read_settings(as_json=as_json)
    page = run(_list(settings, wanted, limit, cursor, view, newest_first=not oldest_first), as_json=as_json)
    if as_json:
        print_json({"entries": [entry.model_dump() for entry in page.entries], "next_cursor": page.next_cursor})
        return
    if not page.entries:
        say("There are no such entries.")
        return
    columns = ("Time (UTC)", "Level", "Action", "User", "From", "Description")
    print_table(counted(len(page.entries), "entry", "entries"), columns, map(_cells, page.entries))
    if page.next_cursor:
        console.print()
        say(f"More: --cursor {page.next_cursor}")


@commands.command()
def export(
    *,
    output: Output = None,
    form: Form = Format.JSON_LINES,
    user: User = None,
    action: Action = None,
    level: Level = None,
    category: Category = None,
    resource: Resource = None,
    correlation: Correlation = None,
    since: Since = None,
    until: Until = None,
    text: Text = None,
    view: View = Depth.COMPLIANCE,
    as_json: AsJson = False,
) -> None:
    """Export entries of the audit trail, oldest first. The export itself is recorded."""
    wanted = _filter(user, action, level, category, resource, correlation, since, until, text)
    count = run(_export(read_settings(as_json=as_json), wanted, form, view, output), as_json=as_json)
    if as_json and output is not None:
        print_json({"file": str(output), "entries": count})
    else:
        notice(f"Exported {count:,} entries.")


def _filter(*given: Any) -> AuditFilter:
    from data_layer.schemas.audit import AuditFilter

    user, action, level, category, resource, correlation, since, until, text = given
    kind, _, identifier = (resource or "").partition(":")
    try:
        return AuditFilter(
            user_id=user,
            actions=tuple(action or ()),
            levels=tuple(level or ()),
            categories=tuple(category or ()),
            resource_type=kind or None,
            resource_id=identifier or None,
            correlation_id=correlation,
            since=since,
            until=until,
            text=text,
        )
    except InvalidValueError as error:
        message = str(error).removeprefix(f"{error.field}.0: ").removeprefix(f"{error.field}: ")
        raise typer.BadParameter(message, param_hint=_OPTIONS.get(error.field or "")) from None


def _cells(entry: AuditSecure) -> tuple[object, ...]:
    failed = "" if entry.is_success else " (failed)"
    address = getattr(entry, "ip_address", None) or ""
    return (
        f"{entry.created_at:%Y-%m-%d %H:%M:%S}",
        entry.level,
        f"{entry.action}{failed}",
        entry.user_id or "",
        address,
        entry.description,
    )


async def _list(
    settings: Settings, wanted: AuditFilter, limit: int, cursor: str | None, view: Depth, *, newest_first: bool
) -> AuditPage[AuditSecure]:
    from data_layer.layer import DataLayer
    from data_layer.schemas.actors import SYSTEM
    from data_layer.schemas.audit import AuditView

    async with DataLayer(settings) as data:
        return await data.audit.list(
            SYSTEM, wanted, view=AuditView(view), limit=limit, cursor=cursor, newest_first=newest_first
        )


async def _export(settings: Settings, wanted: AuditFilter, form: Format, view: Depth, output: Path | None) -> int:
    from data_layer.context import request_context
    from data_layer.layer import DataLayer
    from data_layer.schemas.actors import SYSTEM
    from data_layer.schemas.audit import AuditView, ExportFormat

    count = 0

    def progress(total: int) -> None:
        nonlocal count
        if total // _TOLD_AFTER > count // _TOLD_AFTER:
            notice(f"{total:,} entries …")
        count = total

    async with DataLayer(settings) as data:
        with request_context(source="cli"):
            pieces = data.audit.export(
                SYSTEM, wanted, format=ExportFormat(form), view=AuditView(view), on_progress=progress
            )
            await _write(pieces, output)
    return count


async def _write(pieces: AsyncIterator[bytes], output: Path | None) -> None:
    if output is None:
        await _pour(pieces, sys.stdout.buffer.write)
        sys.stdout.buffer.flush()
        return
    with new_file(output) as file:
        await _pour(pieces, file.write)


async def _pour(pieces: AsyncIterator[bytes], write: Callable[[bytes], Any]) -> None:
    async for piece in pieces:
        write(piece)
