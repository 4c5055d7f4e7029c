"""What maintenance did, or would do."""

from __future__ import annotations

from data_layer.schemas.base import View


class MaintenanceReport(View):
    """One round. In a dry run the numbers are what there is to do, those of entries to move about.

    ``is_complete`` is false when another process was at it, or something was kept for the next round because its
    tables were busy. ``objects_removed`` are those of the storage that nothing refers to any more, files and uploads
    aside. ``codes_packed`` were moved out of their rows, and ``code_bodies_removed`` are texts that no code has any
    more. ``variants_expired`` were still running when their writers stopped. ``projects_indexed`` had changed since a
    search indexed them. ``images_given_thumbnails`` were stored by processes that ended before they had made any.
    ``audit_triggers_restored`` are those that protect the audit trail and did not hold always.
    """

    is_dry_run: bool = False
    is_complete: bool = True
    sessions_removed: int = 0
    refresh_tokens_removed: int = 0
    api_keys_removed: int = 0
    session_changes_removed: int = 0
    idempotency_keys_removed: int = 0
    login_attempts_removed: int = 0
    projects_removed: int = 0
    variants_expired: int = 0
    generation_events_removed: int = 0
    mails_removed: int = 0
    exports_expired: int = 0
    exports_removed: int = 0
    projects_indexed: int = 0
    codes_packed: int = 0
    code_bodies_removed: int = 0
    files_expired: int = 0
    uploads_abandoned: int = 0
    objects_removed: int = 0
    images_given_thumbnails: int = 0
    audit_partitions_made: tuple[str, ...] = ()
    audit_partitions_dropped: tuple[str, ...] = ()
    audit_partitions_moved: tuple[str, ...] = ()
    audit_triggers_restored: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
