"""Where the cache keeps what is known about a project."""

from __future__ import annotations

from uuid import UUID


def project_key(project_id: UUID) -> str:
    """The cache key of a project: whatever changes a project's row names it in ``tx.invalidate``."""
    return f"project:{project_id}"
