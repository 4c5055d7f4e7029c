"""What can be seen of a project: all of it, a row in a list, what is public."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from pydantic import AliasChoices, Field, StrictBool

from data_layer.entities.enums import CodeStack, ProjectStatus, ProjectType
from data_layer.schemas.base import Input, JsonObject, Value, View


class ProjectPublic(View):
    """What anyone may see of a public project."""

    id: UUID
    name: str
    description: str | None
    type: ProjectType
    thumbnail_image: str | None
    tags: tuple[str, ...]
    view_count: int
    generation_count: int
    created_at: datetime


class ProjectSummary(ProjectPublic):
    """A row in the list of your own projects."""

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
    image_metadata: JsonObject
    instructions: str | None
    settings: JsonObject
    last_viewed_at: datetime | None
    revision: int
    deleted_at: datetime | None
    metadata: JsonObject = Field(validation_alias=AliasChoices("metadata_", "metadata"))


class ProjectDraft(Input):
    """What a new project is made of; its screenshot is handed over beside it."""

    name: str
    description: str | None = None
    type: ProjectType = ProjectType.WEBSITE
    instructions: str | None = None
    settings: dict[str, Any] = Field(default_factory=dict)
    tags: Sequence[str] = ()
    is_public: StrictBool = False
    is_favorite: StrictBool = False
    metadata: dict[str, Any] = Field(default_factory=dict)


class ProjectChanges(Input):
    """What to change in a project. What is not given stays; ``description=None`` removes the description.

    Archiving and deleting have methods of their own, so ``status`` is one of the others.
    """

    name: str | None = None
    description: str | None = None
    type: ProjectType | None = None
    status: ProjectStatus | None = None
    instructions: str | None = None
    settings: dict[str, Any] | None = None
    tags: Sequence[str] | None = None
    is_public: StrictBool | None = None
    is_favorite: StrictBool | None = None
    metadata: dict[str, Any] | None = None


class ProjectOrder(StrEnum):
    """By what a list of projects is ordered."""

    UPDATED = "updated"
    CREATED = "created"
    NAME = "name"
    VIEWS = "views"
    LAST_GENERATED = "last_generated"


class ProjectFilter(Input):
    """Which projects a list holds; all conditions must hold. Without ``statuses`` deleted projects are left out."""

    statuses: frozenset[ProjectStatus] = frozenset()
    type: ProjectType | None = None
    stack: CodeStack | None = None
    tag: str | None = None
    is_favorite: bool | None = None
    is_public: bool | None = None


class ProjectPage(Value):
    """A page of a list; ``next`` is the cursor of the page after it, None on the last one."""

    projects: tuple[ProjectSummary, ...]
    next: str | None
