"""What was used of paid models: entries, sums, budgets."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from uuid import UUID

from pydantic import computed_field

from data_layer.entities.enums import CodeStack, UsageOutcome
from data_layer.schemas.base import Input, View


class NewUsage(Input):
    """One answer of a model, completed or not, to be recorded.

    ``key`` makes a repeated call count once: the id of the variant, or the provider's id of the answer. The four kinds
    of tokens do not overlap. ``cost`` is rounded to eight decimals. ``at`` is by default the time of the database.
    """

    key: str
    provider: str
    model: str
    outcome: UsageOutcome = UsageOutcome.COMPLETED
    project_id: UUID | None = None
    code_id: UUID | None = None
    code_stack: CodeStack | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    cost: Decimal = Decimal(0)
    currency: str = "USD"
    at: datetime | None = None


class UsageEntryView(View):
    """An entry of the ledger."""

    id: UUID
    user_id: UUID
    key: str
    project_id: UUID | None
    code_id: UUID | None
    provider: str
    model: str
    code_stack: CodeStack | None
    outcome: UsageOutcome
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    cost: Decimal
    currency: str
    at: datetime


class UsageGroup(StrEnum):
    """By what sums of usage can be divided. Days are those of UTC."""

    PERSON = "person"
    PROJECT = "project"
    PROVIDER = "provider"
    MODEL = "model"
    STACK = "stack"
    OUTCOME = "outcome"
    DAY = "day"


class UsageSum(View):
    """What was used in one group; what the sums are not divided by is ``None``, and so is a project or stack of none.

    Costs in several currencies are never added: each has sums of its own.
    """

    user_id: UUID | None = None
    project_id: UUID | None = None
    provider: str | None = None
    model: str | None = None
    code_stack: CodeStack | None = None
    outcome: UsageOutcome | None = None
    day: date | None = None
    currency: str
    entries: int
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    cost: Decimal


class Reservation(View):
    """A part of a budget that is set aside until it is settled, released, or expires.

    ``is_limited`` is false for a person without a budget in this currency: nothing is set aside then.
    """

    id: UUID
    user_id: UUID
    amount: Decimal
    currency: str
    expires_at: datetime
    is_limited: bool


class BudgetView(View):
    """A monthly budget, and what has become of it in this month of UTC.

    ``remaining`` is negative after work that cost more than was reserved for it. ``updated_at`` is when the limit was
    set.
    """

    user_id: UUID
    currency: str
    monthly_limit: Decimal
    spent: Decimal
    reserved: Decimal
    updated_at: datetime

    @computed_field  # type: ignore[prop-decorator]  # pydantic's way, which mypy does not know
    @property
    def remaining(self) -> Decimal:
        """What can still be reserved."""
        return self.monthly_limit - self.spent - self.reserved
