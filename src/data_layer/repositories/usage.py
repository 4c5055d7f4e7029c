"""The ``usage_entries`` table and its sums by day: added to and read, never changed."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import date
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Column, ColumnElement, cast, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.sql.base import ReadOnlyColumnCollection

from data_layer.database.statements import named
from data_layer.entities import UsageEntry, usage_days, usage_totals
from data_layer.entities.usage_entry import NO_PROJECT, TOKEN_KINDS
from data_layer.repositories.repository import AppendRepository
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
    ) -> Sequence[UsageSum]:
        """Sums by these groups and by currency, in the order of the groups; ``None`` means all of a kind."""
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
        statement = (
            select(*columns, days.currency, *added, func.sum(days.cost).label("cost"))
            .where(*conditions)
            .group_by(*columns, days.currency)
            .order_by(*columns, days.currency)
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
