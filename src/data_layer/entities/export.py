"""The ``exports`` table: archives of everything about a person, which wait, are made, and can be had for a while."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, Text, func, text
from sqlalchemy.orm import Mapped, mapped_column

from data_layer.entities.base import Entity, amount, choice, counter
from data_layer.entities.enums import ExportStatus


class Export(Entity, kw_only=True):
    """One archive. The object under ``storage_key`` is a row of ``stored_files`` that only this row refers to.

    ``attempts`` counts the claims of the row and fences them: only the last one may report what became of it.
    ``next_attempt_at`` is also the end of the lease of the process that makes it. ``projects`` and ``files`` are how
    many there were when it began, ``projects_done`` and ``files_done`` how many are in the archive.
    """

    __tablename__ = "exports"

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    status: Mapped[ExportStatus] = choice(ExportStatus.QUEUED)
    attempts: Mapped[int] = counter()
    next_attempt_at: Mapped[datetime] = mapped_column(default=None, server_default=func.now())
    projects: Mapped[int | None] = amount()
    projects_done: Mapped[int] = counter()
    files: Mapped[int | None] = amount()
    files_done: Mapped[int] = counter()
    size: Mapped[int | None] = amount(BigInteger)
    storage_key: Mapped[str | None] = mapped_column(Text(collation="C"), default=None, info={"length": 1024})
    error: Mapped[str | None] = mapped_column(default=None, info={"length": 500})
    created_at: Mapped[datetime] = mapped_column(default=None, server_default=func.now())
    started_at: Mapped[datetime | None] = mapped_column(default=None)
    finished_at: Mapped[datetime | None] = mapped_column(default=None)
    expires_at: Mapped[datetime | None] = mapped_column(default=None)

    __table_args__ = (
        CheckConstraint("status <> 'done' OR (storage_key IS NOT NULL AND expires_at IS NOT NULL)", name="archive"),
        # One at a time of a person.
        Index(
            "uq_exports_user_id",
            "user_id",
            unique=True,
            postgresql_where=text("status IN ('queued', 'running')"),
        ),
        Index(
            "ix_exports_next_attempt_at",
            "next_attempt_at",
            postgresql_where=text("status IN ('queued', 'running')"),
        ),
        Index("ix_exports_user_id_id", "user_id", "id"),
        Index("ix_exports_storage_key", "storage_key", postgresql_where=text("storage_key IS NOT NULL")),
    )
