"""Exports of everything about a person, as that person sees them."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from data_layer.entities.enums import ExportStatus
from data_layer.schemas.base import Value, View


class ExportView(View):
    """An export, and how far it is.

    ``projects`` and ``files`` (those that belong to no project) are how many there were when it began, null before;
    ``projects_done`` and ``files_done`` are how many of them are in the archive. ``size`` is in bytes, and like
    ``expires_at`` there once the archive is complete. ``error`` says why it failed.
    """

    id: UUID
    user_id: UUID
    status: ExportStatus
    projects: int | None
    projects_done: int
    files: int | None
    files_done: int
    size: int | None
    error: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    expires_at: datetime | None


class ExportPage(Value):
    """A page of exports, the newest first; ``next`` is the ``after`` of the page after it, null on the last one."""

    exports: tuple[ExportView, ...]
    next: UUID | None
