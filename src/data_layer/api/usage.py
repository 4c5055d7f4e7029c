"""Usage and budgets over HTTP: one's own, and everybody's for administrators."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

from fastapi import Path, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import Field, StringConstraints

from data_layer.api.request_models import Body, Day
from data_layer.api.response_headers import described_headers, next_after
from data_layer.api.routes import CONTENT, Call, KeyScopes, Routes
from data_layer.entities.enums import ApiScope
from data_layer.errors import NotFoundError
from data_layer.schemas.base import Value
from data_layer.schemas.usage import BudgetView, UsageEntryView, UsageGroup, UsageSum
from data_layer.services.csv_text import csv_bytes, csv_cell
from data_layer.web.conditions import expects_nothing, moment_if_sent, moment_tag, prefers, require_moment

_CSV = "text/csv"
_LINES = 500
"""Rows of each piece of a CSV file."""
_COLUMNS: dict[UsageGroup, str] = {
    UsageGroup.PERSON: "user_id",
    UsageGroup.PROJECT: "project_id",
    UsageGroup.PROVIDER: "provider",
    UsageGroup.MODEL: "model",
    UsageGroup.STACK: "code_stack",
    UsageGroup.OUTCOME: "outcome",
    UsageGroup.DAY: "day",
}
_FIGURES = (
    "currency",
    "entries",
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "cost",
)
_SUMS_AS_CSV: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {_CSV: {"schema": {"type": "string"}}},
        "headers": described_headers("Content-Disposition", is_required=False),
    }
}
_Currency = Annotated[str, StringConstraints(pattern="^[A-Z]{3}$")]
_Whose = Annotated[UUID | None, Query(description="Whose; by default one's own. Others' are for administrators.")]


class SumsFormat(StrEnum):
    """How sums are sent."""

    JSON = "json"
    CSV = "csv"


class SumsQuery(Body):
    """What is added up, and what the sums are divided by. Days are those of UTC, both included.

    ``everyone``: the usage of all people, for administrators. ``format`` stands in place of ``Accept``.
    """

    by: Annotated[list[UsageGroup], Field(max_length=len(UsageGroup))] = Field(default_factory=list)
    user_id: UUID | None = None
    everyone: bool = False
    project_id: UUID | None = None
    first_day: Day | None = None
    last_day: Day | None = None
    format: SumsFormat | None = None


class EntriesQuery(Body):
    """A page of entries, those recorded last first; ``before`` is ``next`` of the page before."""

    user_id: UUID | None = None
    project_id: UUID | None = None
    limit: Annotated[int, Field(ge=1, le=1000)] = 100
    before: UUID | None = None


class Sums(Value):
    """The sums; costs in several currencies are never added."""

    sums: tuple[UsageSum, ...]


class EntryPage(Value):
    """A page of the ledger; ``next`` is null on the last one."""

    entries: tuple[UsageEntryView, ...]
    next: UUID | None


class Limit(Body):
    """What a person may spend in a month of UTC."""

    monthly_limit: Annotated[Decimal, Field(ge=0, max_digits=20, decimal_places=8)]


routes = Routes("/v1/usage", "usage", keys=CONTENT)
budgets = Routes("/v1/budgets", "usage", keys=KeyScopes(ApiScope.READ, ApiScope.ADMIN))


@routes.get("", summary="Add up usage", errors=[422], responses=_SUMS_AS_CSV, response_model=Sums)
async def sums(call: Call, query: Annotated[SumsQuery, Query()]) -> Sums | Response:
    """As JSON, or as CSV with ``format=csv`` or ``Accept: text/csv``. There are 10,000 sums at most."""
    chosen = query.model_dump(exclude={"format"})
    found = await call.data.usage.sums(call.actor, chosen.pop("by"), **chosen)
    as_csv = prefers(call.headers.get("accept"), _CSV) if query.format is None else query.format is SumsFormat.CSV
    if not as_csv:
        return Sums(sums=found)
    headers = {"content-disposition": 'attachment; filename="usage.csv"', "x-content-type-options": "nosniff"}
    # By Accept the same address has two answers; no-store keeps both out of caches.
    return StreamingResponse(_csv(query.by, found), headers=headers, media_type="text/csv; charset=utf-8")


@routes.get("/entries", summary="List the ledger", errors=[422], next_by="before")
async def entries(call: Call, query: Annotated[EntriesQuery, Query()]) -> EntryPage:
    """Entries are recorded once and never changed."""
    found = await call.data.usage.entries(call.actor, **query.model_dump())
    return EntryPage(entries=found, next=next_after(found, query.limit))


@budgets.get("/{currency}", summary="Read a budget", errors=[404, 422], etag=moment_tag)
async def read_budget(call: Call, currency: Annotated[_Currency, Path()], user_id: _Whose = None) -> BudgetView:
    """404 where nothing limits what the person may spend. ``ETag`` names the limit, which a change needs."""
    found = await call.data.usage.budget(call.actor, user_id=user_id, currency=currency)
    if found is None:
        raise NotFoundError(f"nothing limits what this person may spend in {currency}")
    return found


@budgets.put("/{currency}", summary="Set a budget", errors=[404, 412, 428], may_be_new=True, etag=moment_tag)
async def set_budget(call: Call, currency: Annotated[_Currency, Path()], user_id: UUID, body: Limit) -> BudgetView:
    """For administrators. A limit below what is spent already refuses every further reservation, and ends none.

    ``If-Match`` must name the limit that was read, or ``If-None-Match: *`` say that there is none; 412 shows what is
    stored now.
    """
    is_new = expects_nothing(call.headers)
    found = await call.data.usage.set_budget(
        call.actor,
        user_id,
        body.monthly_limit,
        currency=currency,
        expected=None if is_new else require_moment(call.headers),
        is_new=is_new,
    )
    if found is None:
        raise NotFoundError("the budget was removed at the same moment")
    return found


@budgets.delete("/{currency}", summary="Remove a budget", status_code=204, errors=[404, 412])
async def remove_budget(call: Call, currency: Annotated[_Currency, Path()], user_id: UUID) -> None:
    """For administrators. The person may spend any amount from now on. Harmless to repeat.

    ``If-Match`` is heeded where it is sent.
    """
    expected = moment_if_sent(call.headers)
    await call.data.usage.set_budget(call.actor, user_id, None, currency=currency, expected=expected)


def _csv(by: Sequence[UsageGroup], found: Sequence[UsageSum]) -> Iterator[bytes]:
    columns = (*(_COLUMNS[group] for group in dict.fromkeys(by)), *_FIGURES)
    yield csv_bytes([columns])
    for start in range(0, len(found), _LINES):
        yield csv_bytes([csv_cell(getattr(row, name)) for name in columns] for row in found[start : start + _LINES])
