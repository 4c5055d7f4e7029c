"""What can be seen of a project: all of it, a row in a list, what is public."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import AliasChoices, Field

from data_layer.entities.enums import ProjectStatus, ProjectType
from data_layer.schemas.base import View


class ProjectPublic(View):
    """What anyone may see of a public project."""

    id: UUID
    name: str
    description: str | None
    type: ProjectType
    thumbnail_image: str | None
    tags: list[str]
    view_count: int
    generation_count: int
    created_at: datetime


class ProjectSummary(ProjectPublic):
    """A row in the list of one's own projects."""

    user_id: UUID
    status: ProjectStatus
    is_public: bool
    is_favorite: bool
    last_generated_at: datetime | None
    updated_at: datetime


class ProjectFull(ProjectSummary):
    """Everything."""

    original_image: str | None
    original_image_filename: str | None
    original_image_size: int | None
    original_image_mime_type: str | None
    image_metadata: dict[str, Any]
    instructions: str | None
    settings: dict[str, Any]
    last_viewed_at: datetime | None
    metadata: dict[str, Any] = Field(validation_alias=AliasChoices("metadata_", "metadata"))
