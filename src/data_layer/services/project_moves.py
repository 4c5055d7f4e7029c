"""Projects change their status, which every way there records alike."""

from __future__ import annotations

from uuid import UUID

from data_layer.entities import AuditLog, Project
from data_layer.entities.changes import changes_of
from data_layer.entities.enums import AuditAction, ProjectStatus
from data_layer.repositories.unit_of_work import UnitOfWork

_MOVES = {
    ProjectStatus.ACTIVE: "The project is active now",
    ProjectStatus.DRAFT: "The project is a draft now",
    ProjectStatus.ARCHIVED: "The project is archived now",
    ProjectStatus.COMPLETED: "The project is complete now",
    ProjectStatus.DELETED: "The project is in the trash now",
}


def move_project(
    tx: UnitOfWork,
    project: Project,
    status: ProjectStatus,
    action: AuditAction,
    *,
    by: UUID | None,
    description: str | None = None,
) -> None:
    """Give a project another status, with its entry in the audit trail; nothing where it has it.

    Args:
        tx: the transaction.
        project: locked.
        status: the new one.
        action: what it is called in the audit trail.
        by: who does it, by default the owner.
        description: why, if that needs saying.
    """
    if project.status is status:
        return
    project.status = status
    changes = changes_of(project)._asdict()
    what = description or _MOVES[status]
    tx.add(AuditLog.data_action(action, by or project.user_id, "project", project.id, what, **changes))
