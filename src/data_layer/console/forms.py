"""What people send: texts, of which only those count that mean something."""

from __future__ import annotations

from enum import StrEnum
from typing import TypeVar

Choice = TypeVar("Choice", bound=StrEnum)


def choice(kind: type[Choice], text: str | None) -> Choice | None:
    """The member of an enumeration that a text names; None where it names none."""
    try:
        return kind(text or "")
    except ValueError:
        return None
