"""What can be seen of a version of generated code: all of it, or a row in a list, without the code."""

from __future__ import annotations

import hashlib
from datetime import datetime
from uuid import UUID

import orjson
from pydantic import AliasChoices, Field, StrictBool

from data_layer.entities.enums import CodeStack, GenerationProvider, GenerationStatus, GenerationType
from data_layer.schemas.base import Input, JsonObject, View


class GeneratedCodeBase(View):
    """What both views of a version have."""

    id: UUID
    project_id: UUID
    name: str | None
    code_stack: CodeStack
    provider: GenerationProvider
    model: str
    status: GenerationStatus
    generation_type: GenerationType
    version: int
    parent_id: UUID | None
    generation_id: UUID
    variant_index: int
    total_tokens: int | None
    generation_time_seconds: float | None
    error_message: str | None
    is_favorite: bool
    rating: int | None
    created_at: datetime
    updated_at: datetime


class GeneratedCodeSummary(GeneratedCodeBase):
    """A row in the list of versions; ``code_size`` is in bytes of UTF-8."""

    code_size: int


class GeneratedCodeFull(GeneratedCodeBase):
    """Everything."""

    code: str
    original_prompt: str | None
    revised_prompt: str | None
    additional_instructions: str | None
    input_image_url: str | None
    result_image_url: str | None
    generation_params: JsonObject
    temperature: float | None
    max_tokens: int | None
    prompt_tokens: int | None
    completion_tokens: int | None
    error_details: JsonObject
    correlation_id: str | None
    view_count: int
    copy_count: int
    download_count: int
    feedback: JsonObject
    metrics: JsonObject
    metadata: JsonObject = Field(validation_alias=AliasChoices("metadata_", "metadata"))

    @property
    def revision(self) -> str:
        """What people edit of it, as a short hash: the same again after a change that was taken back."""
        edited = orjson.dumps([self.name, self.is_favorite, self.rating, self.feedback], option=orjson.OPT_SORT_KEYS)
        return hashlib.sha256(edited).hexdigest()[:16]


class VariantChanges(Input):
    """What to change in a variant. What is not given stays; ``name=None`` takes the name away."""

    name: str | None = None
    is_favorite: StrictBool = False
