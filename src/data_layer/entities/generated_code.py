"""The ``generated_codes`` table: the versions of a project's code, which form a tree."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import FetchedValue, Float, ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column
from uuid_utils.compat import uuid7

from data_layer.entities.base import (
    Choice,
    Entity,
    Timestamped,
    amount,
    choice,
    counter,
    flag,
    json_object,
    metadata_column,
    rating,
    rating_rule,
    short_text,
)
from data_layer.entities.enums import CodeStack, GenerationProvider, GenerationStatus, GenerationType


class GeneratedCode(Timestamped, Entity, kw_only=True):
    """One version of the code of a project.

    ``version`` is given by the database when the row is inserted: 1, 2, 3 … within the project. The variants
    that one request returned share ``generation_id`` and count ``variant_index`` from 0.
    """

    __tablename__ = "generated_codes"

    project_id: Mapped[UUID] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"))
    name: Mapped[str | None] = mapped_column(short_text(255), default=None)
    code: Mapped[str] = mapped_column()
    code_stack: Mapped[CodeStack] = choice(CodeStack.HTML_TAILWIND)
    provider: Mapped[GenerationProvider] = mapped_column(Choice(GenerationProvider))
    model: Mapped[str] = mapped_column(short_text(100))
    status: Mapped[GenerationStatus] = choice(GenerationStatus.PENDING)
    generation_type: Mapped[GenerationType] = choice(GenerationType.CREATE)
    original_prompt: Mapped[str | None] = mapped_column(default=None)
    revised_prompt: Mapped[str | None] = mapped_column(default=None)
    additional_instructions: Mapped[str | None] = mapped_column(default=None)
    input_image_url: Mapped[str | None] = mapped_column(default=None)
    result_image_url: Mapped[str | None] = mapped_column(default=None)
    generation_params: Mapped[dict[str, Any]] = json_object()
    temperature: Mapped[float | None] = amount(Float)
    max_tokens: Mapped[int | None] = amount()
    prompt_tokens: Mapped[int | None] = amount()
    completion_tokens: Mapped[int | None] = amount()
    total_tokens: Mapped[int | None] = amount()
    generation_time_seconds: Mapped[float | None] = amount(Float)
    error_message: Mapped[str | None] = mapped_column(default=None)
    error_details: Mapped[dict[str, Any]] = json_object()
    correlation_id: Mapped[str | None] = mapped_column(short_text(255), default=None)
    version: Mapped[int] = mapped_column(init=False, server_default=FetchedValue())
    parent_id: Mapped[UUID | None] = mapped_column(ForeignKey("generated_codes.id"), default=None)
    generation_id: Mapped[UUID] = mapped_column(default_factory=uuid7)
    variant_index: Mapped[int] = mapped_column(default=0, server_default=text("0"), info={"range": (0, 2**31 - 1)})
    is_favorite: Mapped[bool] = flag()
    view_count: Mapped[int] = counter()
    copy_count: Mapped[int] = counter()
    download_count: Mapped[int] = counter()
    rating: Mapped[int | None] = rating()
    feedback: Mapped[dict[str, Any]] = json_object()
    metrics: Mapped[dict[str, Any]] = json_object()
    metadata_: Mapped[dict[str, Any]] = metadata_column()

    __table_args__ = (
        rating_rule(),
        UniqueConstraint("project_id", "version"),
        Index("uq_generated_codes_generation_id_variant_index", "generation_id", "variant_index", unique=True),
        Index("ix_generated_codes_project_id_created_at", "project_id", "created_at"),
        Index("ix_generated_codes_parent_id", "parent_id"),
        Index("ix_generated_codes_status", "status"),
        Index("ix_generated_codes_provider", "provider"),
        Index("ix_generated_codes_code_stack", "code_stack"),
        Index(
            "ix_generated_codes_metrics",
            "metrics",
            postgresql_using="gin",
            postgresql_ops={"metrics": "jsonb_path_ops"},
        ),
    )
