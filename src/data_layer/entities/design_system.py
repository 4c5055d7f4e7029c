"""The ``design_systems`` table: texts that people add to their prompts, so that pages follow their design."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from data_layer.entities.base import Entity, Timestamped, short_text


class DesignSystem(Timestamped, Entity, kw_only=True):
    """Colours, fonts, components and rules of one person, in words for the model."""

    __tablename__ = "design_systems"

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id"))
    name: Mapped[str] = mapped_column(short_text(255))
    content: Mapped[str] = mapped_column()

    __table_args__ = (Index("ix_design_systems_user_id_id", "user_id", "id"),)
