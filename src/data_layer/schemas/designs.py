"""What can be seen and changed of a design system."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from data_layer.schemas.base import View


class DesignSystemView(View):
    """A design system, as its owner sees it."""

    id: UUID
    name: str
    content: str
    created_at: datetime
    updated_at: datetime


class DesignSystemChanges(BaseModel):
    """What to change of a design system; what is not given, or ``None``, stays."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str | None = None
    content: str | None = None
