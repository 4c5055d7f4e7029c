"""A project again, as another project: with its history, or with one version as the root of a new one."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from data_layer.entities import AuditLog, GeneratedCode, Generation, Project
from data_layer.entities.enums import AuditAction, InputMode, ProjectStatus, RequestType
from data_layer.errors import InvalidValueError, NotFoundError
from data_layer.repositories.project_copies import ProjectContents, ProjectCopy
from data_layer.repositories.unit_of_work import UnitOfWork
from data_layer.schemas.actors import Actor
from data_layer.schemas.generations import VariantModel
from data_layer.schemas.projects import ProjectFull
from data_layer.schemas.shares import SharedPage
from data_layer.services.files.backends import PUBLIC_PATH
from data_layer.services.generations.versions import add_copy
from data_layer.services.page_images import hold_images, images_of
from data_layer.services.project_keys import keys_of_project, owner_key

_LONGEST_NAME = 255
_EVERY_GENERATION = 2**31 - 1


async def copy_with_history(
    tx: UnitOfWork, actor: Actor, project: Project, *, last: int | None, name: str | None
) -> ProjectFull:
    """Copy a project with its generations, all or up to one; they keep their numbers."""
    contents = await _contents(tx, project, last=_EVERY_GENERATION if last is None else last)
    copy = await _begin(tx, project, contents, name)
    await tx.project_copies.fill(copy)
    return await _finish(tx, actor, copy, last, with_history=True)


async def copy_version(
    tx: UnitOfWork, actor: Actor, project: Project, code: GeneratedCode | None, *, name: str | None
) -> ProjectFull:
    """Copy a project with one of its codes, whose version 1 it becomes: a root of type import."""
    contents = await _contents(tx, project, last=0, code_id=None if code is None else code.id)
    copy = await _begin(tx, project, contents, name)
    if code is not None:
        origin = {"project_id": str(project.id), "version": code.version, "variant": code.variant_index}
        root = Generation(
            project_id=copy.id,
            generation_type=RequestType.IMPORT,
            input_mode=InputMode.TEXT,
            created_by=actor.user_id,
            inputs={"copied_from": origin},
        )
        copy.ids[code.id] = await add_copy(tx, root, code, parent_id=None)
    await tx.project_copies.fill(copy)
    return await _finish(tx, actor, copy, None if code is None else code.version, with_history=False)


async def import_page(tx: UnitOfWork, owner_id: UUID, page: SharedPage, *, name: str, base: str) -> Project:
    """Make a project of a page with its images, as its version 1.

    Args:
        tx: where.
        owner_id: whose it will be.
        page: with permanent addresses of its images, in place of which those stand in the copy that they have there.
        name: of the project.
        base: what these addresses begin with.
    """
    project = Project(user_id=owner_id, name=_checked(name), status=ProjectStatus.ACTIVE)
    tx.add(project)
    tx.invalidate(*keys_of_project(project.id, owner_id))
    await tx.flush()
    hold_images(tx, project.id, [page.code])
    images = await images_of(tx, project.id)
    unknown = VariantModel()
    code = GeneratedCode(
        project_id=project.id,
        code=images.written(page.code, lambda end: f"{base}{PUBLIC_PATH}{end}"),
        code_stack=page.code_stack,
        provider=unknown.provider,
        model=unknown.name,
    )
    root = Generation(
        project_id=project.id,
        generation_type=RequestType.IMPORT,
        input_mode=InputMode.TEXT,
        created_by=owner_id,
        inputs={"copied_from": "share"},
    )
    await add_copy(tx, root, code, parent_id=None)
    return await tx.projects.get(project.id, lock=True)  # Read again: its generation is counted.


async def _contents(tx: UnitOfWork, project: Project, **which: Any) -> ProjectContents:
    contents = await tx.project_copies.contents(project.id, **which)
    if contents is None:
        raise NotFoundError(f"no project has the id {project.id}")
    return contents


async def _begin(tx: UnitOfWork, project: Project, contents: ProjectContents, name: str | None) -> ProjectCopy:
    if name is None:
        suffix = " (copy)"
        name = project.name[: _LONGEST_NAME - len(suffix)] + suffix
    # The entity checks the name; the database inserts the row.
    checked = Project(user_id=project.user_id, name=_checked(name))
    return await tx.project_copies.begin(contents, owner_id=project.user_id, name=checked.name)


def _checked(name: str) -> str:
    if not name.strip():
        raise InvalidValueError("name is empty; leave it out, or give the copy one", field="name")
    return name.strip()


async def _finish(
    tx: UnitOfWork, actor: Actor, copy: ProjectCopy, version: int | None, *, with_history: bool
) -> ProjectFull:
    values = {"name": copy.name, "source_project_id": str(copy.contents.project_id), "with_history": with_history}
    tx.invalidate(owner_key(copy.owner_id))
    tx.add(
        AuditLog.data_action(
            *(AuditAction.PROJECT_CLONE, actor.user_id or copy.owner_id, "project", copy.id, "Copied a project"),
            new_values=values if version is None else values | {"version": version},
        )
    )
    return ProjectFull.model_validate(await tx.projects.get(copy.id))
