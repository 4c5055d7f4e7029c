"""The ``shares`` table: links by which anybody may read one page of a project."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from data_layer.entities.base import Entity, Timestamped, counter


class Share(Timestamped, Entity, kw_only=True):
    """A link to one variant, which it goes with, or to the latest version of its project where ``code_id`` is empty.

    ``token_hash`` is the SHA-256 of the token in the link. The token has 256 random bits, so the hash needs no key, and
    links outlive a change of SESSION_SECRET.
    """

    __tablename__ = "shares"

    project_id: Mapped[UUID] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"))
    code_id: Mapped[UUID | None] = mapped_column(ForeignKey("generated_codes.id", ondelete="CASCADE"), default=None)
    token_hash: Mapped[str] = mapped_column(unique=True, info={"length": 64})
    expires_at: Mapped[datetime | None] = mapped_column(default=None)
    revoked_at: Mapped[datetime | None] = mapped_column(default=None)
    view_count: Mapped[int] = counter()
    last_viewed_at: Mapped[datetime | None] = mapped_column(default=None)

    __table_args__ = (
        Index("ix_shares_project_id_id", "project_id", "id"),
        Index("ix_shares_code_id", "code_id", postgresql_where=text("code_id IS NOT NULL")),
    )
