"""The ``generated_codes`` table: the variants of each generation of a project, which form a tree."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    CheckConstraint,
    FetchedValue,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    LargeBinary,
    text,
)
from sqlalchemy.orm import Mapped, MappedColumn, mapped_column
from uuid_utils.compat import uuid7

from data_layer.entities.base import (
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
from data_layer.entities.code_body import SMALLEST, CodeText
from data_layer.entities.columns import Choice
from data_layer.entities.enums import CodeStack, GenerationProvider, GenerationStatus, GenerationType


def _kept_by_trigger() -> MappedColumn[bytes | None]:
    return mapped_column(init=False, deferred=True, server_default=FetchedValue(), server_onupdate=FetchedValue())


class GeneratedCode(Timestamped, Entity, kw_only=True):
    """One answer to a request: a variant of a generation.

    ``version`` is given by the database when the row is inserted: the number of its generation. One whose
    ``generation_id`` names no row makes its generation itself, so that it can be added alone. Variants count
    ``variant_index`` from 0.

    While a variant is written, ``writer`` is the SHA-256 of the token that its writer holds, ``lease_until`` the
    moment up to which that writer counts as alive, and ``last_sequence`` the last piece that was stored.

    By the trigger ``hash_code``, ``code_hash`` is the SHA-256 of the code and ``trimmed_hash`` that of the code without
    white space at its ends; both are empty while the variant is written, and when it has no code.

    When nobody writes it any more, maintenance moves the text into ``code_bodies``: ``body`` is its SHA-256 then, and
    the column ``code`` NULL. Reading and assigning ``code`` is the same everywhere.

    ``growth`` is how the code of a variant grew that was streamed, as ``services/generations/growth.py`` packs it.
    """

    __tablename__ = "generated_codes"

    project_id: Mapped[UUID] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"))
    name: Mapped[str | None] = mapped_column(short_text(255), default=None)
    code: Mapped[str] = mapped_column(CodeText(), nullable=True, info={"required": True})
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
    generation_id: Mapped[UUID] = mapped_column(ForeignKey("generations.id", ondelete="CASCADE"), default_factory=uuid7)
    variant_index: Mapped[int] = mapped_column(default=0, server_default=text("0"), info={"range": (0, 2**31 - 1)})
    is_favorite: Mapped[bool] = flag()
    view_count: Mapped[int] = counter()
    copy_count: Mapped[int] = counter()
    download_count: Mapped[int] = counter()
    rating: Mapped[int | None] = rating()
    feedback: Mapped[dict[str, Any]] = json_object()
    metrics: Mapped[dict[str, Any]] = json_object()
    metadata_: Mapped[dict[str, Any]] = metadata_column()
    lease_until: Mapped[datetime | None] = mapped_column(default=None)
    writer: Mapped[str | None] = mapped_column(default=None, info={"length": 64})
    last_sequence: Mapped[int] = mapped_column(default=0, server_default=text("0"), info={"range": (0, 2**31 - 1)})
    code_hash: Mapped[bytes | None] = _kept_by_trigger()
    trimmed_hash: Mapped[bytes | None] = _kept_by_trigger()
    body: Mapped[bytes | None] = mapped_column(LargeBinary, init=False, deferred=True)
    body_size: Mapped[int | None] = mapped_column(init=False, deferred=True)
    growth: Mapped[bytes | None] = mapped_column(LargeBinary, init=False, deferred=True)

    __table_args__ = (
        rating_rule(),
        CheckConstraint("num_nonnulls(code, body) = 1 AND (body IS NULL) = (body_size IS NULL)", name="body"),
        ForeignKeyConstraint(
            ["project_id", "body"], ["code_bodies.project_id", "code_bodies.sha256"], name="fk_generated_codes_body"
        ),
        Index("ix_generated_codes_project_id_body", "project_id", "body", postgresql_where=text("body IS NOT NULL")),
        Index(
            "ix_generated_codes_unpacked",
            *("project_id", "version", "variant_index"),
            postgresql_where=text(f"lease_until IS NULL AND octet_length(code) >= {SMALLEST}"),
        ),
        Index(
            "uq_generated_codes_project_id_version_variant_index", "project_id", "version", "variant_index", unique=True
        ),
        Index("ix_generated_codes_lease_until", "lease_until", postgresql_where=text("lease_until IS NOT NULL")),
        Index("uq_generated_codes_generation_id_variant_index", "generation_id", "variant_index", unique=True),
        Index("ix_generated_codes_project_id_created_at", "project_id", "created_at"),
        Index("ix_generated_codes_parent_id", "parent_id"),
        Index(
            "ix_generated_codes_project_id_trimmed_hash",
            *("project_id", "trimmed_hash"),
            postgresql_where=text("trimmed_hash IS NOT NULL"),
        ),
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
