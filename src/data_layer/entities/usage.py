"""What was used of paid models, entry by entry and summed up by day, and what a person may spend in a month."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    ForeignKey,
    Index,
    Numeric,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    func,
    text,
)
from sqlalchemy.orm import Mapped, MappedColumn, mapped_column

from data_layer.entities.base import Entity, Timestamped, short_text
from data_layer.entities.columns import Choice
from data_layer.entities.enums import CodeStack, UsageOutcome

MOST_TOKENS = 10**12
"""Of one kind in one entry: far more than any model takes, and far too few for a sum to overflow."""

NO_PROJECT = UUID(int=0)
"""Stands in ``usage_days`` for entries without a project: the columns of a primary key are never null."""

TOKEN_KINDS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")


def money() -> Numeric[Decimal]:
    """An exact amount: up to 999,999 and eight decimals, as prices of single tokens need them."""
    return Numeric(14, 8)


def currency() -> MappedColumn[str]:
    """A code of ISO 4217, such as USD; the table also needs ``currency_rule()``."""
    return mapped_column(short_text(3), default="USD", server_default="USD")


def currency_rule() -> CheckConstraint:
    """The CHECK constraint of a ``currency()`` column."""
    return CheckConstraint("currency ~ '^[A-Z]{3}$'", name="currency")


def _tokens() -> MappedColumn[int]:
    return mapped_column(BigInteger, default=0, server_default=text("0"), info={"range": (0, MOST_TOKENS)})


class UsageEntry(Entity, kw_only=True):
    """One answer of a model that was paid for, whatever became of it. Entries are added and read, never changed.

    ``key`` is chosen by the application and unique for the person, so that a repeated call counts once. The ids of the
    project and of the variant are no foreign keys, because the entry outlives both. Tokens of the four kinds do not
    overlap: ``input_tokens`` are those that no cache served.
    """

    __tablename__ = "usage_entries"

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id"))
    key: Mapped[str] = mapped_column(short_text(255))
    project_id: Mapped[UUID | None] = mapped_column(default=None)
    code_id: Mapped[UUID | None] = mapped_column(default=None)
    provider: Mapped[str] = mapped_column(short_text(100))
    model: Mapped[str] = mapped_column(short_text(100))
    code_stack: Mapped[CodeStack | None] = mapped_column(Choice(CodeStack), default=None)
    outcome: Mapped[UsageOutcome] = mapped_column(Choice(UsageOutcome))
    input_tokens: Mapped[int] = _tokens()
    output_tokens: Mapped[int] = _tokens()
    cache_read_tokens: Mapped[int] = _tokens()
    cache_write_tokens: Mapped[int] = _tokens()
    cost: Mapped[Decimal] = mapped_column(money(), default=Decimal(0), server_default=text("0"))
    currency: Mapped[str] = currency()
    at: Mapped[datetime] = mapped_column(default=None, server_default=func.now())

    __table_args__ = (
        *(CheckConstraint(f"{kind} BETWEEN 0 AND {MOST_TOKENS}", name=kind) for kind in TOKEN_KINDS),
        CheckConstraint("cost >= 0", name="cost"),
        currency_rule(),
        UniqueConstraint("user_id", "key"),
        Index("ix_usage_entries_user_id_id", "user_id", "id"),
        Index("ix_usage_entries_project_id_id", "project_id", "id", postgresql_where=text("project_id IS NOT NULL")),
    )


# The trigger ``add_to_days`` keeps it in the transaction of the entries, so the sums are exact at any moment, and a sum
# over a month reads a row for each day and kind of work instead of one for each entry. Days are those of UTC.
usage_days = Table(
    "usage_days",
    Entity.metadata,
    Column("user_id", Uuid(), nullable=False),
    Column("day", Date(), nullable=False),
    Column("project_id", Uuid(), nullable=False),
    Column("provider", Text(), nullable=False),
    Column("model", Text(), nullable=False),
    Column("code_stack", Text(), nullable=False),  # Empty where there is none.
    Column("outcome", Text(), nullable=False),
    Column("currency", Text(), nullable=False),
    Column("entries", BigInteger(), nullable=False),
    *(Column(kind, BigInteger(), nullable=False) for kind in TOKEN_KINDS),
    Column("cost", Numeric(24, 8), nullable=False),
    PrimaryKeyConstraint("user_id", "day", "project_id", "provider", "model", "code_stack", "outcome", "currency"),
    Index("ix_usage_days_project_id_day", "project_id", "day"),
    Index("ix_usage_days_day", "day"),
)

# The same over all people and projects, for the same reason. It has several rows for one sum: see the trigger.
usage_totals = Table(
    "usage_totals",
    Entity.metadata,
    Column("id", Uuid(), server_default=text("gen_random_uuid()"), nullable=False, primary_key=True),
    Column("day", Date(), nullable=False),
    *(Column(name, Text(), nullable=False) for name in ("provider", "model", "code_stack", "outcome", "currency")),
    Column("entries", BigInteger(), nullable=False),
    *(Column(kind, BigInteger(), nullable=False) for kind in TOKEN_KINDS),
    Column("cost", Numeric(24, 8), nullable=False),
    Index("ix_usage_totals_day", "day"),
)


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
