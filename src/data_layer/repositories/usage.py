"""The ``usage_entries`` table and its sums by day: added to and read, never changed."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import date
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, ColumnElement, cast, func, select
from sqlalchemy.dialects.postgresql import insert

from data_layer.database.statements import named
from data_layer.entities import UsageEntry, usage_days
from data_layer.entities.usage_entry import NO_PROJECT, TOKEN_KINDS
from data_layer.repositories.repository import AppendRepository
from data_layer.schemas.usage import UsageGroup, UsageSum

_DAYS = usage_days.c
_ADDED = ("entries", *TOKEN_KINDS)
_COLUMNS: dict[UsageGroup, ColumnElement[Any]] = {
    UsageGroup.PERSON: _DAYS.user_id,
    UsageGroup.PROJECT: func.nullif(_DAYS.project_id, NO_PROJECT).label("project_id"),
    UsageGroup.PROVIDER: _DAYS.provider,
    UsageGroup.MODEL: _DAYS.model,
    UsageGroup.STACK: func.nullif(_DAYS.code_stack, "").label("code_stack"),
    UsageGroup.OUTCOME: _DAYS.outcome,
    UsageGroup.DAY: _DAYS.day,
}


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
        columns = [_COLUMNS[group] for group in by]
        conditions = [
            *(() if user_id is None else (_DAYS.user_id == user_id,)),
            *(() if project_id is None else (_DAYS.project_id == project_id,)),
            *(() if first_day is None else (_DAYS.day >= first_day,)),
            *(() if last_day is None else (_DAYS.day <= last_day,)),
        ]
        added = [cast(func.sum(_DAYS[name]), BigInteger).label(name) for name in _ADDED]
        statement = (
            select(*columns, _DAYS.currency, *added, func.sum(_DAYS.cost).label("cost"))
            .where(*conditions)
            .group_by(*columns, _DAYS.currency)
            .order_by(*columns, _DAYS.currency)
            .limit(limit)
        )
        rows = (await self._session.execute(named("usage_days.sums", statement))).mappings()
        return [UsageSum.model_validate(dict(row)) for row in rows]
