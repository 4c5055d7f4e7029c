"""The ``generated_images`` table."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Float, ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

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
from data_layer.entities.columns import Choice
from data_layer.entities.enums import GenerationStatus, ImageKind, ImageProvider, ImageQuality, ImageStyle
from data_layer.errors import InvalidValueError


def _sizes_rule() -> CheckConstraint:
    known = {provider: provider.sizes for provider in ImageProvider if provider.sizes}
    listed = {provider: ", ".join(f"'{size}'" for size in sizes) for provider, sizes in known.items()}
    choices = [f"(provider = '{provider}' AND size IN ({sizes}))" for provider, sizes in listed.items()]
    free = ", ".join(f"'{provider}'" for provider in ImageProvider if not provider.sizes)
    return CheckConstraint(" OR ".join((*choices, f"provider IN ({free})")), name="size")


class GeneratedImage(Timestamped, Entity, kw_only=True):
    """An image that was made for a project, or taken from somewhere. Its bytes live in storage, under ``storage_key``.

    ``thumbnail_url`` is the key of a thumbnail, or else a URL; ``image_url`` is a URL by which anybody may see the
    image. ``size`` is what was asked for; ``width`` and ``height`` are what came.
    """

    __tablename__ = "generated_images"

    project_id: Mapped[UUID] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"))
    name: Mapped[str | None] = mapped_column(short_text(255), default=None)
    prompt: Mapped[str] = mapped_column()
    revised_prompt: Mapped[str | None] = mapped_column(default=None)
    provider: Mapped[ImageProvider] = mapped_column(Choice(ImageProvider))
    kind: Mapped[ImageKind] = choice(ImageKind.GENERATED)
    model: Mapped[str] = mapped_column(short_text(100))
    status: Mapped[GenerationStatus] = choice(GenerationStatus.PENDING)
    size: Mapped[str] = mapped_column(info={"length": 100})
    quality: Mapped[ImageQuality | None] = mapped_column(Choice(ImageQuality), default=None)
    style: Mapped[ImageStyle | None] = mapped_column(Choice(ImageStyle), default=None)
    seed: Mapped[int | None] = mapped_column(BigInteger, default=None)
    image_url: Mapped[str | None] = mapped_column(default=None, info={"format": "image_reference"})
    thumbnail_url: Mapped[str | None] = mapped_column(default=None, info={"format": "image_reference"})
    storage_key: Mapped[str | None] = mapped_column(default=None, info={"format": "image_reference"})
    mime_type: Mapped[str | None] = mapped_column(default=None)
    file_size: Mapped[int | None] = amount(BigInteger)
    width: Mapped[int | None] = amount()
    height: Mapped[int | None] = amount()
    generation_params: Mapped[dict[str, Any]] = json_object()
    generation_time_seconds: Mapped[float | None] = amount(Float)
    error_message: Mapped[str | None] = mapped_column(default=None)
    error_details: Mapped[dict[str, Any]] = json_object()
    correlation_id: Mapped[str | None] = mapped_column(short_text(255), default=None)
    is_favorite: Mapped[bool] = flag()
    view_count: Mapped[int] = counter()
    download_count: Mapped[int] = counter()
    rating: Mapped[int | None] = rating()
    feedback: Mapped[dict[str, Any]] = json_object()
    image_metadata: Mapped[dict[str, Any]] = json_object()
    metadata_: Mapped[dict[str, Any]] = metadata_column()

    __table_args__ = (rating_rule(), _sizes_rule(), Index("ix_generated_images_project_id", "project_id"))

    def __post_init__(self) -> None:
        """Refuse a size that the provider does not make."""
        provider: ImageProvider | None = self.provider  # None until the database has refused the row.
        if provider is not None and provider.sizes and self.size not in provider.sizes:
            sizes = ", ".join(provider.sizes)
            raise InvalidValueError(f"size must be one of those that {provider} makes: {sizes}", field="size")
