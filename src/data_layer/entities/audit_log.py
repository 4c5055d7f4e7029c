"""The ``audit_logs`` table: who did what, when and from where."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple, Self, TypedDict, Unpack
from uuid import UUID

from sqlalchemy import Connection, Float, ForeignKey, Index, event, func, text, true
from sqlalchemy.dialects.postgresql import INET
from sqlalchemy.orm import Mapped, mapped_column

from data_layer.entities.base import Entity, amount, choice, json_object, metadata_column, short_text
from data_layer.entities.columns import Choice
from data_layer.entities.enums import AuditAction, AuditCategory, AuditLevel

_USER_CATEGORIES = {
    AuditAction.USER_UPDATE_PROFILE: AuditCategory.DATA_MODIFICATION,
    AuditAction.USER_DELETE_ACCOUNT: AuditCategory.DATA_MODIFICATION,
}
COMMON_LEVELS = frozenset({AuditLevel.INFO})
COMMON_CATEGORIES = frozenset(
    {AuditCategory.AUTHENTICATION, AuditCategory.DATA_ACCESS, AuditCategory.DATA_MODIFICATION}
)
# PostgreSQL uses an index of some rows only for a query that says the same of them, so queries repeat these.
RARE_LEVEL = "level <> 'info'"
RARE_CATEGORY = f"category NOT IN ({', '.join(repr(one.value) for one in sorted(COMMON_CATEGORIES))})"
WITH_CONTEXT = "context <> '{}'"
_READING_ACTIONS = frozenset({AuditAction.CODE_COPY, AuditAction.CODE_DOWNLOAD, AuditAction.IMAGE_DOWNLOAD})


class UsualCase(NamedTuple):
    """What an action usually is; the factories say the same."""

    category: AuditCategory
    level: AuditLevel = AuditLevel.INFO
    is_success: bool = True


def _usual_case(action: AuditAction) -> UsualCase:
    reading = action in _READING_ACTIONS
    match action.partition("_")[0]:
        case "user" | "session":
            return UsualCase(_USER_CATEGORIES.get(action, AuditCategory.AUTHENTICATION))
        case "security":
            return UsualCase(AuditCategory.SECURITY, AuditLevel.WARNING, is_success=False)
        case "admin":
            return UsualCase(AuditCategory.ADMINISTRATION, AuditLevel.WARNING)
        case "system":
            failed = action is AuditAction.SYSTEM_ERROR
            return UsualCase(AuditCategory.SYSTEM, AuditLevel.ERROR if failed else AuditLevel.INFO, not failed)
        case _:
            return UsualCase(AuditCategory.DATA_ACCESS if reading else AuditCategory.DATA_MODIFICATION)


USUAL_CASES = {action: _usual_case(action) for action in AuditAction}


class DataFields(TypedDict, total=False):
    """What every factory of ``AuditLog`` takes in addition to the facts that it is about."""

    details: str | None
    old_values: dict[str, Any]
    new_values: dict[str, Any]
    ip_address: str | None
    user_agent: str | None
    session_id: str | None
    correlation_id: str | None
    source: str | None
    context: dict[str, Any]
    metadata_: dict[str, Any]
    error_message: str | None
    duration: float | None


class AuditFields(DataFields, total=False):
    """The same for the factories whose facts do not include a resource."""

    resource_type: str | None
    resource_id: str | None


class AuditLog(Entity, kw_only=True):
    """One entry of the audit trail. Entries are added and read, never changed: the database refuses it.

    The factories fill in category, level and success for the usual cases. The table is divided by month, by the time
    in the id; what belongs to no month that exists is kept in ``audit_logs_default``. An import of history gives
    ``id=id_at(created_at)``.
    """

    __tablename__ = "audit_logs"

    user_id: Mapped[UUID | None] = mapped_column(ForeignKey("users.id"), default=None)
    action: Mapped[AuditAction] = mapped_column(Choice(AuditAction))
    level: Mapped[AuditLevel] = choice(AuditLevel.INFO)
    category: Mapped[AuditCategory] = mapped_column(Choice(AuditCategory))
    description: Mapped[str] = mapped_column(short_text(255))
    details: Mapped[str | None] = mapped_column(default=None)
    resource_type: Mapped[str | None] = mapped_column(short_text(100), default=None)
    resource_id: Mapped[str | None] = mapped_column(short_text(255), default=None)
    old_values: Mapped[dict[str, Any]] = json_object()
    new_values: Mapped[dict[str, Any]] = json_object()
    ip_address: Mapped[str | None] = mapped_column(INET, default=None)
    user_agent: Mapped[str | None] = mapped_column(default=None)
    session_id: Mapped[str | None] = mapped_column(default=None)
    correlation_id: Mapped[str | None] = mapped_column(short_text(255), default=None)
    source: Mapped[str | None] = mapped_column(default=None)
    context: Mapped[dict[str, Any]] = json_object()
    metadata_: Mapped[dict[str, Any]] = metadata_column()
    is_success: Mapped[bool] = mapped_column(default=True, server_default=true())
    error_message: Mapped[str | None] = mapped_column(default=None)
    duration: Mapped[float | None] = amount(Float)
    created_at: Mapped[datetime] = mapped_column(default=None, server_default=func.now())

    # Ids are ordered by time, and pages of the trail are read in their order. Each index costs every entry, so rows
    # with a common value stay out of some: pages of such rows are soon full without one.
    __table_args__ = (
        Index("ix_audit_logs_user_id_id", "user_id", "id"),
        Index("ix_audit_logs_action_id", "action", "id"),
        Index("ix_audit_logs_level_id", "level", "id", postgresql_where=text(RARE_LEVEL)),
        Index("ix_audit_logs_category_id", "category", "id", postgresql_where=text(RARE_CATEGORY)),
        Index(
            "ix_audit_logs_resource_type_resource_id",
            *("resource_type", "resource_id"),
            postgresql_where=text("resource_type IS NOT NULL"),
        ),
        Index("ix_audit_logs_correlation_id", "correlation_id", postgresql_where=text("correlation_id IS NOT NULL")),
        Index(
            "ix_audit_logs_context",
            "context",
            postgresql_using="gin",
            postgresql_ops={"context": "jsonb_path_ops"},
            postgresql_where=text(WITH_CONTEXT),
        ),
        {"postgresql_partition_by": "RANGE (id)"},
    )

    @classmethod
    def user_action(cls, action: AuditAction, user_id: UUID, description: str, **fields: Unpack[AuditFields]) -> Self:
        """Something that users did to their own account: logging in, changing a password."""
        category = _USER_CATEGORIES.get(action, AuditCategory.AUTHENTICATION)
        return cls(action=action, user_id=user_id, description=description, category=category, **fields)

    @classmethod
    def security_event(
        cls,
        action: AuditAction,
        description: str,
        *,
        user_id: UUID | None = None,
        level: AuditLevel = AuditLevel.WARNING,
        is_success: bool = False,
        **fields: Unpack[AuditFields],
    ) -> Self:
        """Something that may be an attack, or a protection that took effect. A warning and no success by default."""
        return cls(
            action=action,
            user_id=user_id,
            description=description,
            category=AuditCategory.SECURITY,
            level=level,
            is_success=is_success,
            **fields,
        )

    @classmethod
    def data_action(
        cls,
        action: AuditAction,
        user_id: UUID,
        resource_type: str,
        resource_id: UUID | str,
        description: str,
        **fields: Unpack[DataFields],
    ) -> Self:
        """Something that was done to a project, a code or an image; copies and downloads count as access."""
        reading = action in _READING_ACTIONS
        return cls(
            action=action,
            user_id=user_id,
            resource_type=resource_type,
            resource_id=str(resource_id),
            description=description,
            category=AuditCategory.DATA_ACCESS if reading else AuditCategory.DATA_MODIFICATION,
            **fields,
        )

    @classmethod
    def system_event(
        cls,
        action: AuditAction,
        description: str,
        *,
        level: AuditLevel = AuditLevel.INFO,
        **fields: Unpack[AuditFields],
    ) -> Self:
        """Something that the system did by itself. It counts as a failure from level error on."""
        return cls(
            action=action,
            description=description,
            category=AuditCategory.SYSTEM,
            level=level,
            is_success=level not in {AuditLevel.ERROR, AuditLevel.CRITICAL},
            **fields,
        )

    @classmethod
    def admin_action(
        cls, action: AuditAction, user_id: UUID | None, description: str, **fields: Unpack[AuditFields]
    ) -> Self:
        """Something that an administrator did to others or to the system; a warning, so that it stands out."""
        return cls(
            action=action,
            user_id=user_id,
            description=description,
            category=AuditCategory.ADMINISTRATION,
            level=AuditLevel.WARNING,
            **fields,
        )


DEFAULT_PARTITION = "audit_logs_default"
"""Takes the entries that belong to no month that exists, so that none is ever refused."""


@event.listens_for(AuditLog.__table__, "after_create")
def _create_default_partition(_table: Any, connection: Connection, **_: Any) -> None:
    connection.execute(text(f"CREATE TABLE {DEFAULT_PARTITION} PARTITION OF {AuditLog.__tablename__} DEFAULT"))
