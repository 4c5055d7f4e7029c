"""Sessions: the ``sessions`` table, the journal of their changes, and the tokens that renew them."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Column, DateTime, ForeignKey, Index, PrimaryKeyConstraint, Table, Uuid, func, text
from sqlalchemy.dialects.postgresql import INET
from sqlalchemy.orm import Mapped, mapped_column

from data_layer.entities.base import (
    Entity,
    Timestamped,
    choice,
    counter,
    json_object,
    metadata_column,
    short_text,
)
from data_layer.entities.enums import SessionStatus, SessionType


class Session(Timestamped, Entity, kw_only=True):
    """A session of a person. ``session_id`` is a keyed hash of the token that the client holds, never the token."""

    __tablename__ = "sessions"

    session_id: Mapped[str] = mapped_column(short_text(255), unique=True)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id"))
    status: Mapped[SessionStatus] = choice(SessionStatus.ACTIVE)
    type: Mapped[SessionType] = choice(SessionType.WEB)
    expires_at: Mapped[datetime] = mapped_column()
    last_active_at: Mapped[datetime] = mapped_column(default=None, server_default=func.now())
    ip_address: Mapped[str | None] = mapped_column(INET, default=None)
    user_agent: Mapped[str | None] = mapped_column(default=None)
    device_id: Mapped[str | None] = mapped_column(default=None)
    device_type: Mapped[str | None] = mapped_column(default=None)
    browser: Mapped[str | None] = mapped_column(default=None)
    browser_version: Mapped[str | None] = mapped_column(default=None)
    operating_system: Mapped[str | None] = mapped_column(default=None)
    os_version: Mapped[str | None] = mapped_column(default=None)
    country: Mapped[str | None] = mapped_column(default=None)
    city: Mapped[str | None] = mapped_column(default=None)
    timezone: Mapped[str | None] = mapped_column(default=None)
    session_data: Mapped[dict[str, Any]] = json_object()
    data_version: Mapped[int] = counter()
    metadata_: Mapped[dict[str, Any]] = metadata_column()
    request_count: Mapped[int] = counter()
    revoked_at: Mapped[datetime | None] = mapped_column(default=None)
    revoked_reason: Mapped[str | None] = mapped_column(default=None)

    __table_args__ = (
        Index("ix_sessions_user_id_status", "user_id", "status"),
        Index("ix_sessions_expires_at", "expires_at"),
    )


# Which sessions are to be looked at again, and in which transaction that began. Filled by triggers only (see
# ``triggers``), so that no way of ending a session can forget it. A plain table: nobody needs an object for each row.
session_changes = Table(
    "session_changes",
    Entity.metadata,
    Column("transaction_id", BigInteger(), server_default=text("pg_current_xact_id()::text::bigint"), nullable=False),
    Column("session_id", Uuid(), nullable=False),
    Column("changed_at", DateTime(timezone=True), server_default=func.now(), nullable=False),
    PrimaryKeyConstraint("transaction_id", "session_id"),
)


class RefreshToken(Entity, kw_only=True):
    """A token that can be exchanged once; the family of tokens that followed each other is their session.

    ``token_hash`` is a keyed hash of the token that the client holds, never the token.
    """

    __tablename__ = "refresh_tokens"

    token_hash: Mapped[str] = mapped_column(short_text(64), unique=True)
    session_id: Mapped[UUID] = mapped_column(ForeignKey("sessions.id", ondelete="CASCADE"))
    expires_at: Mapped[datetime] = mapped_column()
    used_at: Mapped[datetime | None] = mapped_column(default=None)
    successor_id: Mapped[UUID | None] = mapped_column(default=None)
    created_at: Mapped[datetime] = mapped_column(default=None, server_default=func.now())

    __table_args__ = (
        Index("ix_refresh_tokens_session_id", "session_id"),
        Index("ix_refresh_tokens_expires_at", "expires_at"),
    )
