"""The ``budgets`` and ``budget_reservations`` tables: nothing is set aside that is not there.

A reservation locks the row of its budget first and then, in a statement with a newer snapshot, adds up what was spent
and what is set aside. Settling needs no lock: the entry appears in the same commit in which the reservation goes, so
that each snapshot shows one of the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from data_layer.database.statements import Sql
from data_layer.entities import Budget
from data_layer.repositories.repository import Repository

_LOCK = Sql("budgets.lock", "SELECT id FROM budgets WHERE user_id = %s AND currency = %s FOR NO KEY UPDATE")
_REMOVE_EXPIRED = Sql(
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
_RESERVE = Sql(
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
_READ = Sql(
    "budgets.state",
    f"WITH {_STATE} SELECT monthly_limit, spent.amount, held.amount, updated_at, NULL FROM budget, spent, held",  # noqa: S608
)
_SETTLE = Sql(
    "budget_reservations.settle",
    """
UPDATE budget_reservations SET amount = greatest(amount - %s, 0)
WHERE id = %s AND budget_id IN (SELECT id FROM budgets WHERE user_id = %s)
RETURNING id
""",
)
_RELEASE = Sql(
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
    """Rows of ``budgets`` and what is set aside of them."""

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
