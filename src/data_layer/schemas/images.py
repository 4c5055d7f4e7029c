"""What can be seen of a generated image: all of it, a row in a list, what is public."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import AliasChoices, Field, StrictBool

from data_layer.entities.enums import GenerationStatus, ImageKind, ImageProvider, ImageQuality, ImageStyle
from data_layer.schemas.base import Input, JsonObject, Value, View


class NewImage(Input):
    """What is known of an image that is to be kept.

    Attributes:
        prompt: what was asked for; empty for what no model made.
        revised_prompt: what the provider made of the prompt.
        provider: whose model made it; ``OTHER`` for all that have no name here.
        model: the provider's name of it; any text.
        size: what was asked for. Providers with a list of sizes need one of it; of others it may be any text, and is by
            default the size of the image itself.
    """

    prompt: str = ""
    revised_prompt: str | None = None
    name: str | None = None
    provider: ImageProvider = ImageProvider.OTHER
    kind: ImageKind = ImageKind.GENERATED
    model: str = ""
    size: str | None = None
    quality: ImageQuality | None = None
    style: ImageStyle | None = None
    seed: int | None = None
    generation_params: dict[str, Any] = Field(default_factory=dict)
    generation_time_seconds: float | None = None
    error_details: dict[str, Any] = Field(default_factory=dict)
    correlation_id: str | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)


class ImageChanges(Input):
    """What to change of an image. What is not given stays; ``name=None`` takes the name away."""

    name: str | None = None
    is_favorite: StrictBool | None = None


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
    generation_params: JsonObject
    generation_time_seconds: float | None
    error_message: str | None
    error_details: JsonObject
    correlation_id: str | None
    view_count: int
    download_count: int
    feedback: dict[str, Any]
    image_metadata: dict[str, Any]
    metadata: dict[str, Any] = Field(validation_alias=AliasChoices("metadata_", "metadata"))


class ImagePage(Value):
    """A page of a list; ``next`` is what to ask for the page after it with, None on the last one."""

    images: tuple[GeneratedImageSummary, ...]
    next: UUID | None
