"""The ``user_identities`` table: which account belongs to which subject of an OpenID Connect issuer."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKey, Index, func
from sqlalchemy.orm import Mapped, mapped_column

from data_layer.entities.base import Entity, short_text


class UserIdentity(Entity, kw_only=True):
    """A subject of an issuer, which belongs to one account; an account has one of each issuer at most.

    Google, GitHub and Microsoft Entra have columns of their own in ``users``.
    """

    __tablename__ = "user_identities"

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    issuer: Mapped[str] = mapped_column(short_text(255))
    subject: Mapped[str] = mapped_column(short_text(255))
    created_at: Mapped[datetime] = mapped_column(default=None, server_default=func.now())

    __table_args__ = (
        Index("uq_user_identities_issuer_subject", "issuer", "subject", unique=True),
        Index("uq_user_identities_user_id_issuer", "user_id", "issuer", unique=True),
    )
