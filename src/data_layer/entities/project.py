"""The ``projects`` table."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, FetchedValue, ForeignKey, Index, text
from sqlalchemy.dialects.postgresql import TSVECTOR
from sqlalchemy.orm import Mapped, MappedColumn, mapped_column

from data_layer.entities.base import (
    Entity,
    Timestamped,
    amount,
    choice,
    counter,
    flag,
    json_list,
    json_object,
    metadata_column,
    short_text,
)
from data_layer.entities.enums import ProjectStatus, ProjectType


def _kept_by_trigger() -> MappedColumn[Any]:
    return mapped_column(init=False, server_default=FetchedValue(), server_onupdate=FetchedValue())


class Project(Timestamped, Entity, kw_only=True):
    """A screenshot and everything that was made from it.

    The trigger ``track_project`` keeps ``revision``, which counts the changes that people make, when the project was
    deleted, and which status it returns to.
    """

    __tablename__ = "projects"

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id"))
    name: Mapped[str] = mapped_column(short_text(255))
    description: Mapped[str | None] = mapped_column(default=None)
    status: Mapped[ProjectStatus] = choice(ProjectStatus.DRAFT)
    type: Mapped[ProjectType] = choice(ProjectType.WEBSITE)
    original_image: Mapped[str | None] = mapped_column(default=None, info={"format": "image_reference"})
    original_image_filename: Mapped[str | None] = mapped_column(default=None)
    original_image_size: Mapped[int | None] = amount(BigInteger)
    original_image_mime_type: Mapped[str | None] = mapped_column(default=None)
    thumbnail_image: Mapped[str | None] = mapped_column(default=None, info={"format": "image_reference"})
    image_metadata: Mapped[dict[str, Any]] = json_object()
    instructions: Mapped[str | None] = mapped_column(default=None)
    settings: Mapped[dict[str, Any]] = json_object()
    tags: Mapped[list[str]] = json_list()
    is_public: Mapped[bool] = flag()
    is_favorite: Mapped[bool] = flag()
    view_count: Mapped[int] = counter()
    generation_count: Mapped[int] = counter()
    last_generated_at: Mapped[datetime | None] = mapped_column(default=None)
    last_viewed_at: Mapped[datetime | None] = mapped_column(default=None)
    metadata_: Mapped[dict[str, Any]] = metadata_column()
    revision: Mapped[int] = mapped_column(init=False, server_default=text("1"), server_onupdate=FetchedValue())
    deleted_at: Mapped[datetime | None] = _kept_by_trigger()
    status_before_archive: Mapped[str | None] = _kept_by_trigger()
    status_before_delete: Mapped[str | None] = _kept_by_trigger()
    search_vector: Mapped[str | None] = mapped_column(
        TSVECTOR, init=False, deferred=True, server_default=FetchedValue(), server_onupdate=FetchedValue()
    )

    __table_args__ = (
        Index("ix_projects_user_id_status", "user_id", "status"),
        Index("ix_projects_user_id_updated_at", "user_id", "updated_at"),
        Index("ix_projects_updated_at_id", "updated_at", "id"),
        Index(
            "ix_projects_settings", "settings", postgresql_using="gin", postgresql_ops={"settings": "jsonb_path_ops"}
        ),
        Index("ix_projects_tags", "tags", postgresql_using="gin", postgresql_ops={"tags": "jsonb_path_ops"}),
        Index("ix_projects_deleted_at", "deleted_at", postgresql_where=text("deleted_at IS NOT NULL")),
        Index("ix_projects_search_vector", "search_vector", postgresql_using="gin"),
    )
