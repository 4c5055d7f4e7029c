"""How a transaction ended."""

from __future__ import annotations

from enum import StrEnum


class Outcome(StrEnum):
    """How a transaction ended."""

    COMMITTED = "committed"
    ROLLED_BACK = "rolled_back"
    READ_ONLY = "read_only"
    """It has changed nothing, so that there was nothing to commit."""
    UNKNOWN = "unknown"
    """The connection broke while PostgreSQL was committing."""
