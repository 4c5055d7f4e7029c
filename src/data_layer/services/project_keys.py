"""Where the cache keeps what is known about projects. Whatever changes them names these keys in ``tx.invalidate``."""

from __future__ import annotations

from uuid import UUID


def project_key(project_id: UUID) -> str:
    """The key of a project's row, and of its generations and their variants, without code."""
    return f"project:{project_id}"


def owner_key(user_id: UUID) -> str:
    """The key of a person's list of projects, and of whether the account is active."""
    return f"projects_of:{user_id}"


def keys_of_project(project_id: UUID, owner_id: UUID) -> tuple[str, str]:
    """The keys of whatever shows a project: its row counts its generations, and the list shows the row."""
    return project_key(project_id), owner_key(owner_id)
