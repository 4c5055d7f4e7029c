"""What was used of paid models, which is added to and read but never changed, and budgets, which limit it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Column, ColumnElement, cast, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.sql.base import ReadOnlyColumnCollection

from data_layer.database.statements import NamedQuery, named
from data_layer.entities import Budget, UsageEntry, usage_days, usage_totals
from data_layer.entities.usage import NO_PROJECT, TOKEN_KINDS
from data_layer.repositories.repository import AppendRepository, Repository
from data_layer.schemas.usage import UsageGroup, UsageSum

_ADDED = ("entries", *TOKEN_KINDS)
_IN_DAYS_ALONE = frozenset({UsageGroup.PERSON, UsageGroup.PROJECT})


class UsageRepository(AppendRepository[UsageEntry]):
    """Rows of ``usage_entries``, and their sums."""

    entity = UsageEntry

    async def add_once(self, entry: UsageEntry) -> tuple[UsageEntry, bool]:
        """Insert an entry unless the person has one with its key; return the stored one, and whether it is new."""
        table = UsageEntry.__table__
        names = [column.name for column in table.columns]
        values = {name: getattr(entry, name) for name in names if getattr(entry, name) is not None}
        statement = (
            insert(UsageEntry)
            .values(values)
            .on_conflict_do_nothing(index_elements=("user_id", "key"))
            .returning(table.c.id)
        )
        inserted = await self._session.change(named("usage_entries.add_once", statement))
        is_new = inserted.one_or_none() is not None
        # A statement of its own, whose snapshot shows also what another transaction has just added.
        stored = await self.find_one(user_id=entry.user_id, key=entry.key)
        if stored is None:  # pragma: no cover  (entries are never removed)
            raise self._not_found(entry.id)
        return stored, is_new

    async def sums(
        self,
        by: Collection[UsageGroup],
        *,
        user_id: UUID | None,
        project_id: UUID | None,
        first_day: date | None,
        last_day: date | None,
        limit: int,
        by_cost: bool = False,
    ) -> Sequence[UsageSum]:
        """Sums by these groups and by currency; ``None`` means all of a kind.

        They come in the order of the groups, or those that cost most first.
        """
        is_of_all = user_id is None and project_id is None and not _IN_DAYS_ALONE.intersection(by)
        table = usage_totals if is_of_all else usage_days
        days = table.c
        columns = [_column(days, group) for group in by]
        conditions = [
            *(() if user_id is None else (days.user_id == user_id,)),
            *(() if project_id is None else (days.project_id == project_id,)),
            *(() if first_day is None else (days.day >= first_day,)),
            *(() if last_day is None else (days.day <= last_day,)),
        ]
        added = [cast(func.sum(days[name]), BigInteger).label(name) for name in _ADDED]
        cost = func.sum(days.cost)
        statement = (
            select(*columns, days.currency, *added, cost.label("cost"))
            .where(*conditions)
            .group_by(*columns, days.currency)
            .order_by(*((cost.desc(),) if by_cost else ()), *columns, days.currency)
            .limit(limit)
        )
        rows = (await self._session.execute(named(f"{table.name}.sums", statement))).mappings()
        return [UsageSum.model_validate(dict(row)) for row in rows]


def _column(days: ReadOnlyColumnCollection[str, Column[Any]], group: UsageGroup) -> ColumnElement[Any]:
    """What a kind of group has in its rows; what is missing stands there as another value than NULL."""
    match group:
        case UsageGroup.PERSON:
            return days.user_id
        case UsageGroup.PROJECT:
            return func.nullif(days.project_id, NO_PROJECT).label("project_id")
        case UsageGroup.STACK:
            return func.nullif(days.code_stack, "").label("code_stack")
        case _:
            return days[group.value]


_LOCK = NamedQuery("budgets.lock", "SELECT id FROM budgets WHERE user_id = %s AND currency = %s FOR NO KEY UPDATE")
_REMOVE_EXPIRED = NamedQuery(
    "budget_reservations.remove_expired",
    """
DELETE FROM budget_reservations USING budgets
WHERE budgets.id = budget_id AND user_id = %s AND currency = %s AND expires_at <= clock_timestamp()
""",
)
_STATE = """
budget AS (SELECT id, monthly_limit, updated_at FROM budgets WHERE user_id = %s AND currency = %s),
month AS (SELECT date_trunc('month', clock_timestamp() AT TIME ZONE 'UTC') AS first_day),
spent AS (
    SELECT coalesce(sum(cost), 0) AS amount FROM usage_days, month
    WHERE user_id = %s AND currency = %s AND day >= month.first_day::date
        AND day < (month.first_day + interval '1 month')::date
),
held AS (
    SELECT coalesce(sum(amount), 0) AS amount FROM budget_reservations
    WHERE budget_id = (SELECT id FROM budget) AND expires_at > clock_timestamp() AND id <> %s
)
"""
_RESERVE = NamedQuery(
    "budget_reservations.reserve",
    f"""
WITH {_STATE}, kept AS (
    INSERT INTO budget_reservations (id, budget_id, amount, expires_at)
    SELECT %s, budget.id, %s, clock_timestamp() + make_interval(secs => %s) FROM budget, spent, held
    WHERE spent.amount + held.amount + %s <= budget.monthly_limit
    ON CONFLICT (id) DO UPDATE SET amount = excluded.amount, expires_at = excluded.expires_at
        WHERE budget_reservations.budget_id = excluded.budget_id
    RETURNING expires_at
)
SELECT monthly_limit, spent.amount, held.amount, updated_at, (SELECT expires_at FROM kept) FROM budget, spent, held
""",  # noqa: S608  (only a constant of ours)
)
_READ = NamedQuery(
    "budgets.state",
    f"WITH {_STATE} SELECT monthly_limit, spent.amount, held.amount, updated_at, NULL FROM budget, spent, held",  # noqa: S608
)
_SETTLE = NamedQuery(
    "budget_reservations.settle",
    """
UPDATE budget_reservations SET amount = greatest(amount - %s, 0)
WHERE id = %s AND budget_id IN (SELECT id FROM budgets WHERE user_id = %s)
RETURNING id
""",
)
_RELEASE = NamedQuery(
    "budget_reservations.release",
    """
DELETE FROM budget_reservations WHERE id = %s AND budget_id IN (SELECT id FROM budgets WHERE user_id = %s)
RETURNING id
""",
)
_NONE = UUID(int=0)


@dataclass(frozen=True, slots=True)
class BudgetState:
    """A budget in this month, and until when the reservation stands that was asked for; ``None`` if it does not."""

    monthly_limit: Decimal
    spent: Decimal
    reserved: Decimal
    updated_at: datetime
    expires_at: datetime | None

    @property
    def remaining(self) -> Decimal:
        """What is neither spent nor set aside."""
        return self.monthly_limit - self.spent - self.reserved


class BudgetRepository(Repository[Budget]):
    """Rows of ``budgets``, and what is set aside of them: never more than a budget has left.

    A reservation locks the row of its budget first and then, in a statement with a newer snapshot, adds up what was
    spent and what is set aside. Settling needs no lock: the entry appears in the same commit in which the reservation
    goes, so that each snapshot shows one of the two.
    """

    entity = Budget

    async def reserve(
        self, reservation_id: UUID, user_id: UUID, currency: str, amount: Decimal, seconds: float
    ) -> BudgetState | None:
        """Set an amount aside, or set a reservation to a new amount and expiry; ``None`` without a budget."""
        budget = (user_id, currency)
        values = (*budget, *budget, reservation_id, reservation_id, amount, seconds, amount)
        *_, row = await self._session.run((_LOCK, budget), (_REMOVE_EXPIRED, budget), (_RESERVE, values))
        return BudgetState(*row) if row else None

    async def state(self, user_id: UUID, currency: str) -> BudgetState | None:
        """What has become of a budget in this month; ``None`` if there is none."""
        row = await self._session.fetch_one(_READ, (user_id, currency, user_id, currency, _NONE))
        return BudgetState(*row) if row else None

    def reduce(self, reservation_id: UUID, user_id: UUID, cost: Decimal) -> None:
        """Take from a reservation, with the next flush, what was spent of it, as far as there is so much."""
        self._session.add_statement(_SETTLE, (cost, reservation_id, user_id))

    async def release(self, reservation_id: UUID, user_id: UUID) -> bool:
        """Remove a reservation; whether there was one."""
        [row] = await self._session.run((_RELEASE, (reservation_id, user_id)))
        return row is not None
