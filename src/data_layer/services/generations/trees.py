"""A project whole: all its generations with their variants, read piece by piece."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from uuid import UUID

from data_layer.entities import Project
from data_layer.repositories.unit_of_work import UnitOfWork
from data_layer.schemas.actors import Actor
from data_layer.schemas.codes import GeneratedCodeSummary
from data_layer.schemas.generations import (
    GenerationFull,
    OpenedTree,
    TreeCode,
    TreeGeneration,
    TreeRow,
    TreeVariant,
)
from data_layer.schemas.projects import ProjectFull
from data_layer.services.generations.access import open_generation, open_project, status_of, view_of
from data_layer.services.generations.versions import Versions
from data_layer.services.permissions import Permission

_PAGE = 25
_BATCH_BYTES = 4 * 2**20
"""How much code is read at once, unless one generation has more."""


class Trees(Versions):
    """Generations one by one, and all of a project at once."""

    async def open(self, actor: Actor, generation_id: UUID, *, reason: str | None = None) -> GenerationFull:
        """A generation with what was asked for and its variants, without their code.

        Args:
            actor: the owner of the project.
            generation_id: which one.
            reason: why, where a moderator looks at somebody else's; it is recorded.

        Raises:
            NotFoundError: the actor has no such generation.
        """
        async with self._transactions() as tx:
            _, generation = await open_generation(tx, actor, generation_id, Permission.READ_CODE, reason=reason)
            view = await view_of(tx, generation)
        more = {name: getattr(generation, name) for name in GenerationFull.model_fields.keys() - set(view.__dict__)}
        return GenerationFull(**view.__dict__, **more)

    async def tree(
        self, actor: Actor, project_id: UUID, *, code: TreeCode = TreeCode.SELECTED, reason: str | None = None
    ) -> OpenedTree:
        """Everything that an application needs to show a project again. The view is counted.

        What is read at once is bounded: 25 generations, and the code of some of them up to 4 MiB, or of a single one.
        Whether the actor may read is checked again each time. Generations that begin meanwhile are left out.

        Args:
            actor: the owner.
            project_id: which project.
            code: which variants come with their code.
            reason: why, where a moderator looks at somebody else's; it is recorded.

        Raises:
            NotFoundError: the actor has no such project.
        """
        async with self._transactions() as tx:
            row = await open_project(tx, actor, project_id, Permission.READ_CODE, reason=reason)
            project = ProjectFull.model_validate(row)
            state = (
                f"{project.revision}/{project.updated_at.timestamp()}/{await tx.generations.tree_fingerprint(row.id)}"
            )
        self._views.count(Project, project_id)
        return OpenedTree(
            project=project,
            fingerprint=hashlib.sha256(state.encode()).hexdigest(),
            generations=self._generations(actor, project_id, code, reason),
        )

    async def _generations(
        self, actor: Actor, project_id: UUID, code: TreeCode, reason: str | None
    ) -> AsyncIterator[TreeGeneration]:
        async def reopen(tx: UnitOfWork) -> None:
            await open_project(tx, actor, project_id, Permission.READ_CODE, reason=reason, is_recorded=False)

        before: int | None = None
        while before is None or before > 1:
            async with self._transactions() as tx:
                await reopen(tx)
                rows = await tx.generations.tree_page(project_id, limit=_PAGE, before=before)
                variants = defaultdict(list)
                for variant in await tx.codes.summaries_of([row.id for row in rows]):
                    variants[variant.generation_id].append(variant)
            if not rows:
                return
            for batch in _batches(rows, variants, code):
                wanted = [each.id for row in batch for each in _with_code(row, variants[row.id], code)]
                texts: dict[UUID, str] = {}
                if wanted:
                    async with self._transactions() as tx:
                        await reopen(tx)
                        texts = await tx.codes.texts(wanted)
                for row in batch:
                    yield _generation(row, variants[row.id], texts)
            before = rows[-1].number


def _batches(
    rows: Sequence[TreeRow], variants: dict[UUID, list[GeneratedCodeSummary]], code: TreeCode
) -> Iterator[list[TreeRow]]:
    """Generations whose code is read at once."""
    batch: list[TreeRow] = []
    size = 0
    for row in rows:
        added = sum(each.code_size for each in _with_code(row, variants[row.id], code))
        if batch and size + added > _BATCH_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(row)
        size += added
    if batch:
        yield batch


def _with_code(row: TreeRow, variants: Sequence[GeneratedCodeSummary], code: TreeCode) -> list[GeneratedCodeSummary]:
    match code:
        case TreeCode.NONE:
            return []
        case TreeCode.SELECTED:
            return [each for each in variants if each.variant_index == row.selected_variant]
        case TreeCode.ALL:
            return list(variants)


def _generation(row: TreeRow, variants: Sequence[GeneratedCodeSummary], texts: dict[UUID, str]) -> TreeGeneration:
    # They come from the database: nothing has to be validated again.
    shown = tuple(TreeVariant.model_construct(**each.__dict__, code=texts.get(each.id)) for each in variants)
    status = status_of([each.status for each in variants])
    return TreeGeneration.model_construct(**row.__dict__, status=status, variants=shown)
