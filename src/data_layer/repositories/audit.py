"""The ``audit_logs`` table: entries are added and read, never changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Boolean, ColumnElement, RowMapping, Select, literal_column, or_, select
from typing_extensions import override

from data_layer.context import current_context
from data_layer.database.statements import named
from data_layer.entities import AuditLog
from data_layer.entities.audit_log import COMMON_CATEGORIES, COMMON_LEVELS, RARE_CATEGORY, RARE_LEVEL, WITH_CONTEXT
from data_layer.entities.enums import AuditAction
from data_layer.entities.time_ordered_ids import first_id_at
from data_layer.repositories import audit_rows
from data_layer.repositories.repository import AppendRepository, is_any
from data_layer.schemas.audit import AuditFilter

CLOCK_SKEW = timedelta(hours=1)
"""How far the clock that made an id and that of the database may be apart for a query by time to be exact."""


_RECENT = timedelta(days=31)
"""Of this time the newest entries are looked for first."""


class AuditRepository(AppendRepository[AuditLog]):
    """Rows of ``audit_logs``: added and read, never changed."""

    entity = AuditLog

    @override
    def add(self, entity: AuditLog) -> None:
        """Insert the entry with the transaction; what it does not say itself is taken from the request's context."""
        complete(entity)
        super().add(entity)

    def add_numbered(self, row: audit_rows.Row, generation_id: UUID) -> None:
        """Insert an entry with the next flush whose new values get the number that a generation has then."""
        entries = f"[{audit_rows.line_of(row).decode()}]"
        self._session.add_statement(audit_rows.INSERT_NUMBERED, (entries, generation_id))

    @override
    def _condition(self, name: str, value: Any) -> ColumnElement[bool]:
        condition = super()._condition(name, value)
        return condition & _literal(WITH_CONTEXT) if name == "context" and value else condition

    async def page(
        self, wanted: AuditFilter, names: Sequence[str], *, limit: int, after: UUID | None, newest_first: bool
    ) -> Sequence[RowMapping]:
        """Entries in the order of their ids, which is that of time.

        Args:
            wanted: which ones.
            names: the columns to read.
            limit: the most to return.
            after: the id of the last one of the page before.
            newest_first: from the newest to the oldest, or the other way round.
        """
        columns = AuditLog.__table__.c
        statement = select(*(columns[name] for name in names)).where(*_conditions(wanted))
        if after is not None:
            statement = statement.where(columns.id < after if newest_first else columns.id > after)
        statement = statement.order_by(columns.id.desc() if newest_first else columns.id.asc()).limit(limit)
        if newest_first and after is None and _is_likely_recent(wanted):
            # PostgreSQL would begin to read each month, old ones from the disk, before it returns the first row.
            recent = statement.where(columns.id >= first_id_at(datetime.now(UTC) - _RECENT))
            rows = await self._rows(recent)
            if len(rows) == limit:
                return rows
        return await self._rows(statement)

    async def _rows(self, statement: Select[Any]) -> Sequence[RowMapping]:
        return (await self._session.execute(named("audit_logs.page", statement))).mappings().all()


def complete(entry: AuditLog) -> None:
    """Fill in from the context of the request who acted and from where, as far as the entry does not say it.

    Where somebody acts on behalf of another user, or with more rights than a user's, ``context`` says who and as what.
    """
    context = current_context()
    if context.actor_id is not None:
        if entry.user_id is None:
            entry.user_id = context.actor_id
        elif entry.user_id != context.actor_id:
            entry.context.setdefault("actor_id", str(context.actor_id))
        if context.actor_role is not None and context.actor_role != "user":
            entry.context.setdefault("actor_role", str(context.actor_role))
    if context.api_key_id is not None:
        entry.context.setdefault("api_key_id", str(context.api_key_id))
    for name in ("ip_address", "user_agent", "correlation_id", "source"):
        if getattr(entry, name) is None:
            setattr(entry, name, getattr(context, name))
    if entry.session_id is None and context.session_id is not None:
        entry.session_id = str(context.session_id)


def _literal(condition: str) -> ColumnElement[bool]:
    return literal_column(condition, Boolean())


def _is_likely_recent(wanted: AuditFilter) -> bool:
    """Whether a page of the last month is probably full, so that a look there is worth its while."""
    rare = (wanted.since, wanted.until, wanted.resource_id, wanted.correlation_id, wanted.text)
    return all(value is None for value in rare)


def _conditions(wanted: AuditFilter) -> Iterator[ColumnElement[bool]]:
    columns = AuditLog.__table__.c
    for name in ("user_id", "resource_type", "resource_id", "correlation_id", "is_success"):
        if (value := getattr(wanted, name)) is not None:
            yield columns[name] == value
    for name, values, common, are_rare in (
        ("action", wanted.actions, frozenset(AuditAction), ""),
        ("level", wanted.levels, COMMON_LEVELS, RARE_LEVEL),
        ("category", wanted.categories, COMMON_CATEGORIES, RARE_CATEGORY),
    ):
        if values:
            yield columns[name] == values[0] if len(values) == 1 else is_any(columns[name], values)
            if common.isdisjoint(values):
                yield _literal(are_rare)
    # The bounds of the ids let PostgreSQL leave out whole months; those of the time are exact.
    if wanted.since is not None:
        yield columns.id >= first_id_at(wanted.since - CLOCK_SKEW)
        yield columns.created_at >= wanted.since
    if wanted.until is not None:
        yield columns.id < first_id_at(wanted.until + CLOCK_SKEW)
        yield columns.created_at < wanted.until
    if wanted.text is not None:
        searched = (columns.description, columns.details, columns.error_message)
        yield or_(*(column.icontains(wanted.text, autoescape=True) for column in searched))
