"""Who may see and change the generations of a project, and how they are shown."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from data_layer.entities import GeneratedCode, Generation, Project
from data_layer.entities.enums import GenerationStatus, ProjectStatus
from data_layer.errors import NotFoundError
from data_layer.repositories.unit_of_work import UnitOfWork
from data_layer.schemas.actors import Actor
from data_layer.schemas.codes import GeneratedCodeSummary
from data_layer.schemas.generations import GenerationRow, GenerationView
from data_layer.services.permissions import Permission, as_of_now, is_allowed, reading_entry

_FOR_A_REASON = {
    Permission.READ_CODE: Permission.READ_CODE_FOR_A_REASON,
    Permission.READ_IMAGES: Permission.READ_IMAGES_FOR_A_REASON,
}
_READINGS = {
    Permission.READ_CODE: "Read the code of another person's project",
    Permission.READ_IMAGES: "Read the images of another person's project",
}


async def open_project(
    tx: UnitOfWork,
    actor: Actor,
    project_id: UUID,
    permission: Permission,
    *,
    reason: str | None = None,
    even_deleted: bool = False,
    is_recorded: bool = True,
) -> Project:
    """The project, for an actor who may do this with its generations or images.

    Moderators and administrators may read what is not theirs if they give a reason, which is recorded, unless this
    only checks once more what was recorded before.

    Raises:
        NotFoundError: there is none, or it is not the actor's.
        PermissionDeniedError: the actor's account is not active.
    """
    actor = await as_of_now(tx, actor)
    try:
        project = await tx.projects.get(project_id)
    except NotFoundError:
        raise _missing(project_id) from None
    if project.status is ProjectStatus.DELETED and not even_deleted:
        raise _missing(project_id)
    if is_allowed(actor, permission, owner=project.user_id):
        return project
    for_a_reason = _FOR_A_REASON.get(permission)
    if for_a_reason is None or reason is None or not is_allowed(actor, for_a_reason, owner=project.user_id):
        raise _missing(project_id)
    entry = reading_entry(
        *(actor, project.user_id, _READINGS[permission], reason),
        resource_type="project",
        resource_id=str(project.id),
    )
    if is_recorded:
        tx.add(entry)
    return project


async def open_generation(
    tx: UnitOfWork, actor: Actor, generation_id: UUID, permission: Permission, **options: Any
) -> tuple[Project, Generation]:
    """A generation with its project; the options are those of ``open_project``."""
    generation = await tx.generations.find_one(id=generation_id)
    if generation is None:
        raise NotFoundError(f"no generation has the id {generation_id}")
    try:
        project = await open_project(tx, actor, generation.project_id, permission, **options)
    except NotFoundError:
        raise NotFoundError(f"no generation has the id {generation_id}") from None
    return project, generation


async def open_code(
    tx: UnitOfWork, actor: Actor, code_id: UUID, permission: Permission, *, lock: bool = False, **options: Any
) -> tuple[Project, GeneratedCode]:
    """A variant with its project; the options are those of ``open_project``."""
    try:
        code = await tx.codes.get(code_id, lock=lock)
        return await open_project(tx, actor, code.project_id, permission, **options), code
    except NotFoundError:
        raise NotFoundError(f"no code has the id {code_id}") from None


async def view_of(tx: UnitOfWork, generation: Generation) -> GenerationView:
    """A generation with its variants as they are now."""
    [view] = views_of([generation], await tx.codes.summaries_of([generation.id]))
    return view


def views_of(
    generations: Sequence[GenerationRow | Generation], codes: Sequence[GeneratedCodeSummary]
) -> tuple[GenerationView, ...]:
    """Generations with those of the variants that are theirs, in the order in which they are given."""
    variants = defaultdict(list)
    for code in codes:
        variants[code.generation_id].append(code)
    return tuple(_view(generation, tuple(variants[generation.id])) for generation in generations)


def status_of(statuses: Sequence[GenerationStatus]) -> GenerationStatus:
    """The status of a generation: it runs as long as one variant does, and one that is complete is enough."""
    present = set(statuses)
    if present == {GenerationStatus.PENDING}:
        return GenerationStatus.PENDING
    if present & {GenerationStatus.PENDING, GenerationStatus.PROCESSING}:
        return GenerationStatus.PROCESSING
    if GenerationStatus.COMPLETED in present:
        return GenerationStatus.COMPLETED
    return GenerationStatus.CANCELLED if present == {GenerationStatus.CANCELLED} else GenerationStatus.FAILED


def _view(generation: GenerationRow | Generation, variants: tuple[GeneratedCodeSummary, ...]) -> GenerationView:
    values = {name: getattr(generation, name) for name in GenerationRow.model_fields}
    return GenerationView(**values, variants=variants, status=status_of([code.status for code in variants]))


def _missing(project_id: UUID) -> NotFoundError:
    return NotFoundError(f"no project has the id {project_id}")
