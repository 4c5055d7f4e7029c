"""``data-layer usage``: costs and budgets without SQL."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from data_layer import DataLayer, Settings
from data_layer.entities.enums import CodeStack, UsageOutcome
from data_layer.schemas.actors import Actor
from data_layer.schemas.usage import NewUsage
from tests.support import make_project, make_user

from .support import Commands

JULY = datetime(2026, 7, 3, 12, tzinfo=UTC)


@pytest.fixture
def ledger(command: Commands, settings: Settings) -> Commands:
    """Commands on a ledger of two people."""

    async def fill() -> None:
        ada, bob = make_user(email="ada@example.com"), make_user(email="bob@example.com")
        project = make_project(ada)
        async with DataLayer(settings) as data:
            async with data.transaction() as tx:
                for row in (ada, bob, project):
                    tx.add(row)
            for number, (person, model, cost) in enumerate(
                [(ada, "gpt", "0.1"), (ada, "gpt", "0.200000001"), (ada, "claude", "1234.5"), (bob, "gpt", "7")]
            ):
                usage = NewUsage(
                    key=f"call {number}",
                    provider="p",
                    model=model,
                    outcome=UsageOutcome.FAILED if number else UsageOutcome.COMPLETED,
                    code_stack=CodeStack.SVG,
                    project_id=project.id if person is ada else None,
                    input_tokens=1000 * number,
                    cost=Decimal(cost),
                    at=JULY if person is bob else None,
                )
                await data.usage.record(Actor.user(person.id), usage)

    asyncio.run(fill())
    return command


def test_nothing_was_used(command: Commands) -> None:
    assert command("usage", "sums").output.startswith("Nothing was used from 20")
    assert command("usage", "sums", "--json").json == []


def test_sums_of_this_month_and_of_a_person(ledger: Commands) -> None:
    output = ledger("usage", "sums", "--by", "model", "--by", "outcome").output
    assert output.splitlines()[1].split()[:5] == ["Model", "Outcome", "Calls", "Input", "Output"]
    assert [line.split() for line in output.splitlines()[2:]] == [
        ["claude", "failed", "1", "2,000", "0", "0", "0", "1,234.50", "USD"],
        ["gpt", "completed", "1", "0", "0", "0", "0", "0.10", "USD"],
        ["gpt", "failed", "1", "1,000", "0", "0", "0", "0.20", "USD"],
    ]
    [total] = ledger("usage", "sums", "--user", "bob@example.com", "--since", "2026-01-01", "--json").json
    assert (total["entries"], total["cost"], total["model"]) == (1, "7.00000000", None)
    [total] = ledger("usage", "sums", "--since", "2026-07-03", "--until", "2026-07-03", "--by", "day", "--json").json
    assert (total["day"], total["cost"]) == ("2026-07-03", "7.00000000")


def test_an_unknown_group_is_refused_with_the_known_ones(ledger: Commands) -> None:
    assert "by must be of: person, project" in ledger.error("usage", "sums", "--by", "colour")


def test_entries_of_a_person_in_pages(ledger: Commands) -> None:
    first = ledger("usage", "entries", "ada@example.com", "--limit", "2", "--json").json
    rest = ledger("usage", "entries", "ada@example.com", "--before", first[-1]["id"], "--json").json
    assert [entry["key"] for entry in (*first, *rest)] == ["call 2", "call 1", "call 0"]
    output = ledger("usage", "entries", "bob@example.com").output
    assert output.startswith("1 entry\n")
    assert "2026-07-03 12:00  p         gpt    failed" in output
    project = first[0]["project_id"]
    assert len(ledger("usage", "entries", "ada@example.com", "--project", project, "--json").json) == 3
    assert ledger("usage", "entries", "bob@example.com", "--project", project).output == "There are no such entries.\n"


def test_a_budget_is_set_shown_and_taken_away(ledger: Commands) -> None:
    ada = "ada@example.com"
    assert "Nothing limits what ada@example.com may spend in USD" in ledger("usage", "budget", ada).output
    output = ledger("usage", "budget", ada, "--limit", "2000.5").output
    assert [line.split() for line in output.splitlines()[1:]] == [
        ["Limit", "2,000.50", "USD"],
        ["Spent", "1,234.80", "USD"],
        ["Reserved", "0.00", "USD"],
        ["Remaining", "765.70", "USD"],
    ]
    assert ledger("usage", "budget", ada, "--json").json["monthly_limit"] == "2000.50000000"
    ledger("usage", "budget", ada, "--no-limit")
    assert ledger("usage", "budget", ada, "--json").json is None


@pytest.mark.parametrize(
    "options", [["--limit", "much"], ["--limit", "-1"], ["--limit", "1", "--no-limit"], ["--currency", "dollars"]]
)
def test_what_cannot_be_a_budget_is_refused(ledger: Commands, options: list[str]) -> None:
    options = options if "--limit" in options else [*options, "--limit", "1"]
    assert "Error (invalid_value)" in ledger.error("usage", "budget", "ada@example.com", *options)
