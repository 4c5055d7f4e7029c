"""What can be seen of an audit entry (without the details of the person, for compliance, all of it) and asked for."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Generic, TypeVar
from uuid import UUID

from pydantic import AliasChoices, AwareDatetime, Field

from data_layer.entities.enums import AuditAction, AuditCategory, AuditLevel
from data_layer.schemas.base import Input, JsonObject, Value, View


class AuditSecure(View):
    """What happened, without from where and without the values."""

    id: UUID
    user_id: UUID | None
    action: AuditAction
    level: AuditLevel
    category: AuditCategory
    description: str
    resource_type: str | None
    resource_id: str | None
    is_success: bool
    created_at: datetime


class AuditCompliance(AuditSecure):
    """What an auditor needs: also from where, with which outcome, and what changed."""

    ip_address: str | None
    user_agent: str | None
    correlation_id: str | None
    source: str | None
    old_values: JsonObject
    new_values: JsonObject
    error_message: str | None
    duration: float | None


class AuditFull(AuditCompliance):
    """Everything."""

    details: str | None
    session_id: str | None
    context: JsonObject
    metadata: JsonObject = Field(validation_alias=AliasChoices("metadata_", "metadata"))


class AuditView(StrEnum):
    """Which of the three pictures of an entry: ``AuditSecure``, ``AuditCompliance`` or ``AuditFull``."""

    SECURE = "secure"
    COMPLIANCE = "compliance"
    FULL = "full"

    @property
    def schema(self) -> type[AuditSecure]:
        """The class of the entries."""
        return _SCHEMAS[self]


_SCHEMAS: dict[AuditView, type[AuditSecure]] = {
    AuditView.SECURE: AuditSecure,
    AuditView.COMPLIANCE: AuditCompliance,
    AuditView.FULL: AuditFull,
}


class AuditFilter(Input):
    """Which entries: all conditions must hold, and of several values any will do.

    ``text`` is looked for in description, details and error message, in any letter case. No index serves it, because
    it would cost every entry more than rare searches gain: so it needs ``since``, or one of ``user_id``,
    ``resource_id`` and ``correlation_id`` beside it.
    """

    user_id: UUID | None = None
    actions: tuple[AuditAction, ...] = ()
    levels: tuple[AuditLevel, ...] = ()
    categories: tuple[AuditCategory, ...] = ()
    resource_type: str | None = None
    resource_id: str | None = None
    correlation_id: str | None = None
    is_success: bool | None = None
    since: AwareDatetime | None = Field(None, description="The first moment, inclusive.")
    until: AwareDatetime | None = Field(None, description="The last moment, exclusive.")
    text: str | None = Field(None, min_length=2, max_length=200)


Entry = TypeVar("Entry", bound=AuditSecure)


class AuditPage(Value, Generic[Entry]):
    """Some entries; ``next_cursor`` asks for those that follow, ``None`` when there are none."""

    entries: tuple[Entry, ...]
    next_cursor: str | None


class ExportFormat(StrEnum):
    """How an export is written."""

    JSON_LINES = "jsonl"
    CSV = "csv"


class AuditBufferStatistics(View):
    """What became of entries that belong to no transaction, since the start.

    Each is in the end ``written`` or ``replayed`` (after it was ``spilled`` to disk), ``rejected`` by the database as
    unusable, or ``lost`` for want of room. ``waiting`` are in memory.
    """

    recorded: int
    written: int
    spilled: int
    replayed: int
    rejected: int
    lost: int
    waiting: int
    bytes_on_disk: int
