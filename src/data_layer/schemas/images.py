"""What can be seen of a generated image: all of it, a row in a list, what is public."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import AliasChoices, Field

from data_layer.entities.enums import GenerationStatus, ImageKind, ImageProvider, ImageQuality, ImageStyle
from data_layer.schemas.base import View


class GeneratedImagePublic(View):
    """What anyone may see of an image in a public project."""

    id: UUID
    name: str | None
    image_url: str | None
    thumbnail_url: str | None
    width: int | None
    height: int | None
    created_at: datetime


class GeneratedImageSummary(GeneratedImagePublic):
    """A row in a list."""

    project_id: UUID
    prompt: str
    provider: ImageProvider
    kind: ImageKind
    model: str
    status: GenerationStatus
    size: str
    file_size: int | None
    is_favorite: bool
    rating: int | None
    updated_at: datetime


class GeneratedImageFull(GeneratedImageSummary):
    """Everything."""

    revised_prompt: str | None
    quality: ImageQuality | None
    style: ImageStyle | None
    seed: int | None
    storage_key: str | None
    mime_type: str | None
    generation_params: dict[str, Any]
    generation_time_seconds: float | None
    error_message: str | None
    error_details: dict[str, Any]
    correlation_id: str | None
    view_count: int
    download_count: int
    feedback: dict[str, Any]
    image_metadata: dict[str, Any]
    metadata: dict[str, Any] = Field(validation_alias=AliasChoices("metadata_", "metadata"))
