"""Reading projects and the versions of their code."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from data_layer.entities import Project
from data_layer.entities.columns import check_text
from data_layer.entities.enums import ProjectStatus
from data_layer.errors import NotFoundError
from data_layer.repositories.repository import MAXIMUM_PAGE
from data_layer.repositories.unit_of_work import Transactions, UnitOfWork
from data_layer.schemas.base import Value
from data_layer.schemas.codes import GeneratedCodeSummary
from data_layer.schemas.images import GeneratedImageSummary
from data_layer.schemas.projects import ProjectFull, ProjectSummary
from data_layer.schemas.users import UserPublic
from data_layer.services.arguments import checks_arguments

_SEVERAL = 5  # As many ids as one can choose from.


class ProjectRow(ProjectSummary):
    """A row in the operator's list of projects."""

    owner: str
    version_count: int


class ProjectDetails(Value):
    """A project with its versions and images, without their contents."""

    project: ProjectFull
    owner: UserPublic
    versions: tuple[GeneratedCodeSummary, ...]
    images: tuple[GeneratedImageSummary, ...]


@checks_arguments
class ProjectOverview:
    """What operators see of projects of all users."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    async def recent(self, *, limit: int = 50, is_deleted: bool = False) -> list[ProjectRow]:
        """The projects of all users that were changed last, newest first; or those that were deleted last."""
        async with self._transactions() as tx:
            projects = await tx.projects.recent(limit=limit, is_deleted=is_deleted)
            owners = {project.user_id for project in projects}
            users = {user.id: user for user in await tx.users.list(id=owners, limit=max(1, len(owners)))}
            counts = await tx.codes.counts([project.id for project in projects])
        return [_row(project, users[project.user_id].email, counts.get(project.id, 0)) for project in projects]

    async def find(self, id_or_name: str, *, is_deleted: bool = False) -> ProjectSummary:
        """One project, by its id or by its name; of names only those in the trash count if ``is_deleted``.

        Raises:
            NotFoundError: when there is none, or several have the name.
        """
        async with self._transactions() as tx:
            return ProjectSummary.model_validate(await _find(tx, id_or_name, is_deleted=is_deleted))

    async def details(self, id_or_name: str) -> ProjectDetails:
        """One project, by its id or by its name.

        Raises:
            NotFoundError: when there is none, or several have the name.
        """
        async with self._transactions() as tx:
            project = await _find(tx, id_or_name)
            owner = await tx.users.get(project.user_id)
            versions = await tx.codes.summaries(project.id)
            images = await tx.images.list(project_id=project.id, limit=MAXIMUM_PAGE)
        return ProjectDetails(
            project=ProjectFull.model_validate(project),
            owner=UserPublic.model_validate(owner),
            versions=tuple(versions),
            images=tuple(GeneratedImageSummary.model_validate(image) for image in images),
        )


def _row(project: Project, owner: str, version_count: int) -> ProjectRow:
    summary = ProjectSummary.model_validate(project).model_dump()
    return ProjectRow(**summary, owner=owner, version_count=version_count)


async def _find(tx: UnitOfWork, id_or_name: str, *, is_deleted: bool = False) -> Project:
    check_text("id_or_name", id_or_name)
    try:
        return await tx.projects.get(UUID(id_or_name))
    except ValueError:
        pass
    where, option = (" in the trash", " --deleted") if is_deleted else ("", "")
    status: dict[str, Any] = {"status": ProjectStatus.DELETED} if is_deleted else {}
    found = await tx.projects.list(name=id_or_name, limit=_SEVERAL, **status)
    if not found:
        raise NotFoundError(f"no project{where} has the name {id_or_name!r}; see: data-layer projects list{option}")
    if len(found) > 1:
        ids = ", ".join(str(project.id) for project in found)
        raise NotFoundError(f"several projects have the name {id_or_name!r}; name one by its id: {ids}")
    return found[0]
