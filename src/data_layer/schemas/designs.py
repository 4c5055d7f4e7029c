"""What can be seen and changed of a design system."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from data_layer.schemas.base import Input, View


class DesignSystemView(View):
    """A design system, as its owner sees it."""

    id: UUID
    name: str
    content: str
    created_at: datetime
    updated_at: datetime


class DesignSystemChanges(Input):
    """What to change of a design system; what is not given, or ``None``, stays."""

    name: str | None = None
    content: str | None = None
