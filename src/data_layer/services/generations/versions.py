"""The versions of a project's code: its tree, any of them, what differs, and an earlier one again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from uuid import UUID

from data_layer.entities import AuditLog, GeneratedCode, Generation, Project
from data_layer.entities.enums import AuditAction, GenerationStatus, RequestType
from data_layer.errors import InvalidValueError, NotFoundError
from data_layer.repositories.repository import check_limit, check_number
from data_layer.repositories.unit_of_work import Transactions, UnitOfWork
from data_layer.schemas.actors import Actor
from data_layer.schemas.codes import GeneratedCodeFull
from data_layer.schemas.generations import CodeDiff, GenerationView
from data_layer.services.cached_projects import CachedProjects
from data_layer.services.generations.access import open_project, view_of, views_of
from data_layer.services.generations.differences import difference
from data_layer.services.permissions import Permission
from data_layer.services.project_keys import keys_of_project
from data_layer.services.view_counts import ViewCounts


class Versions:
    """What can be done with the versions of a project. ``variant`` is by default the one that was selected."""

    def __init__(self, transactions: Transactions, cached: CachedProjects, views: ViewCounts) -> None:
        self._transactions = transactions
        self._cached = cached
        self._views = views

    async def history(
        self, actor: Actor, project_id: UUID, *, limit: int = 100, before: int | None = None, reason: str | None = None
    ) -> Sequence[GenerationView]:
        """The generations of a project with their variants, last one first, without code.

        Variants form a tree by their ``parent_id``.

        Args:
            actor: the owner.
            project_id: of which project.
            limit: the length of the page, 1000 at most.
            before: the number of the last generation of the page before.
            reason: why, where a moderator looks at somebody else's; it is recorded.

        Raises:
            NotFoundError: the actor has no such project.
        """
        check_limit(limit)
        if before is not None:
            check_number("before", before)

        async def load() -> tuple[GenerationView, ...]:
            async with self._transactions() as tx:
                return views_of(*await tx.generations.history(project_id, limit=limit, before=before))

        project = await self._cached.project(project_id)
        if actor.user_id == project.user_id:
            return await self._cached.history(project, f"{limit}:{before}", load)
        async with self._transactions() as tx:
            await open_project(tx, actor, project_id, Permission.READ_CODE, reason=reason)
        return await load()

    async def version(
        self, actor: Actor, project_id: UUID, number: int, variant: int | None = None, *, reason: str | None = None
    ) -> GeneratedCodeFull:
        """A version with its code; the view is counted, as those of projects are (see ``data.projects.open``).

        Raises:
            NotFoundError: the project, version or variant does not exist.
        """
        async with self._transactions() as tx:
            await open_project(tx, actor, project_id, Permission.READ_CODE, reason=reason)
            code = GeneratedCodeFull.model_validate(await code_at(tx, project_id, number, variant))
        self._views.count(GeneratedCode, code.id)
        return code

    async def latest(self, actor: Actor, project_id: UUID, *, reason: str | None = None) -> GeneratedCodeFull:
        """The selected variant of the last generation that has one which is complete; that one if it is not.

        The view is counted, see ``version``.

        Raises:
            NotFoundError: the project does not exist, or nothing in it is complete.
        """
        async with self._transactions() as tx:
            await open_project(tx, actor, project_id, Permission.READ_CODE, reason=reason)
            code = await tx.codes.latest(project_id)
        if code is None:
            raise NotFoundError("the project has no version that is complete")
        self._views.count(GeneratedCode, code.id)
        return GeneratedCodeFull.model_validate(code)

    async def diff(
        self,
        actor: Actor,
        project_id: UUID,
        old: int | tuple[int, int],
        new: int | tuple[int, int],
        *,
        reason: str | None = None,
    ) -> CodeDiff:
        """How two versions differ.

        Args:
            actor: the owner.
            project_id: of which project.
            old: the number of a version, or it and a variant.
            new: the same.
            reason: see ``history``.

        Raises:
            NotFoundError: the project, version or variant does not exist.
        """
        async with self._transactions() as tx:
            await open_project(tx, actor, project_id, Permission.READ_CODE, reason=reason)
            places = [(place, None) if isinstance(place, int) else place for place in (old, new)]
            codes = [await code_at(tx, project_id, *place) for place in places]
        return await asyncio.to_thread(difference, *codes)

    async def restore(self, actor: Actor, project_id: UUID, number: int, variant: int | None = None) -> GenerationView:
        """Make an earlier version the last one again: a generation of its own, made from the one that is restored.

        Raises:
            NotFoundError: the project, version or variant does not exist.
            InvalidValueError: it is not complete.
        """
        async with self._transactions() as tx:
            project = await open_project(tx, actor, project_id, Permission.CHANGE_CODE)
            return await restore_code(
                tx, actor, project, require_complete(await code_at(tx, project_id, number, variant))
            )


async def code_at(tx: UnitOfWork, project_id: UUID, number: int, variant: int | None) -> GeneratedCode:
    """The code of a version; of the selected variant, unless one is named.

    Raises:
        NotFoundError: the version or variant does not exist.
    """
    missing = NotFoundError(f"the project has no version {number}" + ("" if variant is None else f".{variant}"))
    if not all(0 <= value < 2**31 for value in (number, variant or 0)):
        raise missing
    if variant is None:
        generation = await tx.generations.find_one(project_id=project_id, number=number)
        if generation is None:
            raise missing
        variant = generation.selected_variant
    code = await tx.codes.find_one(project_id=project_id, version=number, variant_index=variant)
    if code is None:
        raise missing
    return code


async def restore_code(tx: UnitOfWork, actor: Actor, project: Project, source: GeneratedCode) -> GenerationView:
    """Begin a generation that has the code of an earlier one, which is complete."""
    origin = await tx.generations.get(source.generation_id)
    generation = Generation(
        project_id=project.id,
        generation_type=RequestType.RESTORE,
        input_mode=origin.input_mode,
        created_by=actor.user_id,
        inputs={"restored_version": source.version, "restored_variant": source.variant_index},
    )
    await add_copy(tx, generation, source, parent_id=source.id)
    tx.invalidate(*keys_of_project(project.id, project.user_id))
    tx.add(
        AuditLog.data_action(
            *(AuditAction.CODE_UPDATE, project.user_id, "generation", generation.id, "Restored a version"),
            new_values={"project_id": str(project.id), "number": generation.number, "restored": source.version},
        )
    )
    return await view_of(tx, await tx.generations.get(generation.id, lock=True))  # Read again: it is closed.


def require_complete(code: GeneratedCode, field: str = "number") -> GeneratedCode:
    """The code itself, when it is complete.

    Raises:
        InvalidValueError: it is not.
    """
    if code.status is not GenerationStatus.COMPLETED:
        raise InvalidValueError(f"version {code.version} is {code.status}; choose one that is complete", field=field)
    return code


async def add_copy(tx: UnitOfWork, generation: Generation, source: GeneratedCode, *, parent_id: UUID | None) -> UUID:
    """Insert a generation with one variant, which has the code of another; returns the id of that variant."""
    tx.add(generation)
    await tx.flush()  # The database gives the number, and the variant has the same.
    copy = GeneratedCode(
        project_id=generation.project_id,
        generation_id=generation.id,
        parent_id=parent_id,
        code=source.code,
        code_stack=source.code_stack,
        provider=source.provider,
        model=source.model,
        generation_type=source.generation_type,
        status=GenerationStatus.COMPLETED,
    )
    tx.add(copy)
    await tx.flush()
    tx.generations.close(generation.id, generation.project_id)
    return copy.id
