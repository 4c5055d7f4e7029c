"""The ``api_keys`` table: what programs show in place of a login."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKey, Index, func
from sqlalchemy.orm import Mapped, mapped_column

from data_layer.entities.base import Entity, json_list, short_text


class ApiKey(Entity, kw_only=True):
    """A key with which a program acts for a person, within ``scopes``.

    ``key_hash`` is the SHA-256 of the key. A key has 256 random bits, so the hash needs no secret, and keys outlive a
    change of SESSION_SECRET. ``prefix`` is the beginning of the key, by which its owner recognises it.
    """

    __tablename__ = "api_keys"

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(short_text(100))
    prefix: Mapped[str] = mapped_column(short_text(16))
    key_hash: Mapped[str] = mapped_column(short_text(64), unique=True)
    scopes: Mapped[list[str]] = json_list()
    expires_at: Mapped[datetime | None] = mapped_column(default=None)
    revoked_at: Mapped[datetime | None] = mapped_column(default=None)
    last_used_at: Mapped[datetime | None] = mapped_column(default=None)
    created_at: Mapped[datetime] = mapped_column(default=None, server_default=func.now())

    __table_args__ = (Index("ix_api_keys_user_id_id", "user_id", "id"),)
