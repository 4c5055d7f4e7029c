"""What all views have in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class View(BaseModel):
    """A frozen picture of a row, made with ``View.model_validate(entity)``."""

    model_config = ConfigDict(frozen=True, from_attributes=True)
