"""Variants by the pages that readers got of them: in whichever form, with or without the mark behind their addresses.

Both are compared without what showing changes, so nothing has to be stored when a page is shown. A page names images by
addresses that lead to the projects that show them; their codes are read until the one is found that was shown so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from uuid import UUID

from data_layer.entities import GeneratedCode
from data_layer.entities.enums import ProjectStatus
from data_layer.repositories.unit_of_work import UnitOfWork
from data_layer.schemas.codes import GeneratedCodeSummary
from data_layer.services.page_images import PageImages, images_of, marks_in, names_kept_here, names_of_images

_PAGE = 25
_BATCH_BYTES = 4 * 2**20
_MOST_PROJECTS = 20
"""Projects of a person that are searched; permanent addresses lead to one and its copies, local ones to any number."""


async def variants_shown_as(
    tx: UnitOfWork, page: str, *, owner_id: UUID, project_id: UUID | None = None
) -> Sequence[GeneratedCode]:
    """The variants of a person that were shown as this page: one by its mark, or all of a project that have this code.

    Args:
        tx: where.
        page: what came back.
        owner_id: the person.
        project_id: look in this project only.
    """
    if not names_kept_here(page):
        return ()
    for code_id in marks_in(page):
        code = await tx.codes.find_one(id=code_id)
        if code is None or project_id not in {None, code.project_id}:
            continue
        project = await tx.projects.find_one(id=code.project_id)
        if project is None or project.user_id != owner_id or project.status is ProjectStatus.DELETED:
            continue
        if _alike(await images_of(tx, code.project_id), page, {code.id: code.code}):
            return [code]
    names, hashes = names_of_images(page)
    # A permanent address says more than a local one, which several projects may name.
    found = await tx.files.projects_showing(owner_id, names=names, limit=_MOST_PROJECTS) if names else ()
    found = found or await tx.files.projects_showing(owner_id, hashes=hashes, limit=_MOST_PROJECTS)
    for each in found:
        if project_id in {None, each} and (ids := await _shown_in(tx, each, page)):
            return [await tx.codes.get(code_id) for code_id in ids]
    return ()


async def _shown_in(tx: UnitOfWork, project_id: UUID, page: str) -> list[UUID]:
    """The variants of a project that were shown as a page."""
    images = await images_of(tx, project_id)
    ids: list[UUID] = []
    before: int | None = None
    while before is None or before > 1:
        rows = await tx.generations.tree_page(project_id, limit=_PAGE, before=before)
        if not rows:
            break
        for batch in _batches(await tx.codes.summaries_of([row.id for row in rows])):
            ids += await asyncio.to_thread(_alike, images, page, await tx.codes.texts(batch))
        before = rows[-1].number
    return ids


def _batches(variants: Sequence[GeneratedCodeSummary]) -> Iterator[list[UUID]]:
    """Variants whose codes are read at once."""
    batch: list[UUID] = []
    size = 0
    for variant in variants:
        if batch and size + variant.code_size > _BATCH_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(variant.id)
        size += variant.code_size
    if batch:
        yield batch


def _alike(images: PageImages, page: str, codes: dict[UUID, str]) -> list[UUID]:
    """The codes that were shown as a page."""
    compared = images.compared(page)
    return [code_id for code_id, code in codes.items() if code and images.compared(code) == compared]
