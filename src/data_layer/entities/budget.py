"""The ``budgets`` and ``budget_reservations`` tables: what a person may spend in a month, and what is set aside."""

from __future__ import annotations

from decimal import Decimal
from uuid import UUID

from sqlalchemy import CheckConstraint, Column, DateTime, ForeignKey, Index, Table, UniqueConstraint, Uuid, func
from sqlalchemy.orm import Mapped, mapped_column

from data_layer.entities.base import Entity, Timestamped
from data_layer.entities.usage_entry import currency, currency_rule, money


class Budget(Timestamped, Entity, kw_only=True):
    """The most that a person may spend in a calendar month of UTC, in one currency."""

    __tablename__ = "budgets"

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id"))
    currency: Mapped[str] = currency()
    monthly_limit: Mapped[Decimal] = mapped_column(money())

    __table_args__ = (
        CheckConstraint("monthly_limit >= 0", name="monthly_limit"),
        currency_rule(),
        UniqueConstraint("user_id", "currency"),
    )


# A plain table: it is changed by statements only, under the lock of the budget's row. One that has expired counts for
# nothing, and goes with the next reservation of its budget.
budget_reservations = Table(
    "budget_reservations",
    Entity.metadata,
    Column("id", Uuid(), primary_key=True),
    Column("budget_id", Uuid(), ForeignKey("budgets.id", ondelete="CASCADE"), nullable=False),
    Column("amount", money(), nullable=False),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    Column("created_at", DateTime(timezone=True), server_default=func.now(), nullable=False),
    CheckConstraint("amount >= 0", name="amount"),
    Index("ix_budget_reservations_budget_id", "budget_id"),
)
