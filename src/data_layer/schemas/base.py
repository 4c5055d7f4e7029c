"""What all views have in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Value(BaseModel):
    """An immutable value that callers see."""

    model_config = ConfigDict(frozen=True)


class View(Value):
    """A picture of a row, made with ``View.model_validate(entity)``."""

    model_config = ConfigDict(from_attributes=True)
