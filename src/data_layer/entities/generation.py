"""The ``generations`` and ``generation_events`` tables: what was asked for, and what happened while it was answered."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import FetchedValue, ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from data_layer.entities.base import Entity, Timestamped, choice, json_object, short_text
from data_layer.entities.enums import InputMode, RequestType

_LARGEST_INTEGER = 2**31 - 1


class Generation(Timestamped, Entity, kw_only=True):
    """One request to generate code. Its answers are rows of ``generated_codes``, the variants.

    ``number`` is given by the database when the row is inserted: 1, 2, 3 … within the project, and the ``version`` of
    all its variants. Its status follows from theirs. ``external_key`` is an id of the application that asked,
    ``external_source`` names that application; ``wanted_parent_hash`` is the SHA-256 of the code that this request
    changes, without white space at its ends, and ``lineage`` what else is known of its place in the tree.
    """

    __tablename__ = "generations"

    project_id: Mapped[UUID] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"))
    number: Mapped[int] = mapped_column(init=False, server_default=FetchedValue())
    generation_type: Mapped[RequestType] = choice(RequestType.CREATE)
    input_mode: Mapped[InputMode] = choice(InputMode.IMAGE)
    prompt: Mapped[str | None] = mapped_column(default=None)
    full_prompt: Mapped[str | None] = mapped_column(default=None)
    inputs: Mapped[dict[str, Any]] = json_object()
    design_system: Mapped[str | None] = mapped_column(default=None)
    wanted_parent_hash: Mapped[str | None] = mapped_column(default=None, info={"length": 64})
    external_source: Mapped[str | None] = mapped_column(short_text(64), default=None)
    external_key: Mapped[str | None] = mapped_column(short_text(255), default=None)
    lineage: Mapped[dict[str, Any]] = json_object()
    selected_variant: Mapped[int] = mapped_column(
        default=0, server_default=text("0"), info={"range": (0, _LARGEST_INTEGER)}
    )
    created_by: Mapped[UUID | None] = mapped_column(ForeignKey("users.id"), default=None)
    correlation_id: Mapped[str | None] = mapped_column(short_text(255), default=None)
    started_at: Mapped[datetime] = mapped_column(default=None, server_default=text("now()"))
    ended_at: Mapped[datetime | None] = mapped_column(default=None)

    __table_args__ = (
        UniqueConstraint("project_id", "number"),
        Index(
            "uq_generations_external_source_external_key",
            "external_source",
            "external_key",
            unique=True,
            postgresql_where=text("external_key IS NOT NULL"),
            postgresql_nulls_not_distinct=True,
        ),
        Index(
            "ix_generations_wanted_parent_hash",
            "project_id",
            "wanted_parent_hash",
            postgresql_where=text("wanted_parent_hash IS NOT NULL"),
        ),
        Index("ix_generations_created_by", "created_by", postgresql_where=text("created_by IS NOT NULL")),
    )


class GenerationEvent(Timestamped, Entity, kw_only=True):
    """Something that happened while a variant was made: thinking, a message of the assistant, the use of a tool."""

    __tablename__ = "generation_events"

    code_id: Mapped[UUID] = mapped_column(ForeignKey("generated_codes.id", ondelete="CASCADE"))
    sequence: Mapped[int] = mapped_column(info={"range": (0, _LARGEST_INTEGER)})
    kind: Mapped[str] = mapped_column(short_text(50))
    payload: Mapped[dict[str, Any]] = json_object()

    __table_args__ = (UniqueConstraint("code_id", "sequence"),)
