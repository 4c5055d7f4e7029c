"""The ``refresh_tokens`` table."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKey, Index, func
from sqlalchemy.orm import Mapped, mapped_column

from data_layer.entities.base import Entity, short_text


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
