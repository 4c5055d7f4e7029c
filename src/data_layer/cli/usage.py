"""``data-layer usage``: what was spent on models, by whom and for what, and the budgets of a month."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from data_layer.cli.output import (
    AsJson,
    counted,
    print_facts,
    print_json,
    print_table,
    readable_errors,
    run_with_data,
    say,
)
from data_layer.errors import InvalidValueError

if TYPE_CHECKING:
    from data_layer.layer import DataLayer
    from data_layer.schemas.usage import BudgetView, UsageEntryView, UsageSum

commands = typer.Typer(help="What was spent on models.", no_args_is_help=True)

User = Annotated[str | None, typer.Option("--user", help="Only this person's: the id or the e-mail address.")]
Project = Annotated[UUID | None, typer.Option("--project", help="Only that of the project with this id.")]

_DAY = ["%Y-%m-%d"]
# What sums can be divided by. The enumeration would bring the whole of SQLAlchemy into every --help.
_FIELDS = {
    "person": "user_id",
    "project": "project_id",
    "provider": "provider",
    "model": "model",
    "stack": "code_stack",
    "outcome": "outcome",
    "day": "day",
}
_NUMBERS = ("Calls", "Input", "Output", "Cache read", "Cache written", "Cost")


@commands.command()
def sums(
    *,
    by: Annotated[
        list[str] | None, typer.Option(help=f"Divide the sums by {', '.join(_FIELDS)}; may be repeated.")
    ] = None,
    user: User = None,
    project: Project = None,
    since: Annotated[
        datetime | None, typer.Option(formats=_DAY, help="The first day, in UTC. Default: the first of this month.")
    ] = None,
    until: Annotated[datetime | None, typer.Option(formats=_DAY, help="The last day, in UTC. Default: today.")] = None,
    as_json: AsJson = False,
) -> None:
    """Add up calls, tokens and costs: of everybody, a person or a project."""
    groups = list(dict.fromkeys(by or ()))
    today = datetime.now(UTC).date()
    first_day = since.date() if since else today.replace(day=1)
    last_day = until.date() if until else today

    async def work(data: DataLayer) -> Sequence[UsageSum]:
        from data_layer.schemas.actors import SYSTEM

        user_id = await _id_of(data, user)
        return await data.usage.sums(
            SYSTEM,
            groups,
            user_id=user_id,
            everyone=user_id is None,
            project_id=project,
            first_day=first_day,
            last_day=last_day,
        )

    found = run_with_data(work, as_json=as_json)
    if as_json:
        print_json(found)
    elif not found:
        say(f"Nothing was used from {first_day} to {last_day}.")
    else:
        _print_sums(found, groups, first_day, last_day)


@commands.command()
def entries(
    user: Annotated[str, typer.Argument(help="The id or the e-mail address.")],
    *,
    project: Project = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="The largest number of entries.")] = 50,
    before: Annotated[UUID | None, typer.Option(help="The id of the last entry of the page before.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the entries of a person's ledger, those recorded last first."""

    async def work(data: DataLayer) -> Sequence[UsageEntryView]:
        from data_layer.schemas.actors import SYSTEM

        user_id = await _id_of(data, user)
        return await data.usage.entries(SYSTEM, user_id=user_id, project_id=project, limit=limit, before=before)

    found = run_with_data(work, as_json=as_json)
    if as_json:
        print_json(found)
        return
    if not found:
        say("There are no such entries.")
        return
    more = f"; for more: --before {found[-1].id}" if len(found) == limit else ""
    rows = [
        (f"{entry.at:%Y-%m-%d %H:%M}", entry.provider, entry.model, entry.outcome, *_numbers(entry), entry.key)
        for entry in found
    ]
    title = counted(len(found), "entry", "entries") + more
    print_table(title, ("At", "Provider", "Model", "Outcome", *_NUMBERS[1:], "Key"), rows, right=_NUMBERS)


@commands.command()
def budget(
    user: Annotated[str, typer.Argument(help="The id or the e-mail address.")],
    *,
    limit: Annotated[str | None, typer.Option(help="Set what may be spent in a month, such as 25.50.")] = None,
    no_limit: Annotated[bool, typer.Option("--no-limit", help="Let the person spend any amount.")] = False,
    currency: Annotated[str, typer.Option(help="The code of the currency.")] = "USD",
    as_json: AsJson = False,
) -> None:
    """Show or set a person's monthly budget."""
    with readable_errors(as_json=as_json):
        amount = None if limit is None else _amount(limit)
        if no_limit and amount is not None:
            raise InvalidValueError("--limit and --no-limit contradict each other; give one of them")

    async def work(data: DataLayer) -> BudgetView | None:
        from data_layer.schemas.actors import SYSTEM

        found = await data.accounts.find(SYSTEM, user)
        if amount is None and not no_limit:
            return await data.usage.budget(SYSTEM, user_id=found.id, currency=currency)
        return await data.usage.set_budget(SYSTEM, found.id, amount, currency=currency)

    state = run_with_data(work, as_json=as_json)
    if as_json:
        print_json(state)
    elif state is None:
        say(f"Nothing limits what {user} may spend in {currency}. Set a limit with: --limit")
    else:
        facts = {
            "Limit": state.monthly_limit,
            "Spent": state.spent,
            "Reserved": state.reserved,
            "Remaining": state.remaining,
        }
        title = f"{user} in this month"
        print_facts(title, {name: f"{_short(amount)} {state.currency}" for name, amount in facts.items()})


def _print_sums(found: Sequence[UsageSum], groups: Sequence[str], first_day: date, last_day: date) -> None:
    columns = [group.capitalize() for group in groups]
    rows = [
        (*(getattr(total, _FIELDS[group]) or "" for group in groups), f"{total.entries:,}", *_numbers(total))
        for total in found
    ]
    print_table(f"Usage from {first_day} to {last_day}", (*columns, *_NUMBERS), rows, right=_NUMBERS)


def _numbers(used: UsageSum | UsageEntryView) -> tuple[str, ...]:
    tokens = (used.input_tokens, used.output_tokens, used.cache_read_tokens, used.cache_write_tokens)
    return (*(f"{count:,}" for count in tokens), f"{_short(used.cost)} {used.currency}")


def _short(amount: Decimal) -> str:
    """An exact amount, with cents at least and no zeros behind what is finer."""
    return f"{amount:,.2f}" if amount == round(amount, 2) else f"{amount:,f}".rstrip("0")


def _amount(given: str) -> Decimal:
    try:
        return Decimal(given)
    except InvalidOperation:
        raise InvalidValueError(f"{given!r} is not an amount; write it like 25.50", field="limit") from None


async def _id_of(data: DataLayer, user: str | None) -> UUID | None:
    from data_layer.schemas.actors import SYSTEM

    return None if user is None else (await data.accounts.find(SYSTEM, user)).id
