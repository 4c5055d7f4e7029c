"""The ledger counts everything once and exactly; sums are those of its entries; budgets cannot be overdrawn."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import SecretStr
from sqlalchemy import text
from uuid_utils.compat import uuid7

from data_layer import DataLayer, Settings
from data_layer.entities import GeneratedCode, Project, UsageEntry
from data_layer.entities.enums import AuditAction, CodeStack, ProjectStatus, UsageOutcome, UserRole, UserStatus
from data_layer.errors import (
    AppendOnlyError,
    BudgetExceededError,
    DataLayerError,
    DuplicateError,
    InvalidValueError,
    NotFoundError,
    PermissionDeniedError,
)
from data_layer.schemas.actors import ANONYMOUS, SYSTEM, Actor
from data_layer.schemas.usage import NewUsage, Reservation, UsageGroup, UsageSum
from data_layer.services.usage import record_usage
from tests.support import make_code, make_project, make_user, stored_actor

SPENDER = Path(__file__).with_name("budget_spender.py")
AUGUST = datetime(2026, 8, 15, 12, tzinfo=UTC)


@pytest.fixture
async def owner(data: DataLayer) -> Actor:
    return await stored_actor(data)


async def stored_project(data: DataLayer, owner: Actor) -> tuple[Project, GeneratedCode]:
    project = Project(user_id=identity(owner), name="Project")
    code = make_code(project)
    async with data.transaction() as tx:
        tx.add(project)
        tx.add(code)
    return project, code


def identity(actor: Actor) -> UUID:
    assert actor.user_id is not None
    return actor.user_id


def usage(key: str = "k", **values: Any) -> NewUsage:
    return NewUsage(**{"key": key, "provider": "openai", "model": "gpt"} | values)


async def age_reservations(data: DataLayer) -> None:
    """Let the time of all reservations be over, as if their processes had died."""
    async with data.transaction() as tx:
        await tx.execute(text("UPDATE budget_reservations SET expires_at = now() - interval '1 second'"))


# The ledger


async def test_an_entry_is_kept_exactly(data: DataLayer, owner: Actor) -> None:
    project, code = await stored_project(data, owner)
    given = usage(
        outcome=UsageOutcome.CANCELLED,
        project_id=project.id,
        code_id=code.id,
        code_stack=CodeStack.SVG,
        input_tokens=1,
        output_tokens=2,
        cache_read_tokens=3,
        cache_write_tokens=10**12,
        cost=Decimal("999999.99999999"),
        currency="EUR",
        at=AUGUST,
    )
    entry = await data.usage.record(owner, given)
    assert {name: getattr(entry, name) for name in NewUsage.model_fields} == given.model_dump()
    assert await data.usage.entries(owner) == [entry]
    assert entry.model_dump(mode="json")["cost"] == "999999.99999999"


async def test_costs_are_rounded_to_even_and_add_up_exactly(data: DataLayer, owner: Actor) -> None:
    for number, cost in enumerate(("0.000000005", "0.000000015", "0.1", "0.2")):
        await data.usage.record(owner, usage(f"{number}", cost=Decimal(cost)))
    assert [entry.cost for entry in await data.usage.entries(owner)][::-1] == [
        *(Decimal(0), Decimal("0.00000002"), Decimal("0.1"), Decimal("0.2"))
    ]
    [total] = await data.usage.sums(owner)
    assert total.cost == Decimal("0.30000002")


async def test_a_repeated_call_counts_once_also_at_the_same_moment(data: DataLayer, owner: Actor) -> None:
    given = usage(cost=Decimal("0.123456789"), output_tokens=7)
    entries = await asyncio.gather(*(data.usage.record(owner, given) for _ in range(12)))
    assert len({entry.id for entry in entries}) == 1
    [total] = await data.usage.sums(owner)
    assert (total.entries, total.output_tokens, total.cost) == (1, 7, Decimal("0.12345679"))


async def test_keys_of_two_people_are_not_each_others(data: DataLayer, owner: Actor) -> None:
    other = await stored_actor(data)
    first, second = await data.usage.record(owner, usage()), await data.usage.record(other, usage(input_tokens=5))
    assert first.id != second.id
    assert [entry.id for entry in await data.usage.entries(other)] == [second.id]


@pytest.mark.parametrize(
    "other",
    [{"cost": Decimal(2)}, {"model": "other"}, {"output_tokens": 1}, {"outcome": UsageOutcome.FAILED}, {"at": AUGUST}],
)
async def test_a_key_with_other_figures_is_refused(data: DataLayer, owner: Actor, other: dict[str, Any]) -> None:
    entry = await data.usage.record(owner, usage(cost=Decimal(1)))
    with pytest.raises(DuplicateError) as raised:
        await data.usage.record(owner, usage(**{"cost": Decimal(1)} | other))
    assert raised.value.field == "key"
    assert await data.usage.entries(owner) == [entry]


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"key": ""}, "key"),
        ({"key": "k" * 256}, "key"),
        ({"key": "a\0b"}, "key"),
        ({"model": "m" * 101}, "model"),
        ({"input_tokens": -1}, "input_tokens"),
        ({"output_tokens": 10**12 + 1}, "output_tokens"),
        ({"cost": Decimal("-0.01")}, "cost"),
        ({"cost": Decimal(10) ** 6}, "cost"),
        ({"cost": Decimal("1e40")}, "cost"),
        ({"currency": "usd"}, "currency"),
        ({"currency": "US"}, "currency"),
        ({"code_id": uuid7()}, "project_id"),
        ({"at": datetime.now(UTC) + timedelta(hours=2)}, "at"),
        ({"at": datetime(2026, 1, 1)}, "at"),  # noqa: DTZ001  (without a zone)
    ],
)
async def test_what_cannot_be_is_refused_by_name(
    data: DataLayer, owner: Actor, values: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidValueError) as raised:
        await data.usage.record(owner, usage(**values))
    assert raised.value.field == field
    assert await data.usage.entries(owner) == []
    assert await data.usage.sums(owner) == []


async def test_projects_and_variants_have_to_be_ones_own(data: DataLayer, owner: Actor) -> None:
    stranger = await stored_actor(data)
    mine, _ = await stored_project(data, owner)
    theirs, their_code = await stored_project(data, stranger)
    for project_id, code_id in ((theirs.id, None), (uuid7(), None), (mine.id, their_code.id), (mine.id, uuid7())):
        with pytest.raises(NotFoundError):
            await data.usage.record(owner, usage(project_id=project_id, code_id=code_id))
    assert await data.usage.sums(owner) == []


async def test_work_on_a_project_that_was_deleted_meanwhile_is_charged(data: DataLayer, owner: Actor) -> None:
    project, code = await stored_project(data, owner)
    async with data.transaction() as tx:
        (await tx.projects.get(project.id)).status = ProjectStatus.DELETED
    await data.usage.record(owner, usage(project_id=project.id, code_id=code.id, cost=Decimal(1)))
    async with data.transaction() as tx:
        await tx.projects.delete(await tx.projects.get(project.id))
    [total] = await data.usage.sums(owner, [UsageGroup.PROJECT])
    assert (total.project_id, total.cost) == (project.id, Decimal(1))


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE usage_entries SET cost = 0",
        "DELETE FROM usage_entries",
        "TRUNCATE usage_entries",
        "UPDATE usage_days SET cost = 0",
        "DELETE FROM usage_days",
        "TRUNCATE usage_days",
        "INSERT INTO usage_days SELECT * FROM usage_days",
        "UPDATE usage_totals SET cost = 0",
        "DELETE FROM usage_totals",
        "TRUNCATE usage_totals",
        "INSERT INTO usage_totals SELECT * FROM usage_totals",
    ],
)
async def test_nothing_recorded_is_changed_by_anybody(data: DataLayer, owner: Actor, statement: str) -> None:
    entry = await data.usage.record(owner, usage(cost=Decimal(1)))
    with pytest.raises(
        AppendOnlyError, match=r"never changed or removed: \w+ of usage_(entries|days|totals) was refused"
    ):
        async with data.transaction() as tx:
            await tx.execute(text(statement))
    assert await data.usage.entries(owner) == [entry]


async def test_the_ledger_outlives_the_account(data: DataLayer, owner: Actor) -> None:
    administrator = await stored_actor(data, role=UserRole.ADMIN)
    await data.usage.set_budget(administrator, identity(owner), Decimal(9))
    await data.usage.reserve(owner, Decimal(1))
    await data.usage.record(owner, usage(cost=Decimal(1)))
    await data.accounts.delete(owner, identity(owner))
    [total] = await data.usage.sums(administrator, user_id=identity(owner))
    assert total.cost == Decimal(1)
    async with data.transaction() as tx:
        assert await tx.budgets.count() == 0
    with pytest.raises(NotFoundError):
        await data.usage.set_budget(administrator, identity(owner), Decimal(9))


async def test_entries_come_in_pages_newest_first(data: DataLayer, owner: Actor) -> None:
    project, _ = await stored_project(data, owner)
    for number in range(7):
        await data.usage.record(owner, usage(f"{number}", project_id=project.id if number % 2 else None))
    first = await data.usage.entries(owner, limit=4)
    rest = await data.usage.entries(owner, limit=4, before=first[-1].id)
    assert [entry.key for entry in (*first, *rest)] == [*"6543210"]
    assert [entry.key for entry in await data.usage.entries(owner, project_id=project.id)] == [*"531"]
    with pytest.raises(InvalidValueError):
        await data.usage.entries(owner, limit=0)


# Sums

stories = st.lists(
    st.fixed_dictionaries(
        {
            "person": st.integers(0, 1),
            "project": st.sampled_from([None, 0, 1]),
            "model": st.sampled_from(["gpt", "claude"]),
            "code_stack": st.sampled_from([None, CodeStack.SVG, CodeStack.HTML_CSS]),
            "outcome": st.sampled_from(UsageOutcome),
            "at": st.sampled_from([AUGUST + timedelta(hours=hours) for hours in (0, 11, 12, 13, 24 * 20)]),
            "input_tokens": st.integers(0, 10**12),
            "cache_read_tokens": st.integers(0, 5),
            "cost": st.decimals(0, 999_999, places=8),
            "currency": st.sampled_from(["USD", "EUR"]),
        }
    ),
    max_size=12,
)
NAMES = {
    UsageGroup.PERSON: "user_id",
    UsageGroup.PROJECT: "project_id",
    UsageGroup.PROVIDER: "provider",
    UsageGroup.MODEL: "model",
    UsageGroup.STACK: "code_stack",
    UsageGroup.OUTCOME: "outcome",
    UsageGroup.DAY: "day",
}


@hypothesis_settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    story=stories,
    by=st.lists(st.sampled_from(UsageGroup), unique=True),
    first_day=st.sampled_from([None, date(2026, 8, 15), date(2026, 8, 16)]),
    last_day=st.sampled_from([None, date(2026, 8, 15), date(2026, 9, 4)]),
    at_once=st.booleans(),
)
async def test_sums_are_those_of_the_entries(
    data: DataLayer,
    story: list[dict[str, Any]],
    by: list[UsageGroup],
    first_day: date | None,
    last_day: date | None,
    *,
    at_once: bool,
) -> None:
    people = [make_user(), make_user()]
    projects = [[make_project(person), make_project(person)] for person in people]
    rows = [
        UsageEntry(
            user_id=people[line["person"]].id,
            key=f"{number}",
            project_id=None if line["project"] is None else projects[line["person"]][line["project"]].id,
            provider="openai",
            **{name: value for name, value in line.items() if name not in {"person", "project"}},
        )
        for number, line in enumerate(story)
    ]
    async with data.transaction() as tx:
        for row in (*people, *projects[0], *projects[1], *(rows if at_once else ())):
            tx.add(row)
    for row in () if at_once else rows:
        async with data.transaction() as tx:
            tx.add(row)

    whose = [person.id for person in people]
    found = [
        total
        for total in await data.usage.sums(SYSTEM, by, everyone=True, first_day=first_day, last_day=last_day)
        if UsageGroup.PERSON not in by or total.user_id in whose
    ]
    if UsageGroup.PERSON not in by:
        found = list(await data.usage.sums(SYSTEM, by, user_id=whose[0], first_day=first_day, last_day=last_day))
        rows = [row for row in rows if row.user_id == whose[0]]
    assert not differences(found, rows, by, first_day, last_day)
    # Others have entries here too: over everybody, it is what those of each person are together.
    together: dict[Any, Decimal] = defaultdict(Decimal)
    for total in await data.usage.sums(
        SYSTEM, {*by, UsageGroup.PERSON}, everyone=True, first_day=first_day, last_day=last_day
    ):
        together[group_of(total, by)] += total.cost * 1000 + total.entries
    others = [part for part in by if part is not UsageGroup.PERSON]
    everybody = await data.usage.sums(SYSTEM, others, everyone=True, first_day=first_day, last_day=last_day)
    assert {group_of(total, by): total.cost * 1000 + total.entries for total in everybody} == together


async def test_sums_of_a_project_and_of_a_person_are_theirs_alone(data: DataLayer, owner: Actor) -> None:
    stranger = await stored_actor(data)
    projects = [make_project(user_id=identity(person)) for person in (owner, owner, stranger)]
    async with data.transaction() as tx:
        for number, project in enumerate(projects):
            tx.add(project)
            values: dict[str, Any] = {"provider": "openai", "model": "m", "outcome": UsageOutcome.COMPLETED}
            owned: dict[str, Any] = {"user_id": project.user_id, "project_id": project.id, "key": f"alone-{number}"}
            tx.add(UsageEntry(**owned, **values, cost=Decimal(10**number)))

    async def costs(**whose: Any) -> list[Decimal]:
        return [total.cost for total in await data.usage.sums(SYSTEM, **whose)]

    assert await costs(user_id=identity(owner)) == [11]
    assert await costs(user_id=identity(owner), project_id=projects[1].id) == [10]
    assert await costs(everyone=True, project_id=projects[2].id) == [100]
    assert await costs(user_id=identity(owner), project_id=projects[2].id) == []


def group_of(total: UsageSum, by: list[UsageGroup]) -> tuple[Any, ...]:
    return (*(getattr(total, NAMES[part]) for part in by if part is not UsageGroup.PERSON), total.currency)


def differences(
    found: Sequence[UsageSum], rows: list[UsageEntry], by: list[UsageGroup], first_day: date | None, last: date | None
) -> dict[Any, Any]:
    expected: dict[Any, list[Any]] = {}
    for row in rows:
        day = row.at.astimezone(UTC).date()
        if (first_day is None or day >= first_day) and (last is None or day <= last):
            group = tuple(day if part is UsageGroup.DAY else getattr(row, NAMES[part]) for part in by)
            total = expected.setdefault((*group, row.currency), [0, 0, 0, Decimal(0)])
            for place, value in enumerate((1, row.input_tokens, row.cache_read_tokens, row.cost)):
                total[place] += value
    actual = {
        (*(getattr(total, NAMES[part]) for part in by), total.currency): [
            *(total.entries, total.input_tokens, total.cache_read_tokens, total.cost)
        ]
        for total in found
    }
    assert len(actual) == len(found)
    return {
        key: (actual.get(key), expected.get(key))
        for key in {*actual, *expected}
        if actual.get(key) != expected.get(key)
    }


async def test_a_day_is_one_of_utc_wherever_the_database_is(data: DataLayer, owner: Actor) -> None:
    for number, hour in enumerate((datetime(2026, 7, 31, 23, 59, tzinfo=UTC), datetime(2026, 8, 1, tzinfo=UTC))):
        async with data.transaction() as tx:
            await tx.execute(text("SET LOCAL TimeZone = 'Pacific/Kiritimati'"))
            await tx.usage.add_once(
                UsageEntry(
                    user_id=identity(owner),
                    key=f"{number}",
                    provider="p",
                    model="m",
                    outcome=UsageOutcome.FAILED,
                    at=hour,
                )
            )
    days = [total.day for total in await data.usage.sums(owner, [UsageGroup.DAY])]
    assert days == [date(2026, 7, 31), date(2026, 8, 1)]
    [july] = await data.usage.sums(owner, last_day=date(2026, 7, 31))
    assert july.entries == 1


async def test_too_many_sums_are_refused(data: DataLayer, owner: Actor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data_layer.services.usage.MOST_SUMS", 2)
    for model in "abc":
        await data.usage.record(owner, usage(model, model=model))
    with pytest.raises(InvalidValueError, match="more than 2 sums"):
        await data.usage.sums(owner, [UsageGroup.MODEL])
    assert len(await data.usage.sums(owner)) == 1
    with pytest.raises(InvalidValueError):
        await data.usage.sums(owner, ["colour"])


async def test_the_sums_that_cost_most_are_found_among_any_number(
    data: DataLayer, owner: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data_layer.services.usage.MOST_SUMS", 3)
    for model, cost in {"a": 2, "b": 5, "c": 1, "d": 3}.items():
        await data.usage.record(owner, usage(model, model=model, cost=Decimal(cost)))
    most = await data.usage.sums(owner, [UsageGroup.MODEL], top=2)
    assert [(total.model, total.cost) for total in most] == [("b", Decimal(5)), ("d", Decimal(3))]
    for top in (0, 4):
        with pytest.raises(InvalidValueError, match="from 1 to 3"):
            await data.usage.sums(owner, top=top)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wanted", "index"),
    [
        ("user_id = :person AND day BETWEEN '2026-08-01' AND '2026-08-31'", "pk_usage_days"),
        ("project_id = :project AND day BETWEEN '2026-08-01' AND '2026-08-31'", "ix_usage_days_project_id_day"),
        ("day BETWEEN '2026-08-01' AND '2026-08-31'", "ix_usage_days_day"),
    ],
)
async def test_sums_of_a_month_read_an_index_among_many_rows(data: DataLayer, wanted: str, index: str) -> None:
    """The plans at 300,000 days of work, as PostgreSQL chooses them without any help."""
    async with data.transaction() as tx:
        await tx.execute(text("SET LOCAL session_replication_role = replica"))
        await tx.execute(
            text("""
INSERT INTO usage_days SELECT md5('person' || n % 1000)::uuid, date '2024-01-01' + n / 300,
    md5('project' || n % 10000)::uuid, 'openai', 'm' || n % 3, 'svg', 'completed', 'USD', 1, n, n, n, n, 1
FROM generate_series(0, 299999) AS n ON CONFLICT DO NOTHING
""")
        )
        await tx.execute(text("ANALYZE usage_days"))
        for name in ("person", "project"):
            wanted = wanted.replace(f":{name}", f"md5('{name}7')::uuid")
        plan = await tx.execute(text(f"EXPLAIN SELECT model, sum(cost) FROM usage_days WHERE {wanted} GROUP BY model"))
        assert index in "\n".join(plan.scalars())


async def rows_of_totals(data: DataLayer) -> tuple[int, int]:
    """How many there are, and how many entries they sum up."""
    async with data.transaction() as tx:
        entries = (await tx.execute(text("SELECT entries FROM usage_totals"))).scalars().all()
        return len(entries), sum(entries)


async def test_rows_of_totals_are_merged_and_lose_nothing(data: DataLayer) -> None:
    people = [await stored_actor(data) for _ in range(4)]
    before, entries_before = await rows_of_totals(data)

    async def work(person: Actor) -> None:
        for number in range(40):
            await data.usage.record(person, usage(f"merged {number}", model="merged", cost=Decimal("0.01")))

    await asyncio.gather(*map(work, people))
    count, entries = await rows_of_totals(data)
    assert entries - entries_before == 160
    assert count - before < 160
    for by in ([UsageGroup.MODEL], [UsageGroup.MODEL, UsageGroup.PERSON]):
        found = await data.usage.sums(SYSTEM, by, everyone=True)
        merged = [total for total in found if total.model == "merged"]
        assert (sum(total.entries for total in merged), sum(total.cost for total in merged)) == (160, Decimal("1.6"))


async def test_whoever_records_waits_for_nobody_else(data: DataLayer) -> None:
    """Two transactions record the same kinds in opposite order while both are open; each 32nd merges rows."""
    people = [await stored_actor(data), await stored_actor(data)]
    both_have_one = asyncio.Barrier(2)

    async def work(person: Actor, models: Sequence[str]) -> None:
        for number in range(40):
            async with data.transaction() as tx:
                for model in models:
                    await record_usage(tx, identity(person), usage(f"{model}{number}", model=model))
                    await both_have_one.wait()

    async with asyncio.timeout(60):
        await asyncio.gather(work(people[0], ("there", "back")), work(people[1], ("back", "there")))
    totals = await data.usage.sums(SYSTEM, [UsageGroup.MODEL], everyone=True)
    assert {total.model: total.entries for total in totals if total.model in {"there", "back"}} == {
        "there": 80,
        "back": 80,
    }


# Budgets


async def test_a_month_without_a_budget_is_unlimited(data: DataLayer, owner: Actor) -> None:
    reservation = await data.usage.reserve(owner, Decimal(900_000))
    assert not reservation.is_limited
    await data.usage.settle(owner, reservation, usage(cost=Decimal(900_000)))
    assert await data.usage.budget(owner) is None


async def test_what_is_reserved_is_settled_released_or_refused(data: DataLayer, owner: Actor) -> None:
    await data.usage.set_budget(SYSTEM, identity(owner), Decimal(3))
    first = await data.usage.reserve(owner, Decimal(2))
    with pytest.raises(BudgetExceededError, match=r"has 1\.00000000 USD left, and 1\.50000000 are needed") as raised:
        await data.usage.reserve(owner, Decimal("1.5"))
    assert raised.value.remaining == Decimal(1)
    second = await data.usage.reserve(owner, Decimal(1))
    assert await data.usage.release(owner, second)
    assert not await data.usage.release(owner, second)
    await data.usage.settle(owner, first, usage(cost=Decimal("0.5")))
    budget = await data.usage.budget(owner)
    assert budget is not None
    assert (budget.spent, budget.reserved, budget.remaining) == (Decimal("0.5"), Decimal(0), Decimal("2.5"))
    # To the last cent, and not a hundred-millionth more.
    await data.usage.reserve(owner, Decimal("2.5"))
    with pytest.raises(BudgetExceededError):
        await data.usage.reserve(owner, Decimal("0.00000001"))


async def test_settling_twice_counts_once(data: DataLayer, owner: Actor) -> None:
    await data.usage.set_budget(SYSTEM, identity(owner), Decimal(10))
    reservation = await data.usage.reserve(owner, Decimal(4))
    for final in (False, False, True, True):
        await data.usage.settle(owner, reservation, usage("part", cost=Decimal(1)), is_final=final)
        budget = await data.usage.budget(owner)
        assert budget is not None
        assert (budget.spent, budget.reserved) == (Decimal(1), Decimal(0 if final else 3))


async def test_a_budget_that_runs_out_in_the_middle_is_a_typed_error(data: DataLayer, owner: Actor) -> None:
    await data.usage.set_budget(SYSTEM, identity(owner), Decimal(3))
    reservation = await data.usage.reserve(owner, Decimal(2))
    await data.usage.settle(owner, reservation, usage("1", cost=Decimal(2)), is_final=False)
    reservation = await data.usage.extend(owner, reservation, amount=Decimal(1))
    await data.usage.settle(owner, reservation, usage("2", cost=Decimal(1)), is_final=False)
    with pytest.raises(BudgetExceededError) as raised:
        await data.usage.extend(owner, reservation, amount=Decimal(1))
    assert raised.value.remaining == Decimal(0)
    # What was spent is recorded nevertheless, also beyond the budget.
    await data.usage.settle(owner, reservation, usage("3", cost=Decimal("0.25")))
    budget = await data.usage.budget(owner)
    assert budget is not None
    assert budget.remaining == Decimal("-0.25")


async def test_what_is_left_is_set_aside_under_an_id_of_the_caller(data: DataLayer, owner: Actor) -> None:
    mine, other = uuid4(), uuid4()
    assert await data.usage.set_aside(owner, mine, Decimal(2)), "nothing limits it"
    await data.usage.set_budget(SYSTEM, identity(owner), Decimal(3))

    async def reserved() -> Decimal:
        budget = await data.usage.budget(owner)
        assert budget is not None
        return budget.reserved

    for _ in range(2):
        assert await data.usage.set_aside(owner, mine, Decimal(2))
        assert await reserved() == 2, "once"
    assert await data.usage.set_aside(owner, other, Decimal(2))
    assert await reserved() == 3, "no more than there is"
    await data.usage.record(owner, usage("1", cost=Decimal("2.995")))
    assert not await data.usage.set_aside(owner, mine, Decimal(2)), "less than a cent is worth no start"
    assert await reserved() == 3, "as it was"
    await age_reservations(data)
    assert not await data.usage.set_aside(owner, uuid4(), Decimal(2))
    await data.usage.set_budget(SYSTEM, identity(owner), Decimal("3.005"))
    assert await data.usage.set_aside(owner, mine, Decimal(2))
    assert await reserved() == Decimal("0.01")
    stranger = await stored_actor(data, email="bob@example.com")
    with pytest.raises(PermissionDeniedError):
        await data.usage.set_aside(stranger, mine, Decimal(1), user_id=identity(owner))
    await data.usage.set_budget(SYSTEM, identity(stranger), Decimal(3))
    with pytest.raises(DuplicateError, match="another budget"):
        await data.usage.set_aside(stranger, mine, Decimal(1))
    assert await reserved() == Decimal("0.01")


async def test_reservations_of_a_dead_process_expire(data: DataLayer, owner: Actor) -> None:
    await data.usage.set_budget(SYSTEM, identity(owner), Decimal(1))
    dead = await data.usage.reserve(owner, Decimal(1))
    with pytest.raises(BudgetExceededError):
        await data.usage.reserve(owner, Decimal(1))
    await age_reservations(data)
    alive = await data.usage.reserve(owner, Decimal(1))
    # It was not dead after all: it cannot have its part back, but what it has spent counts.
    with pytest.raises(BudgetExceededError):
        await data.usage.extend(owner, dead)
    await data.usage.settle(owner, dead, usage(cost=Decimal(1)))
    await data.usage.release(owner, alive)
    budget = await data.usage.budget(owner)
    assert budget is not None
    assert (budget.spent, budget.reserved) == (Decimal(1), Decimal(0))


async def test_a_reservation_is_kept_by_extending_it(data: DataLayer, owner: Actor) -> None:
    await data.usage.set_budget(SYSTEM, identity(owner), Decimal(1))
    reservation = await data.usage.reserve(owner, Decimal(1), expires_in=timedelta(seconds=1))
    extended = await data.usage.extend(owner, reservation, expires_in=timedelta(hours=1))
    assert extended.id == reservation.id
    assert extended.expires_at > reservation.expires_at + timedelta(minutes=50)
    await age_reservations(data)
    assert (await data.usage.extend(owner, extended)).is_limited
    with pytest.raises(BudgetExceededError):
        await data.usage.reserve(owner, Decimal("0.5"))


async def test_last_months_costs_and_other_currencies_do_not_count(data: DataLayer, owner: Actor) -> None:
    await data.usage.set_budget(SYSTEM, identity(owner), Decimal(1))
    last_month = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0) - timedelta(seconds=1)
    await data.usage.record(owner, usage("old", cost=Decimal(1), at=last_month))
    await data.usage.record(owner, usage("euros", cost=Decimal(1), currency="EUR"))
    await data.usage.record(await stored_actor(data), usage("another's", cost=Decimal(1)))
    reservation = await data.usage.reserve(owner, Decimal(1))
    with pytest.raises(InvalidValueError, match="reservation in USD"):
        await data.usage.settle(owner, reservation, usage(currency="EUR"))


async def test_somebody_elses_reservation_is_not_touched(data: DataLayer, owner: Actor) -> None:
    stranger = await stored_actor(data)
    for person in (owner, stranger):
        await data.usage.set_budget(SYSTEM, identity(person), Decimal(1))
    mine = await data.usage.reserve(owner, Decimal(1))
    forged = mine.model_copy(update={"user_id": identity(stranger)})
    assert not await data.usage.release(stranger, forged)
    for is_final in (True, False):
        spent = usage(key=f"forged-{is_final}", cost=Decimal("0.1"))
        await data.usage.settle(stranger, forged, spent, is_final=is_final)
    with pytest.raises(BudgetExceededError):
        await data.usage.extend(stranger, forged, amount=Decimal(2))
    with pytest.raises(BudgetExceededError):
        await data.usage.reserve(owner, Decimal("0.1"))


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"amount": Decimal(0)}, "amount"),
        ({"amount": Decimal(-1)}, "amount"),
        ({"amount": Decimal("NaN")}, "amount"),
        ({"amount": Decimal("Infinity")}, "amount"),
        ({"amount": 0.5}, "amount"),
        ({"amount": True}, "amount"),
        ({"currency": "usd"}, "currency"),
        ({"expires_in": timedelta(0)}, "expires_in"),
        ({"expires_in": timedelta(days=2)}, "expires_in"),
    ],
)
async def test_what_cannot_be_reserved_is_refused(
    data: DataLayer, owner: Actor, values: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidValueError) as raised:
        await data.usage.reserve(owner, **{"amount": Decimal(1)} | values)
    assert raised.value.field == field


async def test_setting_a_budget_is_recorded(data: DataLayer, owner: Actor) -> None:
    administrator, person = await stored_actor(data, role=UserRole.ADMIN), identity(owner)
    for limit in (Decimal(5), Decimal(5), Decimal(7), None, None):
        await data.usage.set_budget(administrator, person, limit)
    async with data.transaction() as tx:
        entries = await tx.audit.list(action=AuditAction.ADMIN_BUDGET_UPDATE)
    assert [(entry.resource_id, entry.user_id) for entry in entries] == [(str(person), administrator.user_id)] * 3
    old = [entry.old_values.get("monthly_limit") for entry in entries]
    new = [entry.new_values.get("monthly_limit") for entry in entries]
    assert (old, new) == ([None, "5.00000000", "7.00000000"], ["5.00000000", "7.00000000", None])


@pytest.mark.parametrize("limit", [Decimal(-1), 0.1, Decimal("Infinity"), Decimal(10) ** 6])
async def test_a_limit_that_cannot_be_is_refused(data: DataLayer, owner: Actor, limit: Any) -> None:
    with pytest.raises(InvalidValueError) as raised:
        await data.usage.set_budget(SYSTEM, identity(owner), limit)
    assert raised.value.field == "monthly_limit"


async def test_many_tasks_in_four_processes_cannot_overdraw_a_budget(
    data: DataLayer, owner: Actor, settings: Settings
) -> None:
    await data.usage.set_budget(SYSTEM, identity(owner), Decimal(30))
    addresses = [_shown(settings.database.database_url), _shown(settings.redis.redis_url)]
    processes = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, str(SPENDER), *addresses, str(owner.user_id), "50"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        for _ in range(4)
    ]
    outputs = await asyncio.gather(*(process.communicate(b"go\n") for process in processes))
    assert [process.returncode for process in processes] == [0] * 4, outputs
    outcomes = Counter(b"".join(output for output, _ in outputs).decode().split())
    assert outcomes == {"spent": 30, "refused": 170}
    budget = await data.usage.budget(owner)
    assert budget is not None
    assert (budget.spent, budget.reserved) == (Decimal(30), Decimal(0))


def _shown(address: SecretStr | str | None) -> str:
    return address.get_secret_value() if isinstance(address, SecretStr) else str(address)


# Who may do what

METHODS = ("record", "reserve", "extend", "settle", "release", "entries", "sums", "everyone", "budget", "set_budget")
WHO = ("owner", "stranger", "nobody", "moderator", "administrator", "suspended", "system")
WORKING = {"record", "reserve", "extend", "settle", "release"}


@hypothesis_settings(max_examples=70, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(who=st.sampled_from(WHO), method=st.sampled_from(METHODS))
async def test_people_spend_and_see_their_own(data: DataLayer, who: str, method: str) -> None:
    owner = await stored_actor(data)
    person = identity(owner)
    await data.usage.set_budget(SYSTEM, person, Decimal(9))
    reservation: Reservation = await data.usage.reserve(owner, Decimal(1))
    before = await data.usage.budget(owner)
    actor = {
        "owner": owner,
        "stranger": await stored_actor(data),
        "nobody": ANONYMOUS,
        "moderator": await stored_actor(data, role=UserRole.MODERATOR),
        "administrator": await stored_actor(data, role=UserRole.ADMIN),
        "suspended": await stored_actor(data, role=UserRole.ADMIN, status=UserStatus.SUSPENDED),
        "system": SYSTEM,
    }[who]
    service = data.usage
    work: Any = {
        "record": lambda: service.record(actor, usage(cost=Decimal(1)), user_id=person),
        "reserve": lambda: service.reserve(actor, Decimal(1), user_id=person),
        "extend": lambda: service.extend(actor, reservation, amount=Decimal(2)),
        "settle": lambda: service.settle(actor, reservation, usage(cost=Decimal(1))),
        "release": lambda: service.release(actor, reservation),
        "entries": lambda: service.entries(actor, user_id=person),
        "sums": lambda: service.sums(actor, user_id=person),
        "everyone": lambda: service.sums(actor, [UsageGroup.PERSON], everyone=True),
        "budget": lambda: service.budget(actor, user_id=person),
        "set_budget": lambda: service.set_budget(actor, person, Decimal(1)),
    }[method]

    error: DataLayerError | None = None
    try:
        await work()
    except DataLayerError as raised:
        error = raised

    if who == "system":
        allowed = True
    elif who == "administrator":
        allowed = method not in WORKING
    else:
        allowed = who == "owner" and method not in {"everyone", "set_budget"}
    assert (error is None) == allowed, error
    if error is not None:
        assert type(error) is PermissionDeniedError
        assert await data.usage.budget(owner) == before
